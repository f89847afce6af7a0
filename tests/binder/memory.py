"""A limit of memory, as a container has: a cgroup of its own, of version 1 or 2, that goes with the block."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

FILES = {  # by filesystem: the limit, the most there was, and where the kills are counted
    "cgroup": ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    "cgroup2": ("memory.max", "memory.peak", "memory.events"),
}
JOIN = 'echo $$ >"$0"; exec "$@"'


class Memory:
    """Of the processes that start with the words ``joining`` before theirs. What is in /dev/shm counts, and file caches do."""

    def __init__(self, fstype: str, folder: Path):
        self.folder = folder
        self._limit, self._peak, self._kills = (folder / name for name in FILES[fstype])

    @property
    def joining(self) -> Sequence[str]:
        return ["sh", "-ec", JOIN, str(self.folder / "cgroup.procs")]

    @property
    def peak(self) -> int:
        """The most bytes at once. At the limit caches are dropped, and if that is not enough one process is killed."""
        return int(self._peak.read_text())

    @property
    def kills(self) -> int:
        """How many processes were killed because there was no more."""
        return next(int(line.split()[1]) for line in self._kills.read_text().splitlines() if line.startswith("oom_kill "))


@contextlib.contextmanager
def limited(most: int) -> Iterator[Memory]:
    """So many bytes. OSError where the machine has no memory controller that can be used."""
    fstype, root = _root()
    folder = root / f"nslab-binder-{os.getpid()}"
    folder.mkdir()
    try:
        memory = Memory(fstype, folder)
        memory._limit.write_text(str(most))
        yield memory
    finally:
        deadline = time.monotonic() + 10
        while True:
            try:
                folder.rmdir()
                break
            except OSError:  # the last of them is still ending
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # polling: nothing tells that a cgroup is empty in v1


def _root() -> tuple[str, Path]:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, fstype, options = line.split()[:4]
        if fstype == "cgroup" and "memory" in options.split(","):
            return fstype, Path(place)
        if fstype == "cgroup2" and "memory" in Path(place, "cgroup.subtree_control").read_text().split():
            return fstype, Path(place)
    raise OSError("this machine has no memory controller of cgroups(7) that can be used")
