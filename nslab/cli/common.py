"""What several verbs need."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from nslab.errors import CommandTimeout, NslabError, SpecError, SyscallError
from nslab.namespaces import Result
from nslab.trace import Trace, record

_WIDE = 10_000  # columns
TIMED_OUT, FAILED, NOT_EXECUTABLE, NOT_THERE = 124, 125, 126, 127

# Options of every verb that runs a command, and of every one that answers something.
Env = Annotated[list[str], typer.Option("--env", "-e", help="NAME=VALUE on top of the environment here. Repeatable.")]
Cwd = Annotated[str | None, typer.Option("--cwd", "-w", help="Where the command begins.")]
User = Annotated[str | None, typer.Option("--user", "-u", help="As whom: a name or a number.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds after which it is ended, with status 124.")]
Tty = Annotated[
    bool | None, typer.Option("--tty/--no-tty", "-t/-T", help="A terminal of its own; by default, when there is one here.")
]
Steps = Annotated[bool, typer.Option("--trace", help="At the end print every system call, on standard error.")]
Script = Annotated[bool, typer.Option("--shell", help="At the end print the same as a shell script, on standard error.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


class CannotStart(NslabError):
    """A command whose program is not there or cannot be executed, as ``status`` says."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def status(error: NslabError) -> int:
    """The exit status for an error, as env(1) and timeout(1) have them."""
    if isinstance(error, CannotStart):
        return error.status
    return TIMED_OUT if isinstance(error, CommandTimeout) else FAILED


@contextlib.contextmanager
def starting(command: Sequence[str], cwd: str | None, steps: bool, script: bool) -> Iterator[None]:
    """Around a command: CannotStart when it is its program that is at fault, and at the end what was done is shown."""
    with record() as trace:
        try:
            yield
        except NslabError as error:
            if found := _fault(error, "".join(command[:1]), cwd):
                raise CannotStart(str(error), found) from None
            raise
        finally:
            show(trace, steps, script)


def _fault(error: NslabError, program: str, cwd: str | None) -> int:
    """126 or 127 when an error means that this program cannot be started, else 0."""
    if isinstance(error, SpecError) and error.argument == "command":  # among the machine's files
        return NOT_EXECUTABLE if "/" in program and os.path.exists(os.path.join(cwd or "", program)) else NOT_THERE
    if isinstance(error, SyscallError) and error.call in ("execve", "posix_spawn"):
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return NOT_THERE
        return 0 if error.errno in (errno.EAGAIN, errno.ENOMEM) else NOT_EXECUTABLE  # no process could be had
    return 0


@contextlib.contextmanager
def writing(option: str, file: Path) -> Iterator[None]:
    """Around the writing of a file: SpecError when that cannot be."""
    try:
        yield
    except OSError as error:
        raise SpecError(option, f"{file} cannot be written: {error.strerror}") from None


def console() -> Console:
    """Where tables go: as wide as the terminal, and as wide as they are where there is none, so that a line stays one."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if narrow else _WIDE)


def streams(env: Sequence[str], cwd: str | None, user: str | None, timeout: float | None, tty: bool | None) -> dict[str, Any]:
    """The keywords for these options: a command gets a terminal of its own when somebody sits here, unless told otherwise."""
    return {
        "env": environment(env), "cwd": cwd, "user": identity(user), "timeout": timeout,
        "tty": os.isatty(0) and os.isatty(1) if tty is None else tty,
    }  # fmt: skip


def environment(assignments: Sequence[str]) -> dict[str, str] | None:
    """The environment here with NAME=VALUE on top; None when there are none."""
    wrong = [word for word in assignments if not word.partition("=")[1]]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint="--env")
    return {**os.environ, **dict(word.split("=", 1) for word in assignments)} if assignments else None


def identity(user: str | None) -> str | int | None:
    """A user by name or number."""
    return int(user) if user and user.isdigit() else user


def finish(result: Result) -> NoReturn:
    """End as the command ended."""
    raise typer.Exit(result.returncode if result.returncode >= 0 else 128 - result.returncode)


def show(trace: Trace, steps: bool, script: bool) -> None:
    """What was done, on standard error: the command has standard output."""
    if steps:
        print(trace, file=sys.stderr)
    if script:
        print(trace.shell(), end="", file=sys.stderr)
