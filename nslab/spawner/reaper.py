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
        forks too. In a PID namespace that was joined they would fall to its init: so what is below them now is killed first.
        A process that does not die within a second (it sleeps in the kernel) is left to its fate.
        """
        stuck: set[int] = set()
        while orphans := [pid for pid in self.children() if pid not in known and pid not in stuck]:
            for pid in orphans:
                _kill_below(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not _buried(orphans):
                stuck.update(orphans)


def _kill_below(root: int) -> None:
    """Kill the descendants of a child, which must not get away by its death."""
    for pid in procfs.descendants(root):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            fd = os.pidfd_open(pid)
            try:
                if pid in procfs.descendants(root):  # and not somebody else's number by now
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


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
