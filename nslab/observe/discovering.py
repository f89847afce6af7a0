"""discover(): from the walk over /proc and the answers of the kernel, one Snapshot."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from nslab import procfs
from nslab.errors import SpawnerError, SyscallError
from nslab.model import NamespaceId
from nslab.model.snapshot import SeenProcess, Snapshot
from nslab.namespaces import privilege
from nslab.network import making
from nslab.observe import belonging, contents, hidden, looking, telling
from nslab.observe.asking import Asker, identity_of
from nslab.observe.known import Known
from nslab.observe.scoping import scoped
from nslab.ops.visits import Place
from nslab.procfs import walk
from nslab.procfs.found import Reference
from nslab.spawner import running_pids

_TRIES = 3  # who looks inside may be killed there: nslab down ends all that is in the networks of a lab
SHARED = 400  # processes from which on the walk is shared: it takes a visitor some milliseconds to be there


def discover(of: Any = None, *, contents: bool = True) -> Snapshot:
    """Every namespace of every kind that this user can see, with its owner, parent, members and what else keeps it alive.

    ``of`` a Container, a Process, a lab, or a PID (that process and all below it): only what has to do with that.
    With ``contents`` also what each isolates: names, id maps, clock offsets, mounts, interfaces, addresses, routes, listeners,
    IPC objects, the cgroup root. For what no member tells a process of the spawner goes in, and changes nothing. Without it and
    ``of``, which is quicker, those who are where the reader is have a name, but no command line.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return _discovered(of, contents)
        except SpawnerError:
            if tries == _TRIES:
                raise


def _discovered(of: Any, contents: bool) -> Snapshot:
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
    """A walk, what the kernel then says, and what visitors see. With many processes a visitor shares the walk, if there may be
    a ``spawner`` for that or there is one anyway. With ``follow`` it goes on into what it has found, until look() is called.
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
            found, places = looking.processes(walk.names(), visitor, commands=commands, first=first)
        else:
            found = walk.walk(walk.names(), commands=commands)
        self.ahead = None if places is None else {NamespaceId(self.device, place.ino): place for place in places}
        self.asker = Asker(found.said)
        self.known = Known(found, self.machine, self.device, self.asker.found)
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

    def ask(self) -> None:
        """Ask each namespace that was found for its owner and parent, look for hidden ones, and tell whose each is."""
        known = self.known
        for identity, kind in known.kind.items():
            if not self.asker.knows(kind, identity) and not self.asker.ask(kind, identity, known.ways(identity)):
                known.unasked += 1
        sockets = hidden.Sockets(known.walk.sockets)
        for reference in sockets.references(self.asker):
            known.refer(reference)
        known.silent = sockets.refused
        try:
            for identity, path in hidden.listed(self.asker):
                kind = known.found[identity].kind
                known.refer(Reference(f"{kind}:[{identity.ino}]", "kernel", 0, "", path))
        except SyscallError as error:
            known.unlisted = error.errno or 0
        held = {key: [each.pid for each in refs if each.sort == "descriptor"] for key, refs in known.references.items()}
        known.labels = belonging.labels(known.processes, known.kinds, known.machine, held, known.walk.claims)

    def look(self, where: Collection[NamespaceId] | None = None) -> None:
        """Read what the namespaces isolate that are in ``where``; all, if it is None, and ask each meanwhile."""
        visits: list[looking.Visits] = []
        if where is None:
            first: dict[NamespaceId, str] = {}
            if privilege.is_privileged():
                first = dict(self.known.kind)
                visits.append(self._visits(first))
            self.ask()
            self._processes()
            where = self.known.kind.keys() - first.keys()
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
        found, kinds = self.asker.found, {identity: answers.kind for identity, answers in self.asker.found.items()}
        for some in visits:
            self.known.contents |= contents.contents(some.read, kinds, {}, {}, {}, {})
        for part in (part for some in visits for part in some.seen(self.networks)):
            seen |= part
            located |= contents.located(part)  # while the visitor is at the next one
        if self._visitor:
            self._visitor.dismiss()
        paths = {identity: answers.path for identity, answers in found.items()}
        outside = {each: self._cgroup(each) or own for each, place in wanted.items() if place.kind == "cgroup"}
        outside[self.machine.get("cgroup", self.machine["net"])] = own
        self.known.contents |= contents.contents(seen, kinds, located, self.networks, paths, outside)
        gone = {identity for identity, said in seen.items() if isinstance(said, FileNotFoundError | ProcessLookupError)}
        missing = [each for each in wanted if each not in self.known.contents and each not in gone]
        self.known.unread = [each for each in missing if found[each].path]

    def _look_here(self) -> None:
        self.here = looking.here(self.machine, self.networks)

    def _visits(self, where: Iterable[NamespaceId]) -> looking.Visits:
        """Send visitors to those of which neither /proc nor the own process tells."""
        chosen = {each: self.known.kind[each] for each in where if each in self.known.kind}
        read = looking.by_members(chosen, self.known.members, self.known.references)
        for link, table in self.known.walk.mounts.items():
            if (identity := identity_of(link, self.device)) in chosen:
                read[identity] = (table.pid, table.text)
        own = {self.machine.get(kind) for kind in ("uts", "net", "cgroup")}
        ahead, self.ahead = self.ahead, None
        wanted = dict(ahead or {}) | {
            each: Place(kind, ways, each.ino, next(iter(self.known.members.get(each, ())), 0))
            for each, kind in chosen.items()
            if each not in read
            and each not in own
            and each not in (ahead or ())
            and kind != "pid"
            and (ways := self.known.ways(each))
        }
        if wanted.keys() <= {self.machine["ipc"]} or not privilege.is_privileged():  # else a visitor is on its way anyway
            wanted.pop(self.machine["ipc"], None)
        entrances = {}
        if not privilege.is_privileged():
            wanted = {each: place for each, place in wanted.items() if self.asker.found[each].path}
            entrances = {each: looking.entrance(self.asker.found[each], self.asker.found) for each in wanted}
        return looking.Visits(wanted, entrances, read, lambda: self.visitor, ahead)

    def _cgroup(self, identity: NamespaceId) -> str:
        """Where the member that is asked is, as seen here."""
        members = self.known.members.get(identity, ())
        with contextlib.suppress(OSError):
            return os.fsdecode(procfs.read(f"{members[0]}/cgroup")) if members else ""
        return ""

    def snapshot(self) -> Snapshot:
        """All that is known now."""
        return Snapshot(
            taken=self.taken, scope="the machine", reader=os.getpid(), machine=self.machine,
            namespaces=tuple(telling.namespaces(self.known)), processes=self._processes(),
            unseen=tuple(telling.unseen(self.known)), vanished=self.known.walk.vanished,
        )  # fmt: skip

    def _processes(self) -> tuple[SeenProcess, ...]:
        if not self._told:
            self._told = tuple(telling.processes(self.known))
        return self._told
