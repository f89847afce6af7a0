"""A process that takes orders, one at a time: what nslab.process() steers."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from nslab import syscalls
from nslab.ops import Chroot, Context, Execute, Op, PivotRoot, SetIds, Setns
from nslab.spawner import channel, functions
from nslab.spawner.launch import launch
from nslab.spawner.messages import Steer
from nslab.spawner.report import Report
from nslab.syscalls import guard

_path: tuple[str, ...] = ()  # the sys.path of the notebook


def get_ready(work: Steer) -> None:
    """Load what any order may need; what functions need comes when they do, or before this process goes where it is not."""
    import traceback  # noqa: F401

    from nslab import hints  # noqa: F401
    from nslab.syscalls import decode  # noqa: F401

    global _path
    _path = work.path
    if work.stranger:
        _load_for_functions()


def _load_for_functions() -> None:
    sys.path[:] = _path
    import cloudpickle  # noqa: F401


def take_orders(fd: int, context: Context) -> NoReturn:
    """Obey until the channel is closed. Each order is (verb, argument, names of its descriptors)."""
    guard.name_process("nslab-process")
    sock = socket.socket(fileno=fd)
    report = Report(fd)
    if context.proc < 0:
        context.proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    _greet(sock)
    while True:
        try:
            (verb, argument, names), fds = channel.receive(sock)
        except EOFError:
            os._exit(0)
        context.fds = dict(zip(names, fds, strict=True))
        try:
            answer = VERBS[verb](argument, context, report)
        except Exception as error:  # whatever it was: the next order may be a better one
            report.failed(error)
        else:
            report.send("done", answer)
        finally:
            for name, number in context.fds.items():
                if name != "steer":
                    os.close(number)


def _greet(sock: socket.socket) -> None:
    """Say who is here: the PID that this process knows, and a pidfd from which others learn theirs."""
    pidfd = os.pidfd_open(os.getpid())
    channel.send(sock, ([], "hello", os.getpid()), (pidfd,))
    os.close(pidfd)


def _op(op: Op, context: Context, report: Report) -> Any:
    if isinstance(op, (Chroot, PivotRoot, SetIds)) or (isinstance(op, Setns) and op.kind in ("mnt", "")):
        with contextlib.suppress(ImportError):  # it went away before
            _load_for_functions()  # soon there may be no Python to be seen, or none that the new user may read
    return op.execute(context)


def _fork(asked: tuple[int, tuple[int, ...]], context: Context, report: Report) -> int:
    pid = syscalls.clone3(*asked) if any(asked) else syscalls.fork()
    if pid:
        _buried.pop(pid, None)  # an older child with the same number
        return pid
    _buried.clear()
    own = context.fds.pop("channel")
    os.close(report.fd)
    take_orders(own, context)


def _run(work: Execute, context: Context, report: Report) -> int:
    here = os.getcwd()
    try:
        pid = launch(work, context, report)
    finally:
        if work.cwd is not None:
            os.chdir(here)
    for name in list(context.fds):
        os.close(context.fds.pop(name))
    report.send("ready", (pid, 0))
    return os.waitpid(pid, 0)[1]


def _call(path: tuple[str, ...], context: Context, report: Report) -> bytes:
    return functions.outcome(functions.load(context.fds["function"], path))


def _read(path: str, context: Context, report: Report) -> str:
    return syscalls.read_file(path)


_buried: dict[int, int] = {}  # children that ended while another one was waited for, and how


def _wait(pid: int, context: Context, report: Report) -> int:
    """Bury whoever ends meanwhile: a PID 1 ends only when every member has been, and those may be children of ours."""
    while pid not in _buried:
        ended, status = os.waitpid(-1, 0)
        _buried[ended] = status
    return _buried.pop(pid)


def _bury(_: None, context: Context, report: Report) -> None:
    """Bury who has ended; wait() still knows how."""
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if ended == 0:
            return
        _buried[ended] = status


def _kill(order: tuple[int, int], context: Context, report: Report) -> None:
    syscalls.kill(*order)


VERBS: dict[str, Callable[..., Any]] = {
    "op": _op,
    "fork": _fork,
    "run": _run,
    "call": _call,
    "read": _read,
    "wait": _wait,
    "bury": _bury,
    "kill": _kill,
}
