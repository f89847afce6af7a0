"""Starting a program as a child of this process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
import termios
import time
from collections.abc import Mapping
from typing import Any

from nslab import syscalls
from nslab.errors import SyscallError
from nslab.model import KINDS
from nslab.ops import Context, Execute
from nslab.spawner.report import Report
from nslab.syscalls import guard

# Python ignores SIGPIPE and SIGXFSZ, the spawner ignores what a terminal sends; a program expects the defaults.
DEFAULTS = tuple(map(int, (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)))
_PTMX = os.makedev(5, 2)
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441  # lock or unlock the other end; open it
programs: dict[str, int] = {}  # descriptors of the minimal programs, by name, once they were needed
_OWN = dict(os.environb)  # the environment of the notebook when it started the spawner, ready for execve


def plain_signals() -> None:
    """In a new process: default actions, nothing blocked."""
    for number in DEFAULTS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def launch(work: Execute, context: Context, report: Report) -> int:
    """Start ``work``; its PID. SyscallError if it cannot."""
    if work.cwd is not None:
        guard.quietly_chdir(work.cwd, work.root)
    env = _OWN if work.env is None else work.env
    path = find(work.argv[0], os.environ if work.env is None else work.env)
    if work.before or work.terminal or work.launched or (context.clock and os.geteuid() != 0):
        return _by_fork(path, work, context, report)
    streams = (context.fds["stdin"], context.fds["stdout"], context.fds["stderr"])
    if context.clock:
        return _by_joiner(path, work, env, streams, context)
    try:
        return syscalls.posix_spawn(path, work.argv, env, spawn_options(streams), work.root)
    except SyscallError as error:
        if error.name != "EPERM":
            raise
        return _by_fork(path, work, context, report)  # a seccomp filter that answers EPERM to the library's clone3


def _by_joiner(path: str, work: Execute, env: Mapping[Any, Any], streams: tuple[int, int, int], context: Context) -> int:
    """The same into a time namespace, which only a process that has its memory to itself may join.

    So a minimal program is executed in between, which joins it, says so, and executes the command; see spawner.minimal.
    """
    assert context.lend and context.clock
    lender, chain = context.lend
    join, start = context.clock, time.time()
    heard, told = os.pipe2(os.O_CLOEXEC)
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (*streams, context.fds[join.fd], told)]

    def begin(_: int) -> int:
        guard.default_signals(DEFAULTS)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        for number, fd in enumerate(above):
            os.dup2(fd, number)
        chain.execute(programs["joiner"], ("nslab-run", path, *work.argv), env)
        return 127

    pid = lender.clone(0, begin, chain)
    for fd in (told, *above):
        os.close(fd)
    with os.fdopen(heard, "rb") as pipe:
        results = [int(result[0]) for result in struct.iter_unpack("q", pipe.read())]
    if not pid:
        os._exit(1)
    if not results:
        raise guard.failure("execve", ("joiner", ()), chain.errno or errno.EIO)
    calls: list[tuple[str, tuple[Any, ...]]] = [("setns", (join.shown, KINDS["time"].flag)), ("execve", (path, work.argv))]
    for (call, raw), result in zip(calls, [*results, 0], strict=False):  # of an execve that was done nothing is heard
        guard.record(call, raw, None if result else 0, -result, start, pid)
        if result:
            os.waitpid(pid, 0)
            raise guard.failure(call, raw, -result, path=path, root=work.root, flags=KINDS["time"].flag)
    return pid


def spawn_options(streams: tuple[int, int, int]) -> dict[str, Any]:
    """For os.posix_spawn: a session of its own, plain signals, and these standard input, output and error."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)]
    return {"file_actions": actions, "setsid": True, "setsigdef": DEFAULTS, "setsigmask": ()}


def find(name: str, env: Mapping[str, str]) -> str:
    """The path of a program, looked up in PATH as this process sees the files."""
    if "/" not in name:
        for folder in (env.get("PATH") or os.defpath).split(":"):
            path = os.path.join(folder or ".", name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return name


def _by_fork(path: str, work: Execute, context: Context, report: Report) -> int:
    """The longer way, for what has to be done between fork and execve."""
    failed, alive = os.pipe2(os.O_CLOEXEC)
    pid = syscalls.fork()
    if pid:
        os.close(alive)
        with os.fdopen(failed, "rb") as pipe:
            if pipe.read():  # a word means that it did not come as far as execve; it has said why
                os._exit(1)
        return pid
    try:
        plain_signals()
        report.calls.clear()
        syscalls.setsid()
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.dup2(context.fds[name], number)
        context.let_go = -1  # a fork has its memory to itself
        if join := context.clock:
            syscalls.setns(context.fds[join.fd], KINDS["time"].flag, join.shown)
        for op in work.before:
            op.execute(context)
        if work.terminal:
            _be_in_sight(report)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        report.send("execve", path)
        env = _OWN if work.env is None else work.env
        if work.launched:
            _must_be_executable(path)
            os.execve(programs["launcher"], ("nslab-run", path, *work.argv), env)
        os.execve(path, work.argv, env)
    except OSError as error:
        if error.filename in (path, programs.get("launcher")):
            report.failed(guard.failure("execve", (path, work.argv), error.errno or 0, path=path, root=work.root))
        else:
            report.failed(error)
        os.write(alive, b"!")
    except BaseException as error:
        report.failed(error)
        os.write(alive, b"!")
    finally:
        os._exit(127)


def _be_in_sight(report: Report) -> None:
    """Where the terminal at 0 to 2 belongs to another devpts than that in sight, and so has no name, replace it by one of that.

    Its master goes to the notebook. Whoever may have put something else there: only a genuine ptmx is taken, and its other
    end is not looked up by name. The terminal stays what it is where there is none. Source: pts(4), ioctl_tty(2).
    """
    with contextlib.suppress(OSError):
        if os.stat("/dev/pts").st_dev == os.fstat(0).st_dev:
            return
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        info = os.fstat(master)
        if not stat.S_ISCHR(info.st_mode) or info.st_rdev != _PTMX:
            return
        fcntl.ioctl(master, _TIOCSPTLCK, bytes(4))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
        report.hand_over("terminal", master)
        for number in range(3):
            os.dup2(slave, number)


def _must_be_executable(path: str) -> None:
    """Raise what the execve would: nobody hears of the launcher's own. (That of a script's interpreter is status 127.)"""
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        number = errno.EACCES if os.path.exists(path) else errno.ENOENT
        raise OSError(number, os.strerror(number), path)
