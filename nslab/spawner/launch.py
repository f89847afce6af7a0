"""Starting a program as a child of this process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import termios
from collections.abc import Mapping
from typing import Any

from nslab import syscalls
from nslab.errors import SyscallError
from nslab.ops import Context, Execute
from nslab.spawner.report import Report
from nslab.syscalls import guard

# Python ignores SIGPIPE and SIGXFSZ, the spawner ignores what a terminal sends; a program expects the defaults.
DEFAULTS = tuple(map(int, (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)))
_PTMX = os.makedev(5, 2)
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441  # lock or unlock the other end; open it
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
    if work.before or work.terminal or work.launched:
        return _by_fork(path, work, context, report)
    streams = (context.fds["stdin"], context.fds["stdout"], context.fds["stderr"])
    try:
        return syscalls.posix_spawn(path, work.argv, env, spawn_options(streams), work.root)
    except SyscallError as error:
        if error.name != "EPERM":
            raise
        return _by_fork(path, work, context, report)  # a seccomp filter that answers EPERM to the library's clone3


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
        for op in work.before:
            op.execute(context)
        if work.terminal:
            _be_in_sight(report)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        report.send("execve", path)
        env = _OWN if work.env is None else work.env
        if work.launched:
            _must_be_executable(path)
            os.execve(context.fds["launcher"], ("nslab-run", path, *work.argv), env)
        os.execve(path, work.argv, env)
    except OSError as error:
        if error.filename == path:
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
