"""The seam through which every system call of nslab passes: the permission to change things, the errno, the record.

Calls are recorded raw and decoded where they are read: a child of the spawner makes them between fork and execve, where
each object that it touches costs a copied page.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from nslab import trace
from nslab.errors import Refused, SyscallError

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# Calls for which the C library has no wrapper; the rest of the numbers is its business.
_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "set_tid_address": 218},
    "aarch64": {"clone": 220, "pivot_root": 41, "set_tid_address": 96},
}.get(os.uname().machine, {})
CLONE3 = 435
CLONE, PIVOT_ROOT = _NUMBERS.get("clone", -1), _NUMBERS.get("pivot_root", -1)
SET_TID_ADDRESS = _NUMBERS.get("set_tid_address", -1)

_allowed = False
_must_own: Callable[[str, str], None] | None = None
_implied = ""
_registered: ContextVar[bool] = ContextVar("registered", default=False)
_command_line = (0, 0)  # address and length
_raw: list[tuple[Any, ...]] | None = None
_pid: int | None = None  # what records say of who made a call; None: os.getpid()
SENDER = 0  # who sends the record made the call, and whoever reads it knows the number of that process


def allow() -> None:
    """Permit state-changing calls in this process and its children; the spawner says this, nobody else."""
    global _allowed
    _allowed = True


def allowed() -> bool:
    """Whether this process may make calls that change a namespace."""
    return _allowed


def implied(reason: str) -> None:
    """Mark the steps from here on as made for ``reason``, without having been asked for; "" ends that."""
    global _implied
    _implied = reason


def collect() -> list[tuple[Any, ...]]:
    """From here on, in this whole process, put every call into the list returned, raw, and nowhere else."""
    global _raw
    _raw = []
    return _raw


def add(calls: Sequence[tuple[Any, ...]]) -> None:
    """Put calls on record, raw, that another process made for this one, which collects."""
    assert _raw is not None
    _raw.extend(calls)


def known_as(pid: int) -> None:
    """From here on record calls as made by ``pid``: its number where the record is read, or SENDER."""
    global _pid
    _pid = pid


def protect(must_own: Callable[[str, str], None]) -> None:
    """From here on ask ``must_own(kind, call)`` before a call that changes what the namespace of a kind holds.

    For processes that run functions of other people; ops are checked before they come here.
    """
    global _must_own
    _must_own = must_own


def is_protected() -> bool:
    return _must_own is not None


def is_own(kind: str) -> bool:
    """Whether this process may change what its namespace of this kind holds."""
    if not _allowed or _must_own is None:
        return _allowed
    try:
        _must_own(kind, "this")
    except Refused:
        return False
    return True


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Calls inside concern an object that is registered, and will be removed: they need no namespace of one's own."""
    token = _registered.set(True)
    try:
        yield
    finally:
        _registered.reset(token)


def refuse_here(call: str, kind: str = "") -> None:
    """Raise Refused unless this is a process made by the spawner, and where protected, one with a ``kind`` of its own."""
    if not _allowed and not _registered.get():
        raise Refused(
            f"{call}: not in this process (PID {os.getpid()}): it is in the machine's own namespaces, runs your notebook, and "
            f"could not come back.\n  what to do: p = nslab.process(); p.{call}(...), or p.call(function)."
        )
    if kind and _must_own and not _registered.get():
        _must_own(kind, call)


def failure(call: str, raw: Sequence[Any], errno: int, **facts: Any) -> SyscallError:
    """The SyscallError for ``call``, with the hint that fits this moment."""
    from nslab.hints import explain  # neither is needed as long as nothing fails
    from nslab.syscalls.decode import arguments

    return SyscallError(call, arguments(call, raw), errno, explain(call, errno, **facts))


def invoke(call: str, raw: tuple[Any, ...], function: Callable[..., Any], *given: Any, **facts: Any) -> Any:
    """Make a call, and record it with ``raw`` as its arguments.

    ``function`` is one of C that answers -1 and errno, or one of Python that raises OSError.
    """
    wanted = _raw is not None or trace.is_open()
    start = time.time() if wanted else 0
    try:
        result = function(*given)
        number = len(result) if isinstance(result, bytes) else result if isinstance(result, int) else 0
        error = ctypes.get_errno() if result == -1 else 0
    except OSError as failed:
        result, number, error = None, 0, failed.errno or 0
    if wanted:
        record(call, raw, None if error else number, error, start)
    if error:
        raise failure(call, raw, error, **facts)
    return result


def record(call: str, raw: tuple[Any, ...], result: int | None, errno: int, start: float, pid: int | None = None) -> None:
    """Record a call of ``pid`` (None: this process): raw where that is wanted, else as a Step in the traces that are open."""
    pid = _pid if pid is None else pid
    entry = (call, raw, result, errno, start, time.time() - start, os.getpid() if pid is None else pid, _implied)
    if _raw is not None:
        _raw.append(entry)
    elif trace.is_open():
        from nslab.syscalls.decode import step

        trace.emit(step(*entry))


def name_process(title: str) -> None:
    """A command line for ps, whose first word (of at most 15 bytes) is the name; a second one is cut where there is no room.

    Not recorded, since it changes nothing that anybody asks about.
    """
    name, _, argument = os.fsencode(title).partition(b" ")
    buffer = ctypes.create_string_buffer(name[:15])
    libc.prctl(15, ctypes.addressof(buffer), 0, 0, 0)  # PR_SET_NAME
    if (room := _command_line[1]) > len(name):
        ctypes.memmove(_command_line[0], (name + b"\0" + argument)[: room - 1].ljust(room, b"\0"), room)


def set_dumpable(value: bool) -> None:
    """Whether others of the same user may look into this memory; not recorded: an execve begins anew. Source: prctl(2)."""
    libc.prctl(4, int(value), 0, 0, 0)  # PR_SET_DUMPABLE


def default_signals(numbers: Sequence[int]) -> None:
    """Default actions for these signals, of which Python in this memory, which may be another process's, learns nothing."""
    for number in numbers:
        libc.signal(number, None)


def own_command_line() -> None:
    """Find where this process keeps its command line, which name_process() then overwrites; proc(5), fields 48 and 49."""
    global _command_line
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if start:
        _command_line = (start, end - start)


def quietly_chdir(path: str, root: str = "") -> None:
    """The working directory for a command, which its own step names; ``root`` is what a message calls the root filesystem."""
    try:
        os.chdir(path)
        os.getcwd()  # ENOENT for one that the root does not lead to: a symlink led out through /proc (CVE-2024-21626)
    except OSError as error:
        raise failure("chdir", (path,), error.errno or 0, path=path, root=root, option="cwd") from None
