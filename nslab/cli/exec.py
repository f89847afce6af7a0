"""nslab exec: one command in a container that is running."""

from __future__ import annotations

from typing import Annotated

import typer

from nslab.cli import common
from nslab.container import listing


def exec_(
    name: Annotated[str, typer.Argument(help="The container: its name, or the PID that nslab ls shows.")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", show_default=False)],
    env: Annotated[list[str], typer.Option("--env", "-e", help="NAME=VALUE on top of the environment here. Repeatable.")] = [],  # noqa: B006
    cwd: Annotated[str | None, typer.Option("--cwd", "-w", help="Where the command begins.")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="As whom: a name or a number.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which it is ended, with status 124.")] = None,
    tty: Annotated[
        bool | None, typer.Option("--tty/--no-tty", "-t/-T", help="A terminal of its own; by default, when there is one here.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="At the end print every system call, on standard error.")] = False,
    shell: Annotated[
        bool, typer.Option("--shell", help="At the end print the same as a shell script, on standard error.")
    ] = False,
) -> None:
    """Run a command inside a container of any notebook or program of this user (for root: of anybody)."""
    if command[:1] == ["--"]:  # between the name and the command
        command = command[1:]
    with common.starting(command, cwd, trace, shell):
        result = listing.enter(
            listing.find(name), command, env=common.environment(env), cwd=cwd, user=common.identity(user),
            timeout=timeout, tty=common.is_terminal() if tty is None else tty,
        )  # fmt: skip
    common.finish(result)
