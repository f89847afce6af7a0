"""The end of a container: what is left of it in its IPC namespace goes first, then its init, and with that all else."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nslab import procfs
from nslab.errors import NslabError
from nslab.namespaces import handle, steered
from nslab.ops import Plan, RemoveObjects, Setns
from nslab.spawner import Child, Descriptor, Spawner
from nslab.spawner.messages import LITTERED

if TYPE_CHECKING:
    from nslab.container.container import Container

everyone: weakref.WeakSet[Container] = weakref.WeakSet()


def ask(entered: Iterable[Child], timeout: float) -> None:
    """Ask what has entered to end (SIGTERM), and wait for all of it up to ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    busy = [child for child in entered if child.gone is None and child.ready]
    for child in busy:
        if pidfd := child.work_pidfd():
            with pidfd, contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd.fileno(), signal.SIGTERM)
    for child in busy:
        child.wait_for(lambda child=child: child.status is not None, max(0.0, deadline - time.monotonic()))  # type: ignore[misc]


def end_all(init: Child, entered: list[Child], spawner: Spawner | None, borrowed: bool) -> None:
    """By a ``spawner`` what is left in its IPC namespace is removed, unless somebody else of ours is in that or holds it."""
    for child in entered:
        child.end()
    if not spawner or _is_shared(init.pid):
        init.end()
        return
    path = f"/proc/{init.pid}/ns/ipc"
    with contextlib.suppress(OSError), Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as ipc:
        init.end(politely=True)
        if init.gone == LITTERED << 8 and spawner.alive:
            _tidy(spawner, ipc, path, borrowed)
    init.end()


def _tidy(spawner: Spawner, ipc: Descriptor, path: str, borrowed: bool) -> None:
    """Remove the System V objects of an IPC namespace, of which ``path`` was the file."""
    with contextlib.suppress(NslabError):
        plan = Plan((Setns("ipc", "ipc", path), RemoveObjects()))
        child = spawner.start(plan, fds={"ipc": ipc}, borrowed=borrowed, lone=True)
        try:
            child.settle()
        finally:
            child.end()


def _is_shared(pid: int) -> bool:
    """Whether the IPC namespace of this init lives on, or cannot be tidied up since all stands still."""
    try:
        identity = procfs.namespace(pid, "ipc")
        others = [
            other.pid for other in list(everyone) if other.pid != pid and "ipc" in (*other.kinds, *other.joined) and other.alive
        ]
        others += [process.pid for process in steered.everyone() if process.alive]
        return (
            handle.is_held("ipc", identity)
            or any(procfs.namespace(other, "ipc") == identity for other in others)
            or procfs.stat(pid).state not in "RS"
        )
    except OSError:  # it has ended, or cannot be looked at
        return True
