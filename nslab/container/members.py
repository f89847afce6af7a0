"""Who is inside a container, and what that uses: read from the machine's /proc, so that nothing has to run inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

from nslab import procfs
from nslab.model import tables
from nslab.model.words import readable
from nslab.spawner import Child

STATES = {
    "R": "running", "S": "sleeping", "D": "waiting in the kernel", "T": "stopped", "t": "traced", "Z": "zombie", "X": "dead",
    "I": "idle",
}  # fmt: skip
GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Member:
    """A process inside: its PIDs outside and inside (None where it has none there), its parent's PID outside, its real uid
    outside, state in a word, and command line, where undecodable bytes are surrogates."""

    pid: int
    pid_inside: int | None
    parent: int
    user: int
    state: str
    name: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return readable(" ".join(self.command) or f"[{self.name}]")


class Members(Sequence[Member]):
    """The processes inside at one moment, parents first; shown as a table."""

    def __init__(self, members: Sequence[Member]):
        self._members = tuple(members)

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | Sequence[Member]:
        return self._members[index]

    def _rows(self) -> Iterator[tuple[str, ...]]:
        yield "PID", "inside", "user", "state", "command"
        for each in self._members:
            inside = "-" if each.pid_inside is None else str(each.pid_inside)
            yield str(each.pid), inside, str(each.user), each.state, str(each)

    def __repr__(self) -> str:
        return tables.text(list(self._rows()))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return tables.table(list(self._rows()))


@dataclass(frozen=True)
class Stats:
    """What a container uses now. Bytes, but for ``cpu``: seconds, with those of the processes that have ended and were waited
    for. ``pss`` shares out what several processes have in common, which ``rss`` counts for each. ``read_bytes`` and
    ``write_bytes`` went to and came from disks. ``unseen`` processes could not be looked into and are not in the sums.
    ``cgroup`` has what the kernel counts for the container as a whole, by the names of its files, where it has a cgroup.
    """

    processes: int
    threads: int
    cpu: float
    rss: int
    pss: int
    descriptors: int
    read_bytes: int
    write_bytes: int
    unseen: int
    cgroup: Mapping[str, float]

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for field in fields(self):
            if field.name != "cgroup":
                yield field.name.replace("_", " "), _amount(field.name, getattr(self, field.name))
        for name, value in self.cgroup.items():
            yield name, f"{value:g}" if value < 1e6 else f"{value:.0f}"

    def __repr__(self) -> str:
        return tables.text(list(self._rows()))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": tables.html(list(self._rows()), head=False)}


def pids(init: Child, entered: Sequence[Child]) -> list[int]:
    """The PIDs of all inside but nslab's own init and supervisors: what descends from those. Zombies are among them."""
    found: dict[int, None] = {}
    for child in (init, *entered):
        pidfd = child.pidfd
        if pidfd and not pidfd.readable():
            found |= dict.fromkeys(procfs.descendants(child.pid))
    return list(found)


def look(init: Child, entered: Sequence[Child]) -> Members:
    """The processes inside, nslab's init first."""
    found = []
    level = len(procfs.status(init.pid)["NSpid"].split())  # how deep its PID namespace is, seen from here
    for pid in (init.pid, *pids(init, entered)):
        try:
            found.append(_member(pid, level))
        except GONE:
            continue
    return Members(found)


def _member(pid: int, level: int) -> Member:
    status, stat = procfs.status(pid), procfs.stat(pid)
    numbers = status["NSpid"].split()
    words = procfs.read(f"{pid}/cmdline").rstrip(b"\0").split(b"\0")
    command = tuple(word.decode(errors="surrogateescape") for word in words) if any(words) else ()
    inside = int(numbers[level - 1]) if len(numbers) >= level else None
    state = STATES.get(stat.state, stat.state)
    return Member(pid, inside, stat.ppid, int(status["Uid"].split()[0]), state, stat.name, command)


def measure(init: Child, entered: Sequence[Child], cgroup: Mapping[str, float]) -> Stats:
    """What the processes inside use, nslab's init among them."""
    import psutil

    sums: dict[str, float] = dict.fromkeys(("threads", "cpu", "rss", "pss", "descriptors", "read_bytes", "write_bytes"), 0)
    seen = unseen = 0
    for pid in (init.pid, *pids(init, entered)):
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                memory, disk = process.memory_full_info(), process.io_counters()
                parts = {
                    "threads": process.num_threads(), "cpu": sum(process.cpu_times()[:4]), "rss": memory.rss, "pss": memory.pss,
                    "descriptors": process.num_fds(), "read_bytes": disk.read_bytes, "write_bytes": disk.write_bytes,
                }  # fmt: skip
        except psutil.AccessDenied:
            unseen += 1
        except psutil.NoSuchProcess:
            continue
        else:
            seen += 1
            for name, part in parts.items():
                sums[name] += part
    whole = {name: int(value) for name, value in sums.items() if name != "cpu"}
    return Stats(processes=seen + unseen, cpu=sums["cpu"], unseen=unseen, cgroup=cgroup, **whole)


def _amount(name: str, value: float) -> str:
    if name == "cpu":
        return f"{value:.2f} s"
    if name in ("rss", "pss", "read_bytes", "write_bytes"):
        return f"{value / 1024:,.0f} kB"
    return str(value)
