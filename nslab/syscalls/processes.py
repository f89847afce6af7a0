"""Making, joining and signalling: clone3, unshare, setns, pidfds, prctl."""

from __future__ import annotations

import ctypes
import os
import signal as signals
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nslab.syscalls.guard import CLONE, CLONE3, failure, invoke, libc, record, refuse_here

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36
_SIGCHLD = int(signals.SIGCHLD)
CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 1 << 33

libc.unshare.argtypes = [ctypes.c_int]
libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid", "set_tid_size",
            "cgroup",
        )
    ]  # fmt: skip


def clone3(flags: int, set_tid: Sequence[int] = (), cgroup: int = -1) -> int:
    """A new process in new namespaces: its PID in the parent, 0 in the child.

    ``flags`` are CLONE_NEW* bits, and CLONE_PARENT for a sibling; the exit signal is SIGCHLD. ``set_tid`` are the PIDs that
    it is to have, from its own PID namespace upwards: EEXIST when one is taken, EPERM without CAP_CHECKPOINT_RESTORE or
    CAP_SYS_ADMIN over each of these. ``cgroup`` is a descriptor of the cgroup (v2) that it is born in: EACCES where the caller
    may move no process, EBUSY where none may be, EAGAIN at its pids.max. EPERM without privilege and without CLONE_NEWUSER,
    ENOSPC at a limit of namespaces, ENOSYS or EPERM under some seccomp filters. Source: clone(2).
    """
    refuse_here("clone3")
    arguments = _CloneArgs(flags=flags, exit_signal=0 if flags & CLONE_PARENT else _SIGCHLD)  # a sibling's is the caller's
    if cgroup >= 0:
        flags |= _CLONE_INTO_CGROUP
        arguments.flags, arguments.cgroup = flags, cgroup
    if set_tid:
        numbers = (ctypes.c_int * len(set_tid))(*set_tid)
        arguments.set_tid, arguments.set_tid_size = ctypes.addressof(numbers), len(set_tid)
    start = time.time()
    pid: int = libc.syscall(CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    return _cloned("clone3", (flags, tuple(set_tid)) if set_tid else (flags,), pid, start)


def clone(flags: int) -> int:
    """As clone3, by the older call, which knows every kind but time. Source: clone(2)."""
    refuse_here("clone")
    start = time.time()
    pid: int = libc.syscall(CLONE, ctypes.c_ulong(flags | _SIGCHLD), None, None, None, None)
    return _cloned("clone", (flags,), pid, start)


def _cloned(call: str, raw: tuple[Any, ...], pid: int, start: float) -> int:
    if pid == 0:
        return 0
    error = ctypes.get_errno() if pid == -1 else 0
    record(call, raw, None if error else pid, error, start)
    if error:
        raise failure(call, raw, error, flags=raw[0], set_tid=raw[1:] and raw[1])
    return pid


def fork() -> int:
    """A copy of the calling process: its PID in the parent, 0 in the child.

    ENOMEM when the PID namespace for children has lost its init, EAGAIN at a limit of processes. Source: fork(2).
    """
    refuse_here("fork")
    start = time.time()
    try:
        pid = os.fork()
    except OSError as error:
        record("fork", (), None, error.errno or 0, start)
        raise failure("fork", (), error.errno or 0) from None
    if pid:
        record("fork", (), pid, 0, start)
    return pid


def unshare(flags: int) -> None:
    """Move the calling process (for pid and time: its next children) into new namespaces. Source: unshare(2)."""
    refuse_here("unshare")
    invoke("unshare", (flags,), libc.unshare, flags, flags=flags)


def setns(fd: int, nstype: int, shown: str = "") -> None:
    """Join the namespace behind ``fd``, or with a pidfd those of its process named by ``nstype``. Source: setns(2).

    ``shown`` is what a trace calls the descriptor, whose number tells a reader nothing.
    """
    refuse_here("setns")
    invoke("setns", (shown or fd, nstype), libc.setns, fd, nstype, flags=nstype, fd=fd)


def prctl(option: int, value: int) -> None:
    """The few options of prctl(2) that nslab uses (PR_SET_* above)."""
    invoke("prctl", (option, value), libc.prctl, option, value, 0, 0, 0)


def setsid() -> None:
    """Become the leader of a new session without a terminal. EPERM for a group leader. Source: setsid(2)."""
    invoke("setsid", (), os.setsid)


def chdir(path: str) -> None:
    """Change the working directory. Source: chdir(2)."""
    invoke("chdir", (path,), os.chdir, path, path=path)


def posix_spawn(
    path: str, argv: Sequence[str], env: Mapping[Any, Any], options: Mapping[str, Any] | None = None, root: str = ""
) -> int:  # fmt: skip
    """Start a program in a new process and return its PID: the library's vfork and execve in one.

    ``options`` are those of os.posix_spawn; ``root`` is what a message calls the root filesystem. The errno is that of the
    execve. Source: posix_spawn(3).
    """
    argv = tuple(argv)
    start = partial(os.posix_spawn, path, argv, env, **(options or {}))
    return int(invoke("posix_spawn", (path, argv), start, path=path, root=root))


def kill(pid: int, signal: int) -> None:
    """Send a signal by number of the process; ESRCH when there is none. Source: kill(2)."""
    invoke("kill", (pid, signal), os.kill, pid, signal)


def signalfd(numbers: Sequence[int]) -> int:
    """Block these signals and return a descriptor on which they are read instead (128 bytes each, the number first).

    A child inherits both, and reads its own signals from it. Source: signalfd(2).
    """
    signals.pthread_sigmask(signals.SIG_BLOCK, numbers)
    mask = (ctypes.c_uint64 * 16)(sum(1 << (number - 1) for number in numbers))
    raw = (tuple(int(number) for number in numbers),)
    return int(invoke("signalfd", raw, libc.signalfd, -1, ctypes.byref(mask), os.O_CLOEXEC | os.O_NONBLOCK))


def pidfd_open(pid: int) -> int:
    """A descriptor that stands for the process, whoever gets its number later. Source: pidfd_open(2)."""
    return int(invoke("pidfd_open", (pid,), os.pidfd_open, pid))


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send a signal to the process behind a pidfd; ESRCH once it is gone. Source: pidfd_send_signal(2)."""
    invoke("pidfd_send_signal", (pidfd, signal), signals.pidfd_send_signal, pidfd, signal)
