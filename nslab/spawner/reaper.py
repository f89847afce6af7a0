"""Ending what is left over: the children of this process that nobody asked for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Container, Iterable

from nslab import procfs

_WATCHED, _LOOK_AGAIN = 32, 5  # processes at once; ms between two looks at the others
_STANDSTILL = 0.2  # seconds within which what is stopped stands still


class Reaper:
    """Knows the children of this (single-threaded) process, which sees the machine's own /proc."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._list = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)

    def children(self) -> list[int]:
        """The PIDs of all children, zombies included."""
        text, offset = b"", 0
        while part := os.pread(self._list, 1 << 16, offset):
            text += part
            offset += len(part)
        return [int(pid) for pid in text.split()]

    def end_orphans(self, known: Container[int] = ()) -> None:
        """Kill, until there are none, the children that are not ``known``, and reap them.

        A killed child's own children become ours (this process adopts orphans), so the loop reaches daemons and chains of
        forks too. What is below one that has joined a PID namespace dies with it. A process that does not die within a
        second (it sleeps in the kernel) is left to its fate.
        """
        stuck: set[int] = set()
        patient = True  # until one has been waited for in vain: those who ask for something else wait as well
        while orphans := [pid for pid in self.children() if pid not in known and pid not in stuck]:
            for pid in orphans:
                if _is_guest(pid):
                    patient = _kill_all(pid, patient)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not _buried(orphans):
                stuck.update(orphans)


def _is_guest(pid: int) -> bool:
    """Whether it has joined a PID namespace: what is below it would fall to the init there, and live on."""
    try:
        inside = procfs.numbers(pid)[1:]
    except (OSError, KeyError):  # it is gone, or an older kernel does not say
        return True
    return bool(inside) and inside[-1] != 1


def _kill_all(root: int, patient: bool) -> bool:
    """Kill a child and all below it. They stand still before: whoever goes on could begin another while the rest die.

    No descriptor is kept: there may be more of them than this process may have open. False when it has waited in vain.
    """
    found: dict[int, int] = {}  # when each began: its number may become somebody else's
    inits: set[int] = set()
    while new := [pid for pid in (root, *procfs.descendants(root)) if pid not in found]:
        for pid in new:
            found[pid] = _began(pid)
        below = {root, *procfs.descendants(root)}
        found |= {pid: -1 for pid in new if pid not in below}
        stopped = [pid for pid in new if _signal(pid, found[pid], signal.SIGSTOP)]
        if not stopped:  # gone, or not ours to end: that may go on beginning others for ever
            break
        inits |= {pid for pid in stopped if pid != root and not _is_guest(pid)}
        patient = patient and _await(_runs, stopped, _STANDSTILL)
    # Parents last: should this process be killed meanwhile, the next one finds below them who is left.
    killed = [pid for pid, began in reversed(found.items()) if _signal(pid, began, signal.SIGKILL)]
    # An init ends when all that entered its namespace have been buried, also those that are ours to bury.
    return patient and _await(_lives, [pid for pid in killed if pid not in inits], 1)


def _began(pid: int) -> int:
    try:
        return procfs.stat(pid).start
    except OSError:
        return -1


def _signal(pid: int, began: int, number: int) -> bool:
    """Send it, to whoever has this number since then."""
    with contextlib.suppress(OSError):  # it has ended, or is not ours to end
        pidfd = os.pidfd_open(pid)
        try:
            if procfs.stat(pid).start == began:
                signal.pidfd_send_signal(pidfd, number)
                return True
        finally:
            os.close(pidfd)
    return False


def _await(goes_on: Callable[[int], bool], pids: Iterable[int], seconds: float) -> bool:
    """Wait until that holds for none of them; False when it still does for one after so many seconds."""
    deadline = time.monotonic() + seconds
    while any(map(goes_on, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0002)  # polling: another's child is said to have stopped to nobody else
    return True


def _state(pid: int) -> str:
    try:
        return procfs.stat(pid).state
    except OSError:
        return ""


def _runs(pid: int) -> bool:
    """Whether it has yet to stop. A stop wakes who sleeps: whoever is seen asleep after it is frozen, and stands still too."""
    return _state(pid) == "R"


def _lives(pid: int) -> bool:
    return _state(pid) not in ("", "Z", "X")


def _buried(pids: list[int]) -> bool:
    """Reap those that have ended, waiting up to a second for the first; False when none has.

    Whichever is first, not one after the other: a PID 1 ends only when every process of its namespace has been reaped,
    and those that entered it are our children, not its own. A few are watched, for there may be no more descriptors.
    """
    deadline = time.monotonic() + 1
    poller = select.poll()
    held: list[int] = []
    try:
        for pid in pids[:_WATCHED]:
            with contextlib.suppress(OSError):
                held.append(os.pidfd_open(pid))
                poller.register(held[-1], select.POLLIN)
        while not any([_is_buried(pid) for pid in pids]):  # all of them, not only up to the first
            left = (deadline - time.monotonic()) * 1000
            if left <= 0:
                return False
            poller.poll(left if len(held) == len(pids) else min(left, _LOOK_AGAIN))
        return True
    finally:
        for fd in held:
            os.close(fd)


def _is_buried(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
