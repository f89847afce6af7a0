"""Ending what is left over: the children of this process that nobody asked for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Container

from nslab import procfs

_WATCHED, _LOOK_AGAIN = 32, 5  # processes at once; ms between two looks at the others
_STANDSTILL = 0.2  # seconds within which what is stopped stands still


class Reaper:
    """Knows the children of this (single-threaded) process; needs the machine's own /proc only when it is made."""

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
        while orphans := [pid for pid in self.children() if pid not in known and pid not in stuck]:
            for pid in orphans:
                if _is_guest(pid):
                    _kill_all(pid)
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


def _kill_all(root: int) -> None:
    """Kill a child and all below it. They stand still before: whoever goes on could begin another while the rest die."""
    held: dict[int, int] = {}
    try:
        while new := [pid for pid in (root, *procfs.descendants(root)) if pid not in held]:
            for pid in new:
                held[pid] = _opened(pid)
            below = {root, *procfs.descendants(root)}
            for pid in [pid for pid in new if pid not in below]:  # the number was somebody else's by then
                _let_go(held, pid)
            _await_standstill([pid for pid in new if _signalled(held[pid], signal.SIGSTOP)])
        _await_ends([pidfd for pidfd in held.values() if _signalled(pidfd, signal.SIGKILL)])
    finally:
        for pid in held:
            _let_go(held, pid)


def _opened(pid: int) -> int:
    """A pidfd, -1 where there is none to be had."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _let_go(held: dict[int, int], pid: int) -> None:
    if held[pid] >= 0:
        os.close(held[pid])
        held[pid] = -1


def _signalled(pidfd: int, number: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:  # it has ended, or is not ours to end
        return False
    return True


def _await_standstill(pids: list[int]) -> None:
    """Wait until none of them runs on; what sleeps in the kernel begins nothing either."""
    deadline = time.monotonic() + _STANDSTILL
    while any(map(_runs_on, pids)) and time.monotonic() < deadline:
        time.sleep(0.0002)  # polling: the stop of another's child is told to nobody


def _await_ends(pidfds: list[int]) -> None:
    """Wait until all of these have ended, but for what sleeps in the kernel."""
    deadline = time.monotonic() + 1
    poller = select.poll()
    for pidfd in pidfds:
        poller.register(pidfd, select.POLLIN)
    while pidfds and (ended := poller.poll(max(0, deadline - time.monotonic()) * 1000)):
        for pidfd, _ in ended:
            poller.unregister(pidfd)
            pidfds.remove(pidfd)


def _runs_on(pid: int) -> bool:
    try:
        return procfs.stat(pid).state in "RS"
    except OSError:
        return False


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
