"""clone without a copy of the memory: the new process works in the caller's, while the caller sleeps."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nslab.syscalls.guard import SET_TID_ADDRESS, failure, libc, record, refuse_here

_FLAGS = 0x00000100 | 0x00004000  # CLONE_VM, CLONE_VFORK
_PARENT, _PARENT_SETTID, _SIGCHLD = 0x00008000, 0x00100000, 17
_STACK = 8 << 20  # bytes, as a main thread has; what is not touched costs nothing

_python = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock: whoever runs in this memory has it
_python.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
_python.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 4]
EXECUTES = hasattr(_python, "makecontext")  # whether the C library has what a Chain needs, as glibc does


def _address(function: str | Any) -> int:
    """Where a function, or one of the C library by name, begins."""
    found = getattr(_python, function) if isinstance(function, str) else function
    return ctypes.cast(found, ctypes.c_void_p).value or 0


class Lender:
    """Makes processes that work in this one's memory, one after the other, each on the same stack beside its own.

    They are siblings of this process, or its children.
    """

    def __init__(self, *, children: bool = False) -> None:
        self._flags = _FLAGS | (_SIGCHLD if children else _PARENT)
        self._stack = mmap.mmap(-1, _STACK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._stack))
        libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(mmap.PAGESIZE), 0)  # an overflow is a fault
        self._base = base
        self._begin = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._live)
        self._pid = ctypes.c_int()
        self._exit = _address("_exit")
        # Else the end of this process would clear the C library's thread id in memory that is another's by then.
        libc.syscall(SET_TID_ADDRESS, None)

    def clone(self, flags: int, life: Callable[[int], int], chain: Chain | None = None) -> int:
        """A new process that does ``life(pid)`` and ends with the status that this returns; its PID as the caller sees it.

        The caller sleeps meanwhile (CLONE_VFORK). 0 when the new process was killed: then the memory is in disorder, and
        nothing may be done but os._exit(). With a ``chain`` the life may end with an execve. Source: clone(2).
        """
        refuse_here("clone")
        self._asked = flags | self._flags & ~_SIGCHLD
        self._life, self._chain, self._came_to_its_end = life, chain, False
        self._caller, self._start = os.getpid(), time.time()
        begin, argument = chain.begin(self._begin, self._base) if chain else (_address(self._begin), None)
        _python.signal(signal.SIGSEGV, self._exit)  # memory in disorder may not even do for that: then it ends without a word
        pid = _python.clone(
            begin, self._base + _STACK, flags | self._flags | _PARENT_SETTID, argument, ctypes.addressof(self._pid), None, None
        )
        _python.signal(signal.SIGSEGV, None)
        if pid == -1:
            error = ctypes.get_errno()
            record("clone", (self._asked,), None, error, self._start)
            raise failure("clone", (self._asked,), error, flags=flags)
        return int(pid) if self._came_to_its_end else 0

    def _live(self, _: int | None) -> int:
        _python.signal(signal.SIGSEGV, None)
        record("clone", (self._asked,), self._pid.value, 0, self._start, self._caller)
        status = self._life(self._pid.value)
        if self._chain:
            self._chain.end(status)
        self._came_to_its_end = True
        return status


class Chain:
    """What such a process does when its life in this memory is over: it ends, or executes a program.

    Python could not execute one from within: its own frames would remain in a memory that goes on to live. So the life returns
    first, and the C library goes from context to context: the life, an execve(2) or _exit(2), and where the execve comes back,
    a note of errno, for whoever lent the memory, and _exit(2). Source: makecontext(3).
    """

    _ROOM = 8192  # bytes: of a ucontext_t, of which the C libraries' are smaller, and for a stack of a few calls
    _LINK, _STACK_AT, _STACK_SIZE = 8, 16, 32  # where in it is what its user fills in

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * self._ROOM, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._life, self._end, self._note, self._exit = (base + index * self._ROOM for index in range(4))
        self._errno = ctypes.c_int()
        self._functions = {name: _address(name) for name in ("setcontext", "fexecve", "memcpy", "_exit")}
        errno = getattr(_python, "__errno_location")  # the names of a class would get a prefix
        errno.restype = ctypes.c_void_p
        self._its_errno = int(errno())

    def begin(self, life: Any, stack: int) -> tuple[int, int]:
        """For clone(): where a process begins that will do ``life`` on ``stack``, and the argument of that."""
        self._argv: Any = None
        self._errno.value = 0
        self._make(self._note, self._exit, "memcpy", ctypes.addressof(self._errno), self._its_errno, 4)
        self._make(self._exit, 0, "_exit", 127)
        self._make(self._end, 0, "_exit", 1)  # unless the life comes to its end, and says how
        self._make(self._life, self._end, _address(life), 0, stack=(stack, _STACK - self._ROOM))
        return self._functions["setcontext"], self._life

    def execute(self, fd: int, argv: Sequence[bytes | str], env: Mapping[Any, Any]) -> None:
        """Execute the program behind ``fd`` at the end of this life, with the signals blocked that are so now."""
        lines = [b"%s=%s" % (os.fsencode(name), os.fsencode(value)) for name, value in env.items()]
        self._argv, self._env = _vector(map(os.fsencode, argv)), _vector(lines)
        self._make(self._end, self._note, "fexecve", fd, ctypes.addressof(self._argv), ctypes.addressof(self._env))

    def end(self, status: int) -> None:
        """At the end of a life: exit, if that is not to execute anything."""
        if not self._argv:
            self._make(self._end, 0, "_exit", status)

    @property
    def errno(self) -> int:
        """Of the execve, when it failed; else 0."""
        return self._errno.value

    def _make(self, at: int, link: int, function: str | int, *args: int, stack: tuple[int, int] = (0, 0)) -> None:
        _python.getcontext(ctypes.c_void_p(at))
        ctypes.c_void_p.from_address(at + self._LINK).value = link
        base, size = stack if stack[0] else (at + 4 * self._ROOM, self._ROOM)
        ctypes.c_void_p.from_address(at + self._STACK_AT).value = base
        ctypes.c_size_t.from_address(at + self._STACK_SIZE).value = size
        begin = self._functions[function] if isinstance(function, str) else function
        _python.makecontext(ctypes.c_void_p(at), ctypes.c_void_p(begin), len(args), *map(ctypes.c_void_p, args))


def _vector(words: Any) -> Any:
    """Words for execve(2): pointers, the last of which is NULL."""
    found = [*words, None]
    return (ctypes.c_char_p * len(found))(*found)
