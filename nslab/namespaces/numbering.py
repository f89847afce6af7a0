"""One process or one user, and its numbers: PIDs and ids translated between namespaces."""

from __future__ import annotations

import os
from errno import ENOTTY, ESRCH
from typing import TYPE_CHECKING

from nslab import procfs
from nslab.errors import DeadNamespace, SyscallError
from nslab.model import IdMap
from nslab.syscalls import nsfs

if TYPE_CHECKING:
    from nslab.namespaces.handle import Namespace


def pid_inside(namespace: Namespace, pid: int) -> int | None:
    """The PID in a PID namespace of the process that this one numbers ``pid``; None when it has none there."""
    try:
        return nsfs.ns_get_pid_in_pidns(namespace.fileno(), pid)
    except SyscallError as error:
        if error.errno == ESRCH:
            return None
        if error.errno != ENOTTY:
            raise
        return pid_by_status(namespace, pid)


def pid_outside(namespace: Namespace, pid: int) -> int | None:
    """The PID, as this process numbers it, of the one that has ``pid`` in a PID namespace; None when there is none."""
    try:
        return nsfs.ns_get_pid_from_pidns(namespace.fileno(), pid)
    except SyscallError as error:
        if error.errno == ESRCH:
            return None
        if error.errno != ENOTTY:
            raise
        return next((own for own in procfs.pids() if pid_by_status(namespace, own) == pid), None)


def pid_by_status(namespace: Namespace, pid: int) -> int | None:
    """As pid_inside, for a kernel before 6.11: from the NSpid line of /proc/PID/status.

    A process is in the PID namespace when that is its own or an ancestor of its own; None also where it may not be looked at.
    """
    from nslab.namespaces.handle import Namespace

    try:
        numbers = procfs.numbers(pid)
        with Namespace.of(pid, "pid") as own:
            line = [own.id, *(ancestor.id for ancestor in own.ancestors())]
    except (OSError, DeadNamespace):
        return None
    return next((number for level, number in zip(line, reversed(numbers), strict=False) if level == namespace.id), None)


def id_map(namespace: Namespace, which: str) -> IdMap:
    """The map of a user namespace, read from one of its members; where there is none, a process enters it for that."""
    for pid in [os.getpid(), *namespace.members()]:
        try:
            lines = procfs.id_map(pid, which)
            if procfs.namespace(pid, "user") == namespace.id:  # still
                return IdMap(lines)
        except OSError:
            continue
    visitor = namespace.popen(["cat"], stdin=True)  # which waits for an input that never comes
    try:
        return IdMap(procfs.id_map(visitor.pid, which))
    finally:
        visitor.end()
