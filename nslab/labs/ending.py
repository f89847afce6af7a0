"""What runs in a lab when that ends, whoever started it there."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Collection

from nslab import procfs
from nslab.model import NamespaceId
from nslab.spawner import Descriptor

PATIENCE = 5.0  # seconds; a process may be in a system call that nothing interrupts


def end_members(networks: Collection[NamespaceId]) -> None:
    """SIGKILL for every process in one of these network namespaces, new ones included, until there is none."""
    deadline = time.monotonic() + PATIENCE
    while (pids := [pid for pid in procfs.pids() if _is_in(pid, networks)]) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError), Descriptor(os.pidfd_open(pid)) as pidfd:
                if _is_in(pid, networks):  # the number was nobody else's in between
                    signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
                    pidfd.readable(1)


def _is_in(pid: int, networks: Collection[NamespaceId]) -> bool:
    try:
        return procfs.namespace(pid, "net") in networks
    except OSError:  # it has ended, or is not ours to look at
        return False


class Follower:
    """Ends what is in these networks when a process has ended, by a thread that waits for that. Until close()."""

    def __init__(self, pid: int, networks: Collection[NamespaceId]):
        out, into = os.pipe()
        stop, self._open = Descriptor(out), Descriptor(into)
        holder = Descriptor(os.pidfd_open(pid))
        self._thread = threading.Thread(target=_follow, args=(holder, stop, networks), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._open.close()
        self._thread.join()


def _follow(holder: Descriptor, stop: Descriptor, networks: Collection[NamespaceId]) -> None:
    with holder, stop:
        poller = select.poll()  # which takes descriptors of any number
        poller.register(holder, select.POLLIN)
        poller.register(stop, 0)
        if [fd for fd, _ in poller.poll()] == [holder.fileno()]:
            end_members(networks)
