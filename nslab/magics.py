"""%ns and %%ns: cells that run inside a container. Loaded by ``%load_ext nslab``."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from nslab.container import Container, live
from nslab.errors import CommandError
from nslab.namespaces import Result


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the cell instead of ending the notebook."""

    def error(self, message: str) -> Any:
        raise UsageError(f"%%ns: {message}\n{self.format_usage()}")


def _parser() -> _Parser:
    parser = _Parser("%%ns", add_help=False)
    parser.add_argument("name", help="the container: its name, or a variable that holds it")
    parser.add_argument("--python", action="store_true", help="the cell is Python, in a new interpreter inside")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end it then")
    parser.add_argument("--expect-fail", action="store_true", help="the cell must end with a status other than 0")
    parser.add_argument("--user", help="as whom")
    return parser


@magics_class
class NamespaceMagics(Magics):
    """The two magics. A container is found by its name, or by the variable that holds it."""

    @line_magic
    def ns(self, line: str) -> Any:
        """``%ns`` lists the containers that live here; ``%ns NAME COMMAND`` runs one command inside."""
        name, _, command = line.strip().partition(" ")
        if not name:
            return sorted(live.values(), key=lambda container: container.name)
        return self.find(name).run(["/bin/bash", "-c", command], stream=True) if command else self.find(name)

    @cell_magic("ns")  # type: ignore[arg-type]  # a decorator with an argument, typed as one without
    def ns_cell(self, line: str, cell: str) -> Result | None:
        """``%%ns NAME``: the cell is bash, run inside; a status other than 0 is an error.

        --python: the cell is Python. --timeout SECONDS. --expect-fail: the cell must fail. --user NAME.
        """
        options = _parser().parse_args(shlex.split(line))
        command = ["python3", "-"] if options.python else ["/bin/bash", "-s"]
        container = self.find(options.name)
        result = container.run(command, input=cell, timeout=options.timeout, user=options.user, stream=True)
        if options.expect_fail:
            if result.returncode == 0:
                raise CommandError("the cell was expected to fail, and did not", result)
            print(f"failed, as expected, with status {result.returncode}")
        elif result.returncode != 0:
            raise CommandError(f"the cell ended with status {result.returncode}", result)
        return None

    def find(self, name: str) -> Container:
        """The container of this name or variable; UsageError that names those that there are."""
        held = self.shell.user_ns.get(name) if self.shell else None
        if isinstance(held, Container):
            return held
        if name in live:
            return live[name]
        raise UsageError(f"there is no container {name!r} here; there are: {', '.join(sorted(live)) or 'none'}")


def complete_names(shell: Any, event: Any) -> list[str]:
    """Tab after %ns or %%ns: the names of the containers, and of the variables that hold one."""
    held = [name for name, value in shell.user_ns.items() if isinstance(value, Container) and not name.startswith("_")]
    return sorted({*live, *held})


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext nslab``."""
    shell.register_magics(NamespaceMagics)
    for key in ("%ns", "%%ns"):
        shell.set_hook("complete_command", complete_names, str_key=key)
