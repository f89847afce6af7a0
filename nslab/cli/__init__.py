"""The command line: `nslab VERB`, also reachable as `jupyter nslab VERB`. One file per verb, loaded when it is asked for.

Exit status of run and exec: that of the command (128 + N when signal N ended it); 124 when its time was up, 125 when nslab
itself failed, 126 when the program cannot be executed, 127 when it is not there. Of the others: 1 when it failed, or the
answer is no. 2 for options that cannot be.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nslab import __version__
from nslab.errors import NslabError

VERBS = ("course", "diff", "doctor", "down", "draw", "exec", "ls", "ping", "run", "tree", "up", "vm", "watch")


def main() -> None:
    """Run the verb that the command line names; never returns."""
    name = "jupyter nslab" if os.path.basename(sys.argv[0]) == "jupyter-nslab" else "nslab"
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a sign is shown its code
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")
    app = typer.Typer(
        help="Build Linux isolation by hand, on the real kernel.", no_args_is_help=True, pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    app.callback()(_options)
    completed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")  # of bash, of others
    asked = next((word for word in completed.split()[1:] or sys.argv[1:] if not word.startswith("-")), "")
    for verb in (asked,) if asked in VERBS else VERBS:
        # A command begins at its first word that is no option: what follows belongs to it.
        loaded = _load(verb)
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=verb)
        else:
            app.command(verb, context_settings={"allow_interspersed_args": verb not in ("run", "exec")})(loaded)
    try:
        app(prog_name=name)
    except NslabError as error:
        from nslab.cli.common import status

        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(status(error) if asked in ("run", "exec", "vm") else 1)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"nslab {__version__}")
        raise typer.Exit()


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Build Linux isolation by hand, on the real kernel."""


def _load(verb: str) -> Callable[..., Any] | typer.Typer:
    match verb:
        case "course":
            from nslab.cli.course import course

            return course
        case "doctor":
            from nslab.cli.doctor import doctor

            return doctor
        case "down":
            from nslab.cli.down import down

            return down
        case "draw":
            from nslab.cli.draw import draw

            return draw
        case "exec":
            from nslab.cli.exec import exec_

            return exec_
        case "ls":
            from nslab.cli.ls import ls

            return ls
        case "diff":
            from nslab.cli.diff import diff

            return diff
        case "tree":
            from nslab.cli.tree import tree

            return tree
        case "watch":
            from nslab.cli.watch import watch

            return watch
        case "ping":
            from nslab.cli.ping import ping

            return ping
        case "up":
            from nslab.cli.up import up

            return up
        case "vm":
            from nslab.cli.vm import app

            return app
        case _:
            from nslab.cli.run import run

            return run
