"""The life of a process that the spawner made: run the plan, then look after the work and whatever it leaves behind.

The same code is PID 1 of a new PID namespace and the plain process that supervises a command elsewhere. It reaps orphans,
passes signals on to the work, reports its exit status, and ends when its channel is closed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from nslab.errors import SyscallError
from nslab.ops import Context, Execute, Op
from nslab.spawner import messages
from nslab.spawner.launch import launch, plain_signals, programs
from nslab.spawner.messages import Call, Start, Steer, Work
from nslab.spawner.report import Report
from nslab.syscalls import guard

PASSED_ON = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGCONT,
)  # fmt: skip
SIGNALS = (*PASSED_ON, signal.SIGCHLD)
_SIGCHLD = int(signal.SIGCHLD)
PATIENCE = 20  # ms that a process may run in borrowed memory


def get_ready(needs: int) -> None:
    """Load now what has to be there when other files are in sight, and a module of theirs would run with our rights.

    And what root of a user namespace may not be able to read any more.
    """
    if needs & messages.ENTERS:
        import traceback  # noqa: F401

        from nslab import hints  # noqa: F401
        from nslab.ops import visits  # noqa: F401
        from nslab.syscalls import decode  # noqa: F401
    if needs & messages.UNPACKS:
        from nslab.ops import archive  # noqa: F401
    if needs & messages.TIDIES:
        from nslab.syscalls import sysv  # noqa: F401
    if needs & messages.PROGRAMS and not programs:
        from nslab.spawner import minimal

        minimal.get_ready()


def load_no_more() -> None:
    """From here on no module can be loaded from a file: those in sight are a container's (CVE-2019-14271)."""
    built_in = ("BuiltinImporter", "FrozenImporter")
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") in built_in]


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor above 2 but these: what the spawner holds is none of its children's business."""
    low = 3
    for fd in sorted(set(keep)):
        if fd >= low:
            os.closerange(low, fd)
            low = fd + 1
    os.closerange(low, 1 << 20)


class Over(BaseException):
    """The life of this process is over, with this exit status."""

    def __init__(self, status: int):
        self.status = status


def live(
    request: Start, ops: tuple[Op, ...], context: Context, report: Report, signals: int, files: tuple[int, int],
    first: Callable[[], object] | None = None,
) -> NoReturn:  # fmt: skip
    """As spend(), and end with what it returns."""
    try:
        os._exit(spend(request, ops, context, report, signals, files, first))
    finally:
        os._exit(1)


def spend(
    request: Start, ops: tuple[Op, ...], context: Context, report: Report, signals: int, files: tuple[int, int],
    first: Callable[[], object] | None = None,
) -> int:  # fmt: skip
    """Do ``first`` and ``ops`` and start the work, then look after it; the exit status for this process, which is done then.

    What is to become a minimal init does so, in borrowed memory once this has returned.

    ``signals`` is the signalfd on which this process gets the SIGNALS, ``files`` the old RLIMIT_NOFILE.
    """
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        worker = _worker(request.work, context)
        if first:
            first()
        enters = any(op.enters for op in request.ops)
        for index, op in enumerate(ops):
            if request.stepwise:
                report.send("wait", (index, report.pid))
                report.wait()
            if op.enters and context.let_go >= 0:  # not sooner: what is not dumpable may write nothing in its /proc/self
                guard.set_dumpable(False)  # the memory is also that of one outside: none from inside may reach into it
            op.execute(context)
        work = request.work
        if enters and (not isinstance(work, Call) or work.foreign):
            load_no_more()
        if context.let_go >= 0:
            guard.set_dumpable(False)  # from here on there may be others inside
        main = _start(request.work, context, report, worker)
        if request.bare and (programs or request.bare == "hidden"):
            from nslab.spawner.minimal import become  # the spawner has loaded it

            return become(request.bare, request.title, report, context)
        guard.name_process(request.title)  # before anybody is told: `nslab ls` knows containers by it
        report.send("ready", (main, report.pid))
        close_others((report.fd, signals, *((context.let_go, context.predecessor) if context.let_go >= 0 else ())))
        _supervise(request, report, main, signals, context)
    except Over as over:
        return over.status
    except BaseException as error:
        report.failed(error)
    return 1


def poller(report: Report, signals: int) -> select.poll:
    """What a supervisor waits for: signals, and the end of its channel."""
    waiting = select.poll()
    waiting.register(signals, select.POLLIN)
    waiting.register(report.fd, select.POLLHUP)
    return waiting


def _supervise(request: Start, report: Report, main: int, signals: int, context: Context) -> NoReturn:
    tidy = "ipc" in context.made
    waiting = poller(report, signals)
    patience: int | None = PATIENCE
    while True:
        events = waiting.poll(patience)
        if not events:
            context.own_memory()
            patience = None
        for fd, _ in events:
            if fd != signals:
                raise Over(0)
            records = os.read(signals, 128 * 32)
            for number in records[::128]:
                if number != _SIGCHLD:
                    _pass_on(number, main, report if tidy else None)
        main = _reap(request, report, main, tidy)


def _pass_on(number: int, main: int, tidied: Report | None) -> None:
    if main:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(main, number)
    elif number in (signal.SIGTERM, signal.SIGINT):
        if tidied:
            _tidy(tidied)
        raise Over(128 + number)


def _tidy(report: Report) -> None:
    """Remove what is in an IPC namespace of its own: its memory would come back only a while after the end."""
    from nslab.syscalls import sysv  # the spawner has loaded it

    with contextlib.suppress(SyscallError):
        sysv.remove_all()
    if report.calls:
        report.send("tidied", 0)


def _reap(request: Start, report: Report, main: int, tidy: bool) -> int:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            if not request.stay:
                raise Over(0) from None
            return main
        if pid == 0:
            return main
        if pid == main:
            if request.lone and tidy:
                _tidy(report)
            report.send("exit", status)
            main = 0
            if request.lone:
                raise Over(0)


def _worker(work: Work, context: Context) -> Callable[[], NoReturn] | None:
    """What a child that runs no program will do. Its modules are loaded now: later it may see other files, or as nobody."""
    if isinstance(work, Call):
        from nslab.spawner import functions, registry

        if "registry" in context.fds:
            registry.write_to(context.fds["registry"], work.owner)
        function = functions.load(context.fds["function"], work.path, work.foreign)
        return lambda: functions.run(function, context.fds)
    if isinstance(work, Steer):
        from nslab.spawner import registry, steer

        registry.write_to(context.fds["registry"], os.getpid())
        steer.get_ready(work)
        return lambda: steer.take_orders(context.fds["steer"], context)
    return None


def _start(work: Work, context: Context, report: Report, worker: Callable[[], NoReturn] | None) -> int:
    """Start the work; its PID, 0 when there is none."""
    if isinstance(work, Execute):
        return launch(work, context, report)
    try:
        pid = os.fork() if worker else 0
    except OSError as error:
        raise guard.failure("fork", (), error.errno or 0) from None
    if worker and pid == 0:
        try:
            plain_signals()
            guard.protect(context.must_own)
            report.calls.clear()
            report.send("works")
            context.let_go = -1  # a fork has its memory to itself
            close_others(fd for name, fd in context.fds.items() if name != "reply")
            worker()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(1)
    return pid
