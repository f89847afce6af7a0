"""%ns and %%ns: cells that run inside a container. Loaded by ``%load_ext nslab``."""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from nslab.container import Container, live
from nslab.errors import CommandError, CommandTimeout, SyscallError
from nslab.namespaces import Process, Result
from nslab.namespaces.entering import Enterable

# Whatever runs commands somewhere: by this a name can be meant.
Place = Container | Process | Enterable

# The text is for bash; where there is none, as in a small root filesystem, for sh.
SHELL = ("/bin/sh", "-c", 'command -v bash >/dev/null && exec bash -c "$0"; exec sh -c "$0"')
PYTHON = ("python3", "-u", "-c")  # -u: what it prints is shown as it comes


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the cell instead of ending the notebook."""

    def error(self, message: str) -> Any:
        raise UsageError(f"%%ns: {message}\n{self.format_usage().rstrip()}")


def _parser() -> _Parser:
    parser = _Parser("%%ns", add_help=False, allow_abbrev=False, description="Run this cell inside a container.")
    parser.add_argument(
        "name", nargs="?", help="the container or node: its name, or a variable that holds one, a process or a namespace"
    )
    parser.add_argument(
        "--python", action="store_true", help="the cell is Python, for a new interpreter inside; else it is bash"
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end it then, with CommandTimeout")
    parser.add_argument("--expect-fail", action="store_true", help="the cell must end with a status other than 0")
    parser.add_argument("--user", help="as whom: a name of the machine or a number")
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    return parser


OPTIONS = ("--python", "--timeout", "--expect-fail", "--user", "--help")


@magics_class
class NamespaceMagics(Magics):
    """The two magics. A container is found by its name, or by the variable that holds it."""

    @line_magic
    def ns(self, line: str) -> Any:
        """``%ns`` lists the containers that live here, ``%ns NAME`` shows one, ``%ns NAME COMMAND`` runs a command inside.

        Its output is shown as it comes; a status other than 0 is an error. For more than a line there is %%ns.
        """
        name, _, command = line.strip().partition(" ")
        if not name:
            return sorted((container for container in live.values() if container.alive), key=lambda container: container.name)
        if name in ("-h", "--help"):
            print(NamespaceMagics.ns.__doc__)
            return None
        place = self.find(name)
        if not command.strip():
            return place
        self.succeeded(run_cell(place, [*SHELL, command]))
        return None

    @cell_magic("ns")  # type: ignore[arg-type]  # a decorator with an argument, typed as one without
    def ns_cell(self, line: str, cell: str) -> None:
        """``%%ns NAME``: the cell is bash, run inside; its output is shown as it comes, a status other than 0 is an error.

        --python: the cell is Python, for a new interpreter inside. --timeout SECONDS: end it then. --expect-fail: the cell must
        end with a status other than 0. --user NAME. The stop button ends what the cell has started.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"%%ns: {error}") from None
        options = _parser().parse_args(words)
        if options.help:
            print(_parser().format_help())
            return
        if options.name is None:
            _parser().error(f"which container? There are: {self.known()}")
        more: dict[str, Any] = {"user": int(options.user) if options.user.isdigit() else options.user} if options.user else {}
        command = [*(PYTHON if options.python else SHELL), cell]
        place = self.find(options.name)
        if more and isinstance(place, Process):
            raise UsageError("%%ns: a steered process runs commands as who it is; setids() makes it another user")
        result = run_cell(place, command, timeout=options.timeout, **more)
        if not options.expect_fail:
            self.succeeded(result)
        elif result.returncode == 0:
            raise CommandError("the cell was expected to fail, and did not", result)
        else:
            print(f"failed, as expected, with status {result.returncode}")

    def succeeded(self, result: Result) -> None:
        if result.returncode != 0:
            raise CommandError(f"it ended with status {result.returncode}", result)

    def find(self, name: str) -> Place:
        """What is meant by this name or variable; UsageError that names what there is."""
        held = self.shell.user_ns.get(name) if self.shell else None
        if isinstance(held, Place) and (held.alive or name not in live):
            return held
        if name in live:
            return live[name]
        if name in (found := nodes()):
            return found[name]
        if held is not None:
            raise UsageError(f"{name!r} is {type(held).__name__}, nothing to run a cell in; there are: {self.known()}")
        close = difflib.get_close_matches(name, names(self.shell), 1)
        guess = f"; did you mean {close[0]!r}?" if close else f"; there are: {self.known()}"
        raise UsageError(f"there is no container or node {name!r} here{guess}")

    def known(self) -> str:
        return ", ".join(names(self.shell)) or "none"


def names(shell: Any) -> list[str]:
    """The names of containers and nodes that have not ended, and of the variables that hold something to run commands in."""
    held = {name: value for name, value in shell.user_ns.items() if not name.startswith("_")} if shell else {}
    return sorted(name for name, place in {**nodes(), **held, **live}.items() if isinstance(place, Place) and place.alive)


def nodes() -> dict[str, Enterable]:
    """The nodes of the labs that run here, by name; of two of one name that of the lab that was deployed last."""
    topology = sys.modules.get("nslab.topology.lab")  # without which there is no lab
    labs = topology.running() if topology else []
    return {node.name: node for lab in labs for node in lab.topology if node.alive}


def run_cell(place: Place, command: list[str], *, timeout: float | None = None, **options: Any) -> Result:
    """Run it, shown as it comes; where an error would show the words around the cell it speaks of the cell."""
    try:
        return place.run(command, timeout=timeout, stream=True, **options)
    except CommandTimeout as error:
        raise CommandTimeout(f"the cell was still running after {timeout:g} s, and was ended", error.result) from None
    except SyscallError as error:
        if error.call in ("posix_spawn", "execve"):
            error.args = (*error.args[:1], "the cell")
        raise


def complete_names(shell: Any, event: Any) -> list[str]:
    """Tab after %ns or %%ns: names, and the options of %%ns."""
    words = event.text_until_cursor.split()
    if event.symbol.startswith("-"):
        return list(OPTIONS) if words[0] == "%%ns" else []
    named = [word for word in words[1:] if not word.startswith("-") and word != event.symbol]
    return [] if named else names(shell)


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext nslab``."""
    shell.register_magics(NamespaceMagics)
    for key in ("%ns", "%%ns"):
        shell.set_hook("complete_command", complete_names, str_key=key)
