"""discover(): from the walk over /proc and the answers of the kernel, one Snapshot."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from errno import ENOSYS
from typing import Any

from nslab import procfs
from nslab.errors import SyscallError
from nslab.model import KINDS, NamespaceId
from nslab.model.snapshot import Content, Holder, SeenNamespace, SeenProcess, Snapshot, Unseen
from nslab.namespaces import privilege
from nslab.network import making
from nslab.observe import belonging, contents, hidden, looking
from nslab.observe.asking import Answers, Asker, identity_of, owner_uid
from nslab.observe.scoping import scoped
from nslab.ops.visits import TRIED, Place
from nslab.procfs import walk
from nslab.procfs.found import Reference
from nslab.spawner import running_pids

_INITIAL_PID = 0xEFFFFFFC  # the inode of the PID namespace that the machine was started with
_CAP_SYS_PTRACE = 19  # who has it is shown all processes
SHARED = 400  # processes from which on the walk is shared: it takes a visitor some milliseconds to be there


def discover(of: Any = None, *, contents: bool = True) -> Snapshot:
    """Every namespace of every kind that this user can see, with its owner, parent, members and what else keeps it alive.

    ``of`` a Container, a Process, a lab, or a PID (that process and all below it): only what has to do with that.
    With ``contents`` also what each isolates: names, id maps, clock offsets, mounts, interfaces, addresses, routes, listeners,
    IPC objects, the cgroup root. For what no member tells a process of the spawner goes in, and changes nothing. Without it and
    ``of``, which is quicker, those who are where the reader is have a name, but no command line.
    """
    follow = contents and of is None and privilege.is_privileged()  # else who was asked tells the way in
    with (
        _uncollected(),
        contextlib.closing(Discovery(commands=contents or of is not None, spawner=contents, follow=follow)) as found,
    ):
        if of is None:
            found.look() if contents else found.ask()
            return found.snapshot()
        found.ask()
        part = scoped(found.snapshot(), of)
        if contents:
            found.look(part.by_id)
            part = scoped(found.snapshot(), of)
        return replace(part, processes=tuple(map(_placed, part.processes)))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: it would look again and again at what is made here, of which nothing is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _placed(process: SeenProcess) -> SeenProcess:
    """With its cgroup: the walk, which has no time to lose, reads that only of those in other namespaces than the reader."""
    if process.cgroup or process.kernel:
        return process
    try:
        places = procfs.cgroups(process.pid)
    except OSError:  # it has ended
        return process
    return replace(process, cgroup=places.get((), next(iter(places.values()), "")))


class Discovery:
    """What is known while a Snapshot is put together. With many processes a visitor shares the walk, if there may be a
    ``spawner`` for that or there is one anyway. With ``follow`` it goes on into what it has found, until look() is called.
    """

    def __init__(self, *, commands: bool = True, spawner: bool = False, follow: bool = False):
        self.taken = time.time()
        self.device = os.stat("/proc/self/ns/user").st_dev
        self.machine = {kind: NamespaceId(self.device, os.stat(f"/proc/self/ns/{kind}").st_ino) for kind in procfs.kinds()}
        self.networks = looking.Networks()
        self.here: looking.Seen = {}
        self._visitor: looking.Visitor | None = None
        places: list[Place] | None = None
        if walk.count() >= SHARED and len(os.sched_getaffinity(0)) > 1 and (spawner or running_pids()):
            visitor = self.visitor  # which gets there while the kernel lists the processes
            first = self._look_here if follow else None
            self.walk, places = looking.processes(walk.names(), visitor, commands=commands, first=first)
        else:
            self.walk = walk.walk(walk.names(), commands=commands)
        self.processes = {each.pid: each for each in self.walk.processes}
        self.ahead = None if places is None else {NamespaceId(self.device, place.ino): place for place in places}
        self.kind: dict[NamespaceId, str] = {}
        self.members: dict[NamespaceId, list[int]] = {}
        self.leaders: dict[NamespaceId, tuple[int, int]] = {}  # when the oldest member began, and its PID
        self.kinds: dict[int, Mapping[str, NamespaceId]] = {}
        self.references: dict[NamespaceId, list[Reference]] = {}
        self._sort()
        self.asker = Asker(self.walk.said)
        self.unasked = 0
        self.silent = 0  # sockets that could not be asked for their network
        self.unlisted = 0  # the errno of why the kernel has listed none
        self.labels: dict[NamespaceId, str] = {}
        self.contents: dict[NamespaceId, Content] = {}
        self.unread: list[NamespaceId] = []
        self._told: tuple[SeenProcess, ...] = ()

    @property
    def visitor(self) -> looking.Visitor:
        """The process that looks for us, made at the first need."""
        if self._visitor is None:
            self._visitor = looking.Visitor()
        return self._visitor

    def close(self) -> None:
        self.asker.close()
        self.networks.close()
        if self._visitor:
            self._visitor.close()

    def _sort(self) -> None:
        """The processes by the namespaces that they are in, and what else refers to each of those."""
        for links, pids in self.walk.groups().items():
            kinds = {}
            oldest = min((self.processes[pid].start, pid) for pid in pids)
            for kind, link in zip(KINDS, links, strict=True):
                if link is not None:
                    kinds[kind] = identity = identity_of(link, self.device)
                    self.kind[identity] = kind
                    self.members.setdefault(identity, []).extend(pids)
                    self.leaders[identity] = min(self.leaders.get(identity, oldest), oldest)
            self.kinds |= dict.fromkeys(pids, kinds)
        for reference in self.walk.references:
            self._refer(reference)

    def _ways(self, identity: NamespaceId) -> tuple[str, ...]:
        """Paths by which it can be opened."""
        paths = [f"/proc/{pid}/ns/{self.kind[identity]}" for pid in self.members.get(identity, ())[:TRIED]]
        return (*paths, *(each.path for each in self.references.get(identity, ())[:TRIED]))

    def ask(self) -> None:
        """Ask each namespace that was found for its owner and parent, look for hidden ones, and tell whose each is."""
        for identity, kind in self.kind.items():
            if not self.asker.knows(kind, identity) and not self.asker.ask(kind, identity, self._ways(identity)):
                self.unasked += 1
        sockets = hidden.Sockets(self.walk.sockets)
        for reference in sockets.references(self.asker):
            self._refer(reference)
        self.silent = sockets.refused
        try:
            for identity, path in hidden.listed(self.asker):
                kind = self.asker.found[identity].kind
                self._refer(Reference(f"{kind}:[{identity.ino}]", "kernel", 0, "", path))
        except SyscallError as error:
            self.unlisted = error.errno or 0
        held = {key: [each.pid for each in refs if each.sort == "descriptor"] for key, refs in self.references.items()}
        self.labels = belonging.labels(self.processes, self.kinds, self.machine, held, self.walk.claims)

    def _refer(self, reference: Reference) -> None:
        identity = identity_of(reference.link, self.device)
        self.kind[identity] = reference.link.partition(":")[0]
        self.references.setdefault(identity, []).append(reference)

    def look(self, where: Collection[NamespaceId] | None = None) -> None:
        """Read what the namespaces isolate that are in ``where``; all, if it is None, and ask each meanwhile."""
        visits: list[looking.Visits] = []
        if where is None:
            first: dict[NamespaceId, str] = {}
            if privilege.is_privileged():
                first = dict(self.kind)
                visits.append(self._visits(first))
            self.ask()
            self._seen_processes()
            where = self.kind.keys() - first.keys()
        visits.append(self._visits(where))
        wanted = {each: place for some in visits for each, place in some.wanted.items()}
        making.make_room(len(wanted))
        own = procfs.read("self/cgroup").decode(errors="surrogateescape")
        seen: looking.Seen = {self.machine["cgroup"]: own} if "cgroup" in self.machine else {}
        if not self.here:
            self._look_here()
        seen |= self.here
        located = contents.located(seen)
        if self.machine["ipc"] not in wanted:
            seen[self.machine["ipc"]] = looking.objects_here()
        found, kinds = self.asker.found, self.kind_of()
        for some in visits:
            self.contents |= contents.contents(some.read, kinds, {}, {}, {}, {})
        for part in (part for some in visits for part in some.seen(self.networks)):
            seen |= part
            located |= contents.located(part)  # while the visitor is at the next one
        if self._visitor:
            self._visitor.dismiss()
        paths = {identity: answers.path for identity, answers in found.items()}
        outside = {each: self._cgroup(each) or own for each, place in wanted.items() if place.kind == "cgroup"}
        outside[self.machine.get("cgroup", self.machine["net"])] = own
        self.contents |= contents.contents(seen, kinds, located, self.networks, paths, outside)
        gone = {identity for identity, said in seen.items() if isinstance(said, FileNotFoundError | ProcessLookupError)}
        missing = [each for each in wanted if each not in self.contents and each not in gone]
        self.unread = [each for each in missing if found[each].path]

    def _look_here(self) -> None:
        self.here = looking.here(self.machine, self.networks)

    def _visits(self, where: Iterable[NamespaceId]) -> looking.Visits:
        """Send visitors to those of which neither /proc nor the own process tells."""
        chosen = {each: self.kind[each] for each in where if each in self.kind}
        read = looking.by_members(chosen, self.members, self.references)
        for link, table in self.walk.mounts.items():
            if (identity := identity_of(link, self.device)) in chosen:
                read[identity] = (table.pid, table.text)
        own = {self.machine.get(kind) for kind in ("uts", "net", "cgroup")}
        ahead, self.ahead = self.ahead, None
        wanted = dict(ahead or {}) | {
            each: Place(kind, ways, each.ino, next(iter(self.members.get(each, ())), 0))
            for each, kind in chosen.items()
            if each not in read
            and each not in own
            and each not in (ahead or ())
            and kind != "pid"
            and (ways := self._ways(each))
        }
        if wanted.keys() <= {self.machine["ipc"]} or not privilege.is_privileged():  # else a visitor is on its way anyway
            wanted.pop(self.machine["ipc"], None)
        entrances = {}
        if not privilege.is_privileged():
            wanted = {each: place for each, place in wanted.items() if self.asker.found[each].path}
            entrances = {each: looking.entrance(self.asker.found[each], self.asker.found) for each in wanted}
        return looking.Visits(wanted, entrances, read, lambda: self.visitor, ahead)

    def kind_of(self) -> dict[NamespaceId, str]:
        return {identity: answers.kind for identity, answers in self.asker.found.items()}

    def _cgroup(self, identity: NamespaceId) -> str:
        """Where the member that is asked is, as seen here."""
        with contextlib.suppress(OSError):
            return os.fsdecode(procfs.read(f"{self.members[identity][0]}/cgroup")) if identity in self.members else ""
        return ""

    # -- the snapshot

    def snapshot(self) -> Snapshot:
        return Snapshot(
            taken=self.taken, scope="the machine", reader=os.getpid(), machine=self.machine,
            namespaces=tuple(self._namespaces()), processes=self._seen_processes(), unseen=tuple(self._unseen()),
            vanished=self.walk.vanished,
        )  # fmt: skip

    def _namespaces(self) -> Iterator[SeenNamespace]:
        order = list(KINDS)
        below = self._below()
        for answers in sorted(self.asker.found.values(), key=lambda each: (order.index(each.kind), each.id)):
            members = tuple(sorted(self.members.get(answers.id, ())))
            since, leader = self.leaders.get(answers.id, (0, 0))
            yield SeenNamespace(
                kind=answers.kind, id=answers.id, number=answers.number, identity=_identity(answers, since if leader else None),
                owner=answers.owner, owner_uid=owner_uid(answers, self.asker.found), parent=answers.parent, members=members,
                leader=leader, holders=tuple(self._holders(answers.id, () if members else below.get(answers.id, ()))),
                belongs=self.labels.get(answers.id, ""), content=self.contents.get(answers.id),
            )  # fmt: skip

    def _below(self) -> dict[NamespaceId, list[Holder]]:
        """What keeps an owner or a parent alive: each namespace that it owns or is the parent of."""
        found: dict[NamespaceId, list[Holder]] = {}
        for each in self.asker.found.values():
            name = f"{each.kind}:[{each.id.ino}]"
            if each.parent:
                found.setdefault(each.parent, []).append(Holder("parent", 0, name))
            if each.owner and each.owner != each.parent:
                found.setdefault(each.owner, []).append(Holder("owner", 0, name))
        return found

    def _holders(self, identity: NamespaceId, below: tuple[Holder, ...] | list[Holder]) -> Iterator[Holder]:
        for each in self.references.get(identity, ()):
            yield Holder(each.sort, each.pid, each.detail)
        yield from below

    def _seen_processes(self) -> tuple[SeenProcess, ...]:
        if not self._told:
            self._told = tuple(self._processes())
        return self._told

    def _processes(self) -> Iterator[SeenProcess]:
        whose = {key: belonging.label_of(kinds, self.labels) for key, kinds in {id(k): k for k in self.kinds.values()}.items()}
        for each in self.walk.processes:
            kinds = self.kinds[each.pid]
            yield SeenProcess(
                each.pid, each.ppid, each.name, each.state, each.start, each.uid, each.command, each.exe, each.exe_deleted,
                each.kernel, kinds, each.pids, each.cgroup, whose[id(kinds)],
            )  # fmt: skip

    def _unseen(self) -> Iterator[Unseen]:
        if self.walk.refused:
            why = f"{_who()} may not see their namespaces, threads and descriptors"
            yield Unseen(f"of {len(self.processes)} processes", self.walk.refused, why)
        if self.walk.closed:
            yield Unseen("processes", self.walk.closed, f"{_who()} may not see which descriptors they have")
        if self.unasked:
            yield Unseen("namespaces", self.unasked, f"{_who()} may not open them, to ask for owner and parent")
        for kind, count in Counter(self.asker.found[each].kind for each in self.unread).items():
            yield Unseen(f"{kind} namespaces", count, f"what they isolate is not known, since {_who()} may not enter them")
        if self.silent:
            why = f"{_who()} may not ask which network they are in, and nothing else may lead to that"
            yield Unseen("sockets", self.silent, why)
        if self.unlisted == ENOSYS:
            what = "namespaces to which no process, mount or socket leads"
            yield Unseen(what, 0, "this kernel does not list them (listns, Linux 6.19)")
        hiding = [each for each in procfs.mountinfo("self") if each.target == "/proc"][-1:]  # the uppermost
        for option in hiding[0].super_options if hiding and not procfs.capabilities() >> _CAP_SYS_PTRACE & 1 else ():
            if option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off"):
                yield Unseen("processes", 0, f"/proc is mounted with {option}, and does not show those of others")
        if self.machine["pid"].ino != _INITIAL_PID:
            yield Unseen("processes", 0, "the PID namespace of the reader is not the machine's, and shows only what is in it")


def _identity(answers: Answers, since: int | None) -> str:
    """Numbers are never used again. Where the kernel has none, a namespace is as old as its oldest member, at least."""
    if answers.number:
        return f"{answers.kind} {answers.number}"
    return f"{answers.kind}:[{answers.id.ino}]" + ("" if since is None else f" since {since}")


def _who() -> str:
    return f"uid {os.geteuid()}"
