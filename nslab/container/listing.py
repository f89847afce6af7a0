"""The containers of every nslab on this machine, found in /proc: nothing is written down that could be left behind.

A container is an nslab-init (its command line has its name) below an nslab-spawner below an nslab-watchdog, whose parent is
the notebook or program that made it. What calls itself so inside a container is not believed: that is its own business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from nslab import procfs
from nslab.container import limits, plans
from nslab.errors import DeadNamespace, SpecError
from nslab.model import KINDS, ProcessStat
from nslab.model.words import readable
from nslab.namespaces import Result, running
from nslab.ops import Execute, IdMaps, InCgroup, Op, Plan, spec
from nslab.spawner import Child, Descriptor, ensure
from nslab.trace import emit_script

SPAWNERS = ("nslab-spawner", "nslab-borrowed")
HOLDER = "nslab-lab"  # the name of a process that makes containers, for the nodes of its lab


class Descendant(Protocol):
    """What has to be known of a process to tell whose it is."""

    @property
    def pid(self) -> int: ...
    @property
    def ppid(self) -> int: ...
    @property
    def name(self) -> str: ...


P = TypeVar("P", bound=Descendant)


@dataclass(frozen=True)
class Listed:
    """A container: its name ("" for none), the PID of its init, the kinds that are its own, whether a seccomp filter of its own
    binds it, when it was started (as of time.time()), the PID of the process that made it, and the uid of that one's user."""

    name: str
    pid: int
    kinds: tuple[str, ...]
    hardened: bool
    started: float
    owner: int
    uid: int


def listed(root: str = "/proc") -> list[Listed]:
    """The containers that are alive, the oldest first: those of this user, or for root those of everybody."""
    processes: dict[int, ProcessStat] = {}
    for pid in procfs.pids(root):
        try:
            processes[pid] = procfs.stat(pid, root)
        except OSError:  # it has ended
            continue
    found = []
    for process, owner in owned(processes):
        try:
            words = procfs.read(f"{process.pid}/cmdline", root).split(b"\0")
            if words[0] == b"nslab-init":
                found.append(_look(process, owner, os.fsdecode(words[1]) if len(words) > 1 else "", root))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return sorted(found, key=lambda each: (each.started, each.pid))


def owned(processes: Mapping[int, P]) -> Iterator[tuple[P, int]]:
    """Each of these that is a child of a genuine spawner, with the PID of the process that had it made."""
    mine = {process.pid for process in _above(os.getpid(), processes)}
    for process in processes.values():
        if (parent := processes.get(process.ppid)) and parent.name in SPAWNERS and (owner := _owner(process, processes, mine)):
            yield process, owner


def _above(pid: int, processes: Mapping[int, P]) -> list[P]:
    """The ancestors of a process, its parent first."""
    above: list[P] = []
    while pid in processes and (parent := processes.get(processes[pid].ppid)) and parent not in above:
        above.append(parent)
        pid = parent.pid
    return above


def _owner(init: P, processes: Mapping[int, P], mine: set[int]) -> int:
    """The PID of the process that made a container, 0 when what looks like one is not. ``mine`` are one's own ancestors."""
    above = _above(init.pid, processes)
    spawners = 0
    while spawners < len(above) and above[spawners].name in SPAWNERS:
        spawners += 1
    rest = above[spawners:]
    genuine = spawners in (1, 2) and len(rest) >= 2 and rest[0].name == "nslab-watchdog"
    makers = rest[2:] if len(rest) > 1 and rest[1].name == HOLDER else rest[1:]
    inside = any(process.name.startswith("nslab-") and process.pid not in mine for process in makers)
    return rest[1].pid if genuine and not inside else 0


def _look(init: ProcessStat, owner: int, name: str, root: str) -> Listed:
    filters, above = (int(procfs.status(pid, root).get("Seccomp_filters", 0)) for pid in (init.pid, init.ppid))
    own, theirs = procfs.namespaces(init.pid, root), procfs.namespaces(init.ppid, root)
    uptime = float(procfs.read("uptime", root).split()[0])
    return Listed(
        name=name,
        pid=init.pid,
        kinds=tuple(kind for kind in KINDS if own.get(kind) != theirs.get(kind)),
        hardened=filters > above,
        started=time.time() - uptime + init.start / os.sysconf("SC_CLK_TCK"),
        owner=owner,
        uid=int(procfs.status(owner, root)["Uid"].split()[1]),
    )


def find(name: str) -> Listed:
    """The container of this name (or with this PID); SpecError when there is none or more than one."""
    everything = listed()
    matching = [each for each in everything if name in (each.name, str(each.pid))]
    if not matching:
        names = ", ".join(sorted({readable(each.name) or str(each.pid) for each in everything})) or "none"
        raise SpecError("name", f"there is no container {name!r}; there are: {names}")
    if len(matching) > 1:
        pids = ", ".join(map(str, sorted(each.pid for each in matching)))
        raise SpecError("name", f"{len(matching)} containers are called {name!r}; say which by its PID: {pids}")
    return matching[0]


def enter(
    container: Listed, command: spec.Command, *, env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None,
    user: str | int | None = None, timeout: float | None = None, tty: bool = False, inside: tuple[Op, ...] = (),
) -> Result:  # fmt: skip
    """Run a command in a container that another process made, attached to this one. DeadNamespace when that has ended.

    ``inside`` is what is done in there before it starts.

    It is outside the cgroup of that container, and so of its limits, since that cgroup belongs to the other process.
    """
    try:
        pidfd = Descriptor(os.pidfd_open(container.pid))
        if (container.pid, container.name, container.owner) not in [(each.pid, each.name, each.owner) for each in listed()]:
            raise ProcessLookupError
        here, there = procfs.namespaces(), procfs.namespaces(container.pid)
        cgroup = limits.of_process(container.pid)
    except (ProcessLookupError, FileNotFoundError):
        raise DeadNamespace(f"the container {container.name!r} (PID {container.pid}) has ended.") from None
    if cgroup and limits.is_frozen(cgroup):
        raise SpecError("name", f"the container {container.name!r} is paused: whoever enters would stand still too")
    with pidfd:
        spawner = ensure()
        kinds = tuple(kind for kind in KINDS if here.get(kind) != there.get(kind))
        folder = (cwd or "/") if "mnt" in kinds else cwd
        work = plans.work(command, env=env, cwd=folder, user=user, tty=tty, joined=kinds)
        plan = _plan(container, kinds, work, cgroup, inside)

        def start(fds: Mapping[str, Any]) -> Child:
            emit_script(plan)
            return spawner.start(plan, work=plan.command, fds={**fds, "init": pidfd}, lone=True)

        return running.complete(start, work.argv, lone=True, timeout=timeout, tty=tty, attach=True)


def _plan(
    container: Listed, kinds: tuple[str, ...], work: Execute, cgroup: InCgroup | None, inside: tuple[Op, ...]
) -> Plan:  # fmt: skip
    """What enters a hardened container is hardened, whoever made that."""
    maps = None
    if "user" in kinds:
        uid, gid = (procfs.id_map(container.pid, which) for which in ("uid", "gid"))
        maps = IdMaps(uid, gid, procfs.setgroups(container.pid))
    ops = (*plans.entering(kinds, container.pid, maps, cgroup), *inside)
    if container.hardened:
        from nslab.container import hardening

        ops += hardening.confinement(work.before)
        work = replace(work, before=(), launched=True)
    return Plan(ops, work)
