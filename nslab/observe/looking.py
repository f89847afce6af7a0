"""A look at processes and inside namespaces, by whom it takes.

What /proc shows of a member is read there. For the rest a visitor, a process of the spawner, enters the namespaces, one after
the other, and says what it sees. An ordinary user enters by way of the user namespaces that are his; each of those takes a
visitor of its own, since there is no way back.
"""

from __future__ import annotations

import contextlib
import itertools
import marshal
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nslab import netlink, procfs, syscalls, trace
from nslab.errors import SpawnerError, SyscallError
from nslab.model import NO_ID, IdMap, IpcObject, NamespaceId
from nslab.observe.asking import Answers
from nslab.ops import Plan
from nslab.ops.visits import AT_ONCE, MOST, ORDER, Inside, Place, Visit, in_use, queues, tell
from nslab.procfs import walk
from nslab.procfs.found import Reference, Walk
from nslab.spawner import Descriptor, ensure

_FD = "seen"

Seen = dict[NamespaceId, Any]  # what was read; an OSError where that failed


class Networks(dict[NamespaceId, netlink.Socket]):
    """A netlink socket of each network of which more has to be asked."""

    def close(self) -> None:
        for each in self.values():
            each.close()


class Visitor:
    """A process of the spawner that looks for us, while we do something else."""

    def __init__(self) -> None:
        self._way, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = ensure().start(Plan((Visit(_FD),)), fds={_FD: theirs}, title="nslab-visitor", stay=True)

    def ask(self, method: str, *given: Any, fds: Sequence[int] = ()) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            tell(self._way, (method, *given), fds)

    def answer(self) -> tuple[Any, list[Descriptor]]:
        """To the oldest question that is open, with the descriptors that come with it; SpawnerError when it has ended."""
        room = (MOST + 1, AT_ONCE + 1)
        try:
            data, numbers, _, _ = socket.recv_fds(self._way, *room)
        except ConnectionResetError:  # it left without reading all that it was asked; said once, before what it had answered
            data, numbers, _, _ = socket.recv_fds(self._way, *room)
        found = [Descriptor(each) for each in numbers]
        if data[:1] == b"m":
            with os.fdopen(found.pop().detach(), "rb") as memory:
                memory.seek(0)
                return pickle.load(memory), found
        if not data:
            self._child.settle()  # which says why
            raise SpawnerError("the process that looked has ended.")
        return pickle.loads(data[1:]), found

    def dismiss(self) -> None:
        """Nothing more will be asked: it ends while we go on. What it did is in the traces that are open."""
        self._way.close()
        if trace.is_open():
            with contextlib.suppress(SyscallError):
                self._child.settle()
        self._child.kill()

    def close(self) -> None:
        """Wait until it is gone."""
        try:
            self.dismiss()
        finally:
            self._child.end()


def processes(
    names: tuple[str, ...], visitor: Visitor, *, commands: bool, first: Callable[[], None] | None = None
) -> tuple[Walk, list[Place] | None]:
    """The walk over all processes, which a visitor shares. With something to do ``first``, while the visitor begins, it then
    goes on to the places that it met, which are told too.

    Both open for a moment what they meet, to ask it; neither counts as a holder for that. So this process looks at itself.
    """
    own = os.readlink("/proc/self")
    pieces = walk.Pieces.of(tuple(name for name in names if name != own))
    with Descriptor(pieces.queue):
        visitor.ask("look", pieces.names, commands, fds=(pieces.queue,))
        if first:
            first()
        found = walk.look(itertools.chain((own,), pieces.taken()), commands=commands)
    if first:
        visitor.ask("follow")  # not before: on this walk it would be met in there
    who, other, ahead = marshal.loads(visitor.answer()[0])
    found.references = [each for each in found.references if (each.sort, each.pid) != ("descriptor", who)]
    found.add(other)
    found.finish()
    return found, [Place(*each) for each in ahead] if first else None


def here(machine: Mapping[str, NamespaceId], networks: Networks) -> Seen:
    """The UTS and network namespace that this process is in: it needs to enter nothing."""
    names = syscalls.uname()
    networks[machine["net"]] = netlink.Socket(syscalls.netlink_socket())
    with Descriptor(os.open("/proc", os.O_PATH | os.O_CLOEXEC)) as proc:
        tables = {table: _text(f"self/net/{table}") for table in in_use(proc.fileno())}
    return {
        machine["uts"]: (names.nodename, _text("sys/kernel/domainname").strip()),
        machine["net"]: Inside(tables, *netlink.inventory(networks[machine["net"]])),
    }


def objects_here() -> tuple[IpcObject, ...]:
    """Those of the IPC namespace that this process is in."""
    objects = list(procfs.system_v())
    with contextlib.suppress(OSError):  # not for an ordinary user to see
        objects += queues()
    return tuple(objects)


