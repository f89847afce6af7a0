"""clone3 without a copy: the new process goes on with the caller's memory, in the caller's place."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from nslab.syscalls.guard import CLONE, CLONE3, SET_TID_ADDRESS, failure, libc, record, refuse_here
from nslab.syscalls.processes import _CloneArgs

_FLAGS = 0x00000100 | 0x00004000 | 0x00008000  # CLONE_VM, CLONE_VFORK, CLONE_PARENT
_PARENT_SETTID = 0x00100000


def clone3_in_place(flags: int, let_go: int) -> int:
    """As clone3, but only the new process returns: with its PID, as the caller would have seen it.

    CLONE_VM gives it the caller's memory, CLONE_PARENT the caller's parent. CLONE_VFORK keeps the caller asleep until it is
    ended, which a byte written to the descriptor ``let_go`` has to do (see spawner/standby.py). Source: clone(2).
    """
    refuse_here("clone3_in_place")
    pid = ctypes.c_int()
    arguments = _CloneArgs(flags=flags | _FLAGS | _PARENT_SETTID, parent_tid=ctypes.addressof(pid))
    return _taken_over("clone3", flags, let_go, pid, CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))


def clone_in_place(flags: int, let_go: int) -> int:
    """As clone3_in_place, by the older call, which knows every kind but time. Source: clone(2)."""
    refuse_here("clone_in_place")
    pid = ctypes.c_int()
    given = (ctypes.c_ulong(flags | _FLAGS | _PARENT_SETTID), None, ctypes.byref(pid), None, None)
    return _taken_over("clone", flags, let_go, pid, CLONE, *given)


def _taken_over(call: str, flags: int, let_go: int, pid: ctypes.c_int, *given: Any) -> int:
    libc.syscall(SET_TID_ADDRESS, None)  # else the end of the caller would clear the C library's thread id, now another's
    start = time.time()
    if libc.syscall(*given) == 0:
        os.write(let_go, b"!")  # before anything else: the caller must never wake to a stack that is not its own any more
        record(call, (flags | _FLAGS,), pid.value, 0, start)
        return pid.value
    error = ctypes.get_errno()
    record(call, (flags | _FLAGS,), None, error, start)
    raise failure(call, (flags | _FLAGS,), error, flags=flags)
