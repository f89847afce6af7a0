"""Python functions that run inside: shipped by cloudpickle, with the value or the exception shipped back."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from nslab.errors import NslabError, SpecError
from nslab.syscalls import guard

_forks = 0  # between this process and the one that imported this


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def dump(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> bytes:
    """The function and its arguments as bytes; needs cloudpickle, which stays out of the spawner."""
    import cloudpickle

    if not callable(function):
        raise SpecError("function", f"must be a Python function, not {type(function).__name__}; run() takes commands")
    try:
        payload: bytes = cloudpickle.dumps((function, tuple(args), kwargs))
    except Exception as error:
        raise SpecError("function", f"it, or what it is called with, cannot be sent to another process: {error}") from error
    return payload


def load(fd: int, path: Sequence[str], foreign: bool = False) -> Callable[[], Any]:
    """Read a dumped function, before any namespace is entered, so that its modules come from the machine's own files.

    ``foreign``: later there are others in sight, and what is not loaded by then can be loaded no more (CVE-2019-14271).
    """
    sys.path[:] = path
    function, args, kwargs = pickle.loads(_read(fd))
    if foreign:
        import cloudpickle  # noqa: F401  # for an outcome that pickle cannot take
    return lambda: function(*args, **kwargs)


def run(function: Callable[[], Any], fds: dict[str, int]) -> NoReturn:
    """Call it, leave the pickled outcome in the descriptor "result", and end, whatever happens."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(fds[name], number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    status = 0
    try:
        calls = guard.collect()
        payload = pickle.dumps((calls, outcome(function)))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with os.fdopen(fds["result"], "wb") as file:
            file.write(payload)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    finally:
        os._exit(status)


def outcome(function: Callable[[], Any]) -> bytes:
    """(True, value) or (False, exception, text of its traceback), pickled, by value where it must be."""
    here = (os.getpid(), _forks)
    try:
        parts: tuple[Any, ...] = (True, function())
    except BaseException as error:
        import traceback

        parts = (False, error, traceback.format_exc())
    if (os.getpid(), _forks) != here:  # a child that the function has forked came back with it: it is nobody's answer
        if not parts[0]:
            os.write(2, parts[2].encode())
        os._exit(not parts[0])
    try:
        return pickle.dumps(parts)
    except Exception:
        pass
    try:
        import cloudpickle

        payload: bytes = cloudpickle.dumps(parts)
        return payload
    except Exception as error:
        what = type(parts[1]).__name__
        text = parts[2] if not parts[0] else ""
        return pickle.dumps((False, NslabError(f"the {what} that it returned cannot be sent back: {error}"), text))


def told(payload: bytes, pid: int) -> Any:
    """The value of what run() left behind; the system calls that it made, as ``pid``, go into the traces that are open here."""
    if not payload:
        return value(b"")
    from nslab.syscalls import decode
    from nslab.trace import emit

    calls, payload = pickle.loads(payload)
    for call in calls:
        step = decode.step(*call)
        emit(step if step.pid else step._replace(pid=pid))
    return value(payload)


def value(payload: bytes) -> Any:
    """The value of an outcome; raises its exception, with the traceback from inside as a note."""
    if not payload:
        raise NslabError("the function ended its process without an answer")
    ok, result, *rest = pickle.loads(payload)
    if ok:
        return result
    result.add_note("inside:\n" + rest[0])
    raise result


def _read(fd: int) -> bytes:
    with os.fdopen(fd, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()
