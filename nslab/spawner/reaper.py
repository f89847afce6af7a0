"""Ending what is left over: the children of this process that nobody asked for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Container


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
        forks too. A process that does not die within a second (it sleeps in the kernel) is left to its fate.
        """
        stuck: set[int] = set()
        while orphans := [pid for pid in self.children() if pid not in known and pid not in stuck]:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for pid in orphans:
                if not _reaped(pid):
                    stuck.add(pid)


def _reaped(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
        try:
            if not select.select([pidfd], [], [], 1)[0]:
                return False
        finally:
            os.close(pidfd)
        os.waitpid(pid, os.WNOHANG)
    except (ProcessLookupError, ChildProcessError):
        pass
    return True
