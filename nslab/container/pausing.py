"""Holding still whatever runs inside: by the freezer of cgroup v2, or by signals."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial

from nslab import procfs, syscalls
from nslab.container import limits
from nslab.container.members import pids
from nslab.errors import DeadNamespace, NslabError, SyscallError, Unavailable
from nslab.ops import InCgroup
from nslab.spawner import Child, Descriptor, Spawner

PATIENCE = 2.0  # seconds until all has to stand still
STILL = "TtZX"  # states of a process that does not run: stopped, traced, dead
HELD = STILL + "D"  # and, once SIGSTOP is on its way: in the kernel, as in a vfork whose child was stopped before its execve


class Stopped:
    """Processes that were sent SIGSTOP, held by pidfds so that SIGCONT meets no other."""

    def __init__(self, members: Callable[[], list[int]]):
        self._held: dict[int, Descriptor] = {}
        deadline = time.monotonic() + PATIENCE
        try:
            while self._stop_new(members()) or any(_runs(pid) for pid in self._held):
                if time.monotonic() > deadline:
                    raise NslabError(
                        f"{PATIENCE:g} s were not enough: of {len(self._held)} processes one did not stop, or more came. They "
                        "go on.\n  what to do: set a limit on pids, or use cgroup v2, whose freezer holds all at once."
                    )
                select.select([], [], [], 0.0005)  # no descriptor tells that a process has stopped, but to its parent
        except BaseException:
            self.resume()
            raise

    def _stop_new(self, members: list[int]) -> bool:
        """Stop those that run and were not known; whether there were any."""
        found = False
        for pid in members:
            if pid not in self._held and (pidfd := _held(pid)):
                self._held[pid] = pidfd
                found = True
                with contextlib.suppress(SyscallError):  # it has just ended
                    syscalls.pidfd_send_signal(pidfd.fileno(), signal.SIGSTOP)
        return found

    def resume(self) -> None:
        """Let them go on; those that stood still before are none of them."""
        for pidfd in self._held.values():
            with pidfd, contextlib.suppress(SyscallError):
                syscalls.pidfd_send_signal(pidfd.fileno(), signal.SIGCONT)
        self._held.clear()


def _runs(pid: int) -> bool:
    try:
        return procfs.stat(pid).state not in HELD
    except (FileNotFoundError, ProcessLookupError):
        return False


def _held(pid: int) -> Descriptor | None:
    """A pidfd of a process that runs; None for one that has ended or does not run."""
    try:
        before = procfs.stat(pid)
        if before.state in STILL:
            return None
        pidfd = Descriptor(os.pidfd_open(pid))
        return pidfd if procfs.stat(pid).start == before.start else None  # else the number is somebody else's by now
    except (FileNotFoundError, ProcessLookupError):
        return None


class Frozen:
    """A cgroup that the kernel holds still as a whole, with all of ``members`` in it; they remain there afterwards."""

    def __init__(self, spawner: Spawner, cgroup: InCgroup, owner: int, members: Callable[[], list[int]], borrowed: bool):
        self.cgroup = cgroup
        self._order = partial(spawner.regroup, cgroup, owner, borrowed=borrowed)
        deadline = time.monotonic() + PATIENCE
        moved: set[int] = set()
        try:
            while new := set(members()) - moved:  # who was moved stands still, so that there is an end to it
                self._order(sorted(new), freeze=True)
                moved |= new
            self._wait(deadline)
        except BaseException:
            with contextlib.suppress(NslabError):
                self.resume()
            raise

    def _wait(self, deadline: float) -> None:
        """Until the kernel says that all stands still. DeadNamespace when the cgroup goes, as it does with all inside."""
        try:
            with open(f"{self.cgroup.path}/cgroup.events", "rb", buffering=0) as events:
                poller = select.poll()
                poller.register(events, select.POLLPRI)
                while b"frozen 1" not in os.pread(events.fileno(), 4096, 0):
                    if time.monotonic() > deadline:
                        raise NslabError(f"{self.cgroup.path} was not frozen within {PATIENCE:g} s; what is inside goes on.")
                    poller.poll(20)
        except OSError as error:  # ENOENT to open, ENODEV to read
            raise DeadNamespace(f"{self.cgroup.path} is gone: what was in it has ended.") from error

    def resume(self) -> None:
        """Let it go on."""
        self._order((), freeze=False)


def hold(spawner: Spawner, init: Child, entered: Sequence[Child], cgroup: InCgroup | None, borrowed: bool) -> Frozen | Stopped:
    """Hold still what is inside: by the freezer, in a new cgroup if there is none, else by signals."""

    def everybody() -> list[int]:
        supervisors = [child.pid for child in entered if child.pid and child.gone is None]
        return [init.pid, *supervisors, *pids(init, entered)]

    try:
        return Frozen(spawner, cgroup or limits.cgroup(spawner.group, {}), init.pid, everybody, borrowed)
    except (Unavailable, SyscallError):  # this user may make none
        return Stopped(lambda: pids(init, entered))
