"""nslab vm: a Linux kernel of one's own, as an ordinary process."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from nslab.cli import common

app = typer.Typer(
    help="A Linux kernel of your own, as an ordinary process: nothing here needs any rights.", no_args_is_help=True
)

Write = Annotated[list[str], typer.Option("--write", "-W", help="A folder that is seen as it is, and written to. Repeatable.")]
Memory = Annotated[str, typer.Option(help="How much memory it has.")]
Offline = Annotated[bool, typer.Option("--offline", help="Without a network of its own.")]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", show_default=False)],
    write: Write = [],  # noqa: B006
    memory: Memory = "768M",
    offline: Offline = False,
    cwd: common.Cwd = None,
    env: common.Env = [],  # noqa: B006
    timeout: common.Timeout = None,
    tty: common.Tty = None,
) -> None:
    """Boot a kernel, run a command in it as its root, and end as the command ended.

    The machine's files are there, read-only: what is written to them is gone at the end, but for --write.
    """
    _run(command, write, memory, offline, cwd, env, timeout, tty)


@app.command()
def shell(
    write: Write = [],  # noqa: B006
    memory: Memory = "768M",
    offline: Offline = False,
    cwd: common.Cwd = None,
) -> None:
    """A shell in a kernel of your own, whose root you are."""
    _run([os.environ.get("SHELL") or "/bin/sh"], write, memory, offline, cwd, [], None, None)


@app.command()
def install(
    default: Annotated[
        bool, typer.Option("--default", help="Notebooks that ask for python3, as those of the course, get the own kernel.")
    ] = False,
    user: Annotated[bool, typer.Option("--user", help="For this user, not where this Python is.")] = False,
    prefix: Annotated[str | None, typer.Option(help="Another place: that of an environment.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing about what works.")] = False,
) -> None:
    """Offer the kernels "nslab (this machine)" and "nslab (own kernel)" in Jupyter, where they can work.

    Status 1 when neither can.
    """
    from nslab.machines import doctor
    from nslab.machines.kernelspecs import SHOWN
    from nslab.machines.kernelspecs import install as put

    report = doctor()
    offers = put(isolation=report["isolation"], own=report["own-kernel"], user=user, prefix=prefix, default=default)
    for offer in offers:
        shown = SHOWN.get(offer.name, offer.name)
        if not offer.installed:
            typer.echo(f"nslab: {shown} is not offered: {offer.why}\n  what to do: {offer.remedy}")
        elif not quiet:
            typer.echo(f"nslab: {shown} is in {offer.where}")
    raise typer.Exit(0 if any(offer.installed for offer in offers) else 1)


def _run(
    command: list[str], write: list[str], memory: str, offline: bool, cwd: str | None, env: list[str], timeout: float | None,
    tty: bool | None,
) -> None:  # fmt: skip
    from nslab.machines.attached import attached

    terminal = os.isatty(0) and os.isatty(1) if tty is None else tty
    with common.starting(command, cwd, False, False):
        status = attached(
            command, write=write, memory=memory, network=not offline, cwd=cwd, env=common.environment(env), timeout=timeout,
            terminal=terminal,
        )  # fmt: skip
    raise typer.Exit(status)
