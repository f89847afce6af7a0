"""nslab exec: one command in a container or a node of a lab."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from nslab.cli import common, labs
from nslab.container import listing
from nslab.errors import SpecError
from nslab.labs.places import held
from nslab.model.words import readable
from nslab.namespaces import Result


def exec_(
    name: Annotated[
        str,
        typer.Argument(
            help="A container, by its name or PID as nslab ls shows it, or a node: NODE or LAB/NODE.",
            autocompletion=labs.places,
        ),
    ],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", show_default=False)],
    env: common.Env = [],  # noqa: B006
    cwd: common.Cwd = None,
    user: common.User = None,
    timeout: common.Timeout = None,
    tty: common.Tty = None,
    trace: common.Steps = False,
    shell: common.Script = False,
) -> None:
    """Run a command inside a container of any notebook or program of this user (for root: of anybody), or in a node of a lab.

    Standard streams, signals and the exit status are passed on: nslab exec web -- ping -c1 db
    """
    if command[:1] == ["--"]:  # between the name and the command
        command = command[1:]
    with common.starting(command, cwd, trace, shell):
        result = _run(name, command, common.streams(env, cwd, user, timeout, tty))
    common.finish(result)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Somewhere to run a command: a container, a node of a lab, or both; ``words`` tell it from others of its name."""

    words: str
    container: listing.Listed | None
    lab: str = ""
    node: str = ""

    def names(self) -> list[str]:
        """All that it may be called."""
        own = [self.container.name, str(self.container.pid)] if self.container else []
        return own + ([self.node, self.words] if self.lab else [])


def _run(name: str, command: list[str], options: dict[str, Any]) -> Result:
    place = _find(name)
    if not place.lab:
        assert place.container
        return listing.enter(place.container, command, **options)
    from nslab.labs.attached import attach

    with attach(place.lab) as lab:
        if not place.container:
            return lab[place.node].run(command, attach=True, **options)
        inside = () if "mnt" in place.container.kinds else lab.inside()
        return listing.enter(place.container, command, inside=inside, **options)


def _find(name: str) -> _Place:
    """The one place of this name; SpecError when there is none, or more than one."""
    containers, up = listing.listed(), held()
    inits = {(each.owner, each.name): each for each in containers}
    nodes = [
        _Place(f"{lab['name']}/{node}", inits.get((lab["pid"], node)), lab["name"], node)
        for lab in up for node in lab["nodes"]
    ]  # fmt: skip
    of_nodes = {place.container.pid for place in nodes if place.container}
    others = [_Place(f"{readable(each.name)!r}, PID {each.pid}", each) for each in containers if each.pid not in of_nodes]
    found = [place for place in nodes + others if name in place.names()]
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError("name", f"{name!r} may be {' or '.join(each.words for each in found)}: say which, by PID or LAB/NODE")
    names = sorted({readable(each.name) or str(each.pid) for each in containers if each.pid not in of_nodes})
    there = [f"containers {', '.join(names)}"] if names else []
    there += [f"the lab {lab['name']!r} with {_some(list(lab['nodes']))}" for lab in up]
    raise SpecError("name", f"there is no container {name!r}, and no node; there are: {'; '.join(there) or 'none'}")


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
