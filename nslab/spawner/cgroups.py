"""The cgroups of the spawner: made at need, removed with the process that they were made for, at the latest by the watchdog.

Before a group is made its path is written to the journal, a file in memory that the watchdog reads when the spawner is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Any

from nslab import syscalls
from nslab.errors import SyscallError
from nslab.ops import InCgroup
from nslab.syscalls import guard

PATIENCE = 1.0  # seconds that killed processes may take to leave a cgroup


class Groups:
    """The cgroups that one server made. ``journal`` is the descriptor of the journal."""

    def __init__(self, journal: int):
        self.journal = journal
        self.owned: dict[int, InCgroup] = {}  # the PID of the process whose end is that of the cgroup
        self._noted: set[str] = set()
        self._enabled: dict[str, set[str]] = {}  # what is enabled in a base because of us

    def has(self, op: InCgroup) -> bool:
        return any(op.path == other.path for other in self.owned.values())

    def make(self, op: InCgroup) -> None:
        """Make the leaf, and what is missing above it, level by level."""
        for attempt in range(10):
            try:
                self._make(op)
                return
            except SyscallError as error:
                if error.name != "ENOENT" or attempt == 9:  # another server has just removed the group that both use
                    self.remove(op)
                    raise

    def _make(self, op: InCgroup) -> None:
        missing = set(op.controllers) - set(_words(f"{op.base}/cgroup.subtree_control"))
        self._note(op, missing)
        _mkdir(op.parent)
        for path, wanted in ((op.base, missing), (op.parent, set(op.controllers))):
            if wanted:
                syscalls.write_file(f"{path}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(wanted)))
        _mkdir(op.path)
        for name, value in op.limits:
            syscalls.write_file(f"{op.path}/{name}", value)

    def _note(self, op: InCgroup, missing: set[str]) -> None:
        self._enabled.setdefault(op.base, set()).update(missing)
        line = "\0".join([op.base, op.group, *sorted(self._enabled[op.base])]) + "\0\n"
        if line not in self._noted:
            os.write(self.journal, os.fsencode(line))
            self._noted.add(line)

    def remove(self, op: InCgroup) -> None:
        """Remove the leaf, and the group when it was the last one, with whatever is still inside."""
        clear(op.path)
        if _rmdir(op.parent):
            disable(op.base, self._enabled.pop(op.base, set()))

    def left(self, pid: int) -> list[tuple[Any, ...]]:
        """A process has ended: remove what was made for it. The calls that were made."""
        op = self.owned.pop(pid, None)
        if op is None:
            return []
        calls = guard.collect()
        self.remove(op)
        return calls

    def end(self) -> None:
        """Remove them all."""
        while self.owned:
            self.remove(self.owned.popitem()[1])


def sweep(journal: int) -> None:
    """Remove every cgroup that the journal names: for the watchdog, once nobody makes any more."""
    lines = dict.fromkeys(os.pread(journal, 1 << 26, 0).split(b"\0\n")[:-1])
    for line in lines:
        base, group, *enabled = os.fsdecode(line).split("\0")
        clear(f"{base}/{group}")
        disable(base, set(enabled))


def clear(path: str) -> None:
    """End whatever is in a cgroup or below it, and remove it."""
    if not os.path.isdir(path):
        return
    with contextlib.suppress(SyscallError):  # since Linux 5.14; before, what is in it has been killed one by one
        syscalls.write_file(f"{path}/cgroup.kill", "1")
    _wait_until_empty(path)
    for folder, _, _ in os.walk(path, topdown=False):
        _rmdir(folder)


def disable(base: str, controllers: set[str]) -> None:
    """Disable what was enabled because of us; the kernel refuses (EBUSY) what somebody else has built on."""
    for name in sorted(controllers):
        with contextlib.suppress(SyscallError):
            syscalls.write_file(f"{base}/cgroup.subtree_control", f"-{name}")


def _wait_until_empty(path: str) -> None:
    """Until no process is in the cgroup, nor below it: the kernel says so in cgroup.events."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError), open(f"{path}/cgroup.events", "rb", buffering=0) as events:
        poller = select.poll()
        poller.register(events, select.POLLPRI)
        while b"populated 1" in os.pread(events.fileno(), 4096, 0) and time.monotonic() < deadline:
            poller.poll(20)


def _mkdir(path: str) -> None:
    try:
        syscalls.mkdir(path)
    except SyscallError as error:
        if error.name != "EEXIST":
            raise


def _rmdir(path: str) -> bool:
    try:
        syscalls.rmdir(path)
    except SyscallError:  # not empty: another leaf, or a process that does not die
        return False
    return True


def _words(path: str) -> list[str]:
    with open(path, "rb") as file:
        return os.fsdecode(file.read()).split()
