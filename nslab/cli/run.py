"""nslab run: one command in new namespaces."""

from __future__ import annotations

from typing import Annotated

import typer

from nslab.cli import common
from nslab.container import run as run_command
from nslab.namespaces.privilege import MapRequest
from nslab.trace import record


def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", show_default=False)],
    isolate: Annotated[str, typer.Option("--isolate", "-i", help="Kinds of namespace that are new: 'uts pid', 'all'.")] = "all",
    hostname: Annotated[str | None, typer.Option(help="The host name inside (needs uts).")] = None,
    uid_map: Annotated[
        str, typer.Option(help="'single', 'subordinate', or lines INSIDE:OUTSIDE:COUNT with commas between.")
    ] = "single",
    gid_map: Annotated[str | None, typer.Option(help="The same for groups; as --uid-map where that is a word.")] = None,
    clock: Annotated[list[str], typer.Option(help="Offset of a clock (needs time): monotonic=+1d. May be repeated.")] = [],  # noqa: B006
    env: Annotated[list[str], typer.Option("--env", "-e", help="NAME=VALUE on top of the environment here. Repeatable.")] = [],  # noqa: B006
    cwd: Annotated[str | None, typer.Option("--cwd", "-w", help="Where the command begins.")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="As whom: a name or a number.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which it is ended, with status 124.")] = None,
    tty: Annotated[
        bool | None, typer.Option("--tty/--no-tty", "-t/-T", help="A terminal of its own; by default, when there is one here.")
    ] = None,
    hardened: Annotated[bool, typer.Option("--hardened", help="With what namespaces leave open closed; begins at /.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="At the end print every system call, on standard error.")] = False,
    shell: Annotated[
        bool, typer.Option("--shell", help="At the end print the same as a shell script, on standard error.")
    ] = False,
) -> None:
    """Run a command in new namespaces; when it ends, so does everything that it started.

    Standard streams, signals and the exit status are passed on: nslab run -i 'uts user' --hostname web -- hostname
    """
    with record() as steps:
        try:
            result = run_command(
                command, isolate=isolate, hostname=hostname, uid_map=_lines("--uid-map", uid_map),
                gid_map=None if gid_map is None else _lines("--gid-map", gid_map), clock=_clocks(clock),
                env=common.environment(env), cwd=cwd, user=common.identity(user), timeout=timeout,
                tty=common.is_terminal() if tty is None else tty, attach=True, hardened=hardened,
            )  # fmt: skip
        finally:
            common.show(steps, trace, shell)
    common.finish(result)


def _lines(option: str, text: str) -> MapRequest:
    """A map as a word, or lines of three numbers."""
    if ":" not in text:
        return text
    try:
        lines = [tuple(int(number) for number in line.split(":")) for line in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not INSIDE:OUTSIDE:COUNT, as in 0:1000:1", param_hint=option) from None
    return lines


def _clocks(words: list[str]) -> dict[str, float | str] | None:
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not CLOCK=OFFSET, as in monotonic=+1d", param_hint="--clock")
    return {name: offset for name, _, offset in (word.partition("=") for word in words)} if words else None