def by_members(
    kinds: Mapping[NamespaceId, str], members: Mapping[NamespaceId, list[int]],
    references: Mapping[NamespaceId, list[Reference]],
) -> Seen:  # fmt: skip
    """What /proc tells of the namespaces that somebody is in: id maps, clock offsets.

    The offsets that it shows for a process are those that its children get. Who enters a time namespace fixes them: so one
    that waits for its first child must not be visited. time_namespaces(7)
    """
    seen: Seen = {}
    waiting = {each.pid: identity for identity, some in references.items() for each in some if each.sort == "children"}
    parents = {identity: pid for pid, identity in waiting.items()}
    for identity, kind in kinds.items():
        told = members.get(identity, []) if kind in ("user", "time") else []
        if kind == "time":
            told = [*([parents[identity]] if identity in parents else []), *(pid for pid in told if pid not in waiting)]
        for pid in told[:3]:
            with contextlib.suppress(OSError):  # gone, or not ours to look at
                if kind == "user":
                    seen[identity] = tuple(_text(f"{pid}/{name}") for name in ("uid_map", "gid_map", "setgroups"))
                else:
                    seen[identity] = _text(f"{pid}/timens_offsets")
                break
    return seen


def _text(path: str) -> str:
    try:
        return os.fsdecode(procfs.read(path))
    except FileNotFoundError:
        return ""


class Visits:
    """Visits to all places that are ``wanted``; ``entrances`` are the paths of the user namespaces that lead there, if any.

    ``visitor`` begins at once with what needs no entrance, after those ``ahead`` that it met on the walk. To get to the rest
    others are sent, one after the other. ``read`` is what is known already.
    """

    def __init__(
        self, wanted: Mapping[NamespaceId, Place], entrances: Mapping[NamespaceId, str], read: Seen,
        visitor: Callable[[], Visitor], ahead: Iterable[NamespaceId] | None = None,
    ):  # fmt: skip
        self.wanted, self.read, self._visitor = wanted, read, visitor
        groups: dict[tuple[str, bool], list[NamespaceId]] = {}
        rest = wanted.keys() - {*(ahead or ())}
        for each in sorted(rest, key=lambda each: (ORDER.index(wanted[each].kind), each)):
            user = entrances.get(each, "")
            groups.setdefault((user, not user and wanted[each].kind == "net"), []).append(each)
        self._parts = [
            (user, group[at : at + AT_ONCE]) for (user, _), group in groups.items() for at in range(0, len(group), AT_ONCE)
        ]
        for user, some in self._parts:
            if not user:
                self._begin(visitor(), user, some)
        if ahead is not None:
            self._parts.insert(0, ("", [*ahead]))

    def _begin(self, visitor: Visitor, user: str, some: Iterable[NamespaceId]) -> None:
        visitor.ask("enter", [self.wanted[each] for each in some], user)

    def seen(self, networks: Networks) -> Iterator[Seen]:
        """Wait for what they say, part by part."""
        for user, some in self._parts:
            with contextlib.ExitStack() as stack, contextlib.suppress(SyscallError):  # the way in is gone, or not ours
                visitor = stack.enter_context(contextlib.closing(Visitor())) if user else self._visitor()
                if user:
                    self._begin(visitor, user, some)
                (said, numbers), sockets = visitor.answer()
                found: Seen = {}
                for number, each in said.items():
                    found[some[number]] = _outside(self.wanted[some[number]].kind, each, user) if user else each
                for number, opened in zip(numbers, sockets, strict=True):
                    networks[some[number]] = netlink.Socket(socket.socket(fileno=opened.detach()))
                yield found


def _outside(kind: str, said: Any, user: str) -> Any:
    """What was seen from the user namespace behind the path ``user``, with ids as they are numbered here."""
    if kind not in ("ipc", "user") or isinstance(said, OSError):
        return said
    with contextlib.suppress(OSError, ValueError):
        uids, gids = (IdMap(procfs.id_map(int(user.split("/")[2]), which)) for which in ("uid", "gid"))
        if kind == "ipc":
            return tuple(replace(each, uid=_through(uids, each.uid)) for each in said)
        return _translated(said[0], uids), _translated(said[1], gids), said[2]
    return said


def _through(ids: IdMap, number: int) -> int:
    outside = ids.outside(number)
    return NO_ID if outside is None else outside


def _translated(text: str, ids: IdMap) -> str:
    rows = (map(int, line.split()) for line in text.splitlines())
    return "\n".join(f"{inside} {_through(ids, outside)} {count}" for inside, outside, count in rows)


def entrance(wanted: Answers, found: Mapping[NamespaceId, Answers]) -> str:
    """The path of the user namespace through which an ordinary user comes to it: the highest but his own; "" for none."""
    path, user = "", found.get(wanted.owner) if wanted.owner else None
    while user and user.parent:
        path, user = user.path, found.get(user.parent)
    return path
