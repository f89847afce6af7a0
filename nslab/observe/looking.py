"""A look inside: what each namespace isolates.

What /proc shows of a member is read there. For the rest a process of the spawner enters the namespaces, one after the other,
and says what it sees; of a network it hands back a netlink socket. An ordinary user enters by way of the user namespaces that
are his; each of those takes a process of its own, since there is no way back.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from nslab import netlink, procfs, syscalls
from nslab.errors import SyscallError
from nslab.model import NO_ID, IdMap, NamespaceId
from nslab.namespaces import privilege
from nslab.observe.asking import Answers
from nslab.ops import Plan
from nslab.ops.visits import SOCKETS, Place, Visit, queues
from nslab.spawner import ensure

_AT_ONCE = 250  # namespaces that one process looks into, each with a descriptor
_FD = "seen"

Seen = dict[NamespaceId, Any]  # what was read; an OSError where that failed


class Networks(dict[NamespaceId, netlink.Socket]):
    """A netlink socket of each network that was looked into."""

    def close(self) -> None:
        for each in self.values():
            each.close()


def here(machine: Mapping[str, NamespaceId], networks: Networks) -> Seen:
    """The namespaces that this process is in: it needs to enter nothing."""
    names = syscalls.uname()
    networks[machine["net"]] = netlink.Socket(syscalls.netlink_socket())
    objects = list(procfs.system_v())
    with contextlib.suppress(OSError):  # not for an ordinary user to see
        objects += queues()
    return {
        machine["uts"]: (names.nodename, _text("sys/kernel/domainname").strip()),
        machine["net"]: {table: _text(f"self/net/{table}") for table in SOCKETS},
        machine["ipc"]: tuple(objects),
    }


def by_members(found: Iterable[Answers], members: Mapping[NamespaceId, list[int]]) -> Seen:
    """What /proc tells of the namespaces that somebody is in: id maps, clock offsets."""
    seen: Seen = {}
    for each in found:
        for pid in members.get(each.id, ())[:3]:
            with contextlib.suppress(OSError):  # gone, or not ours to look at
                if each.kind == "user":
                    seen[each.id] = tuple(_text(f"{pid}/{name}") for name in ("uid_map", "gid_map", "setgroups"))
                elif each.kind == "time":
                    seen[each.id] = _text(f"{pid}/timens_offsets")
                break
    return seen


def _text(path: str) -> str:
    try:
        return os.fsdecode(procfs.read(path))
    except FileNotFoundError:
        return ""


def by_visits(
    found: Mapping[NamespaceId, Answers], wanted: Iterable[Answers], members: Mapping[NamespaceId, list[int]],
    networks: Networks,
) -> Seen:  # fmt: skip
    """What processes of the spawner see inside of those that are ``wanted``."""
    seen: Seen = {}
    groups: dict[str, list[Answers]] = {}
    for each in wanted:
        if each.path:
            groups.setdefault("" if privilege.is_privileged() else _entrance(each, found), []).append(each)
    for user, group in groups.items():
        for first in range(0, len(group), _AT_ONCE):
            some = group[first : first + _AT_ONCE]
            places = tuple(Place(each.kind, each.path, each.id.ino, next(iter(members.get(each.id, ())), 0)) for each in some)
            for number, said, sock in _visit(places, user):
                seen[some[number].id] = _outside(some[number].kind, said, user) if user else said
                if sock:
                    networks[some[number].id] = sock
    return seen


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


def _entrance(wanted: Answers, found: Mapping[NamespaceId, Answers]) -> str:
    """The path of the user namespace through which an ordinary user comes to it: the highest but his own; "" for none."""
    path, user = "", found.get(wanted.owner) if wanted.owner else None
    while user and user.parent:
        path, user = user.path, found.get(user.parent)
    return path


def _visit(places: tuple[Place, ...], user: str) -> Iterator[tuple[int, Any, netlink.Socket | None]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = ensure().start(Plan((Visit(places, _FD, user),)), fds={_FD: theirs}, title="nslab-visitor", stay=True)
        try:
            for _ in places:
                message, descriptors, _, _ = socket.recv_fds(ours, 1 << 18, 2)
                if not message:
                    break
                data = message[1:]
                if message[:1] == b"m":
                    with os.fdopen(descriptors.pop(0), "rb") as memory:
                        memory.seek(0)
                        data = memory.read()
                sock = netlink.Socket(socket.socket(fileno=descriptors[0])) if descriptors else None
                yield (*pickle.loads(data), sock)
            with contextlib.suppress(SyscallError):  # it could not come so far: the way in is gone, or not ours
                child.settle()
        finally:
            child.end()
