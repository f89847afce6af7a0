"""clone without a copy of the memory: the new process works in the caller's, while the caller sleeps."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable

from nslab.syscalls.guard import SET_TID_ADDRESS, failure, libc, record, refuse_here

_FLAGS = 0x00000100 | 0x00004000 | 0x00008000  # CLONE_VM, CLONE_VFORK, CLONE_PARENT
_PARENT_SETTID = 0x00100000
_STACK = 8 << 20  # bytes, as a main thread has; what is not touched costs nothing

_python = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock: whoever runs in this memory has it
_python.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 4]


class Lender:
    """Makes processes that work in this one's memory, one after the other, each on the same stack beside its own."""

    def __init__(self) -> None:
        self._stack = mmap.mmap(-1, _STACK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._stack))
        libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(mmap.PAGESIZE), 0)  # an overflow is a fault
        self._top = base + _STACK
        self._begin = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._live)
        self._pid = ctypes.c_int()
        # Else the end of this process would clear the C library's thread id in memory that is another's by then.
        libc.syscall(SET_TID_ADDRESS, None)

    def clone(self, flags: int, life: Callable[[int], int]) -> bool:
        """A new process that does ``life(pid)`` and ends with the status that this returns; a child of the caller's parent.

        ``pid`` is its PID as the caller would have seen it. The caller sleeps meanwhile (CLONE_VFORK). False when the new
        process was killed: then the memory is in disorder, and nothing may be done but os._exit(). Source: clone(2).
        """
        refuse_here("clone")
        self._flags, self._life, self._came_to_its_end = flags | _FLAGS, life, False
        self._caller, self._start = os.getpid(), time.time()
        pid = _python.clone(
            self._begin, self._top, flags | _FLAGS | _PARENT_SETTID, None, ctypes.addressof(self._pid), None, None
        )
        if pid == -1:
            error = ctypes.get_errno()
            record("clone", (self._flags,), None, error, self._start)
            raise failure("clone", (self._flags,), error, flags=flags)
        return self._came_to_its_end

    def _live(self, _: int | None) -> int:
        record("clone", (self._flags,), self._pid.value, 0, self._start, self._caller)
        status = self._life(self._pid.value)
        self._came_to_its_end = True
        return status
