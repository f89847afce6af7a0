"""nslab course: its units, run; and which facts they show."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.syntax import Syntax
from rich.table import Table

from nslab.cli import common
from nslab.lessons.course import LEVELS, Course, Unit

if TYPE_CHECKING:
    from nslab.lessons.executing import Outcome

course = typer.Typer(help="The notebooks of the course: run them, and see which facts they show.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Option(help="Where the notebooks are, when that is not here.")]
Units = Annotated[list[str] | None, typer.Argument(metavar="[UNIT]...", help="02, pid or 02-pid; all when none is named.")]


@course.command()
def run(
    units: Units = None,
    kernel: Annotated[str, typer.Option(help="An installed kernel, as nslab-own-kernel; else one of this Python.")] = "",
    folder: Folder = None,
    as_json: common.Json = False,
) -> None:
    """Run units from top to bottom, each in a kernel of its own: a table of units, seconds and facts.

    Status 1 when one fails; the cell in which it failed is shown. Where nothing is allowed, cells show what was recorded.
    """
    with _runner(kernel) as execute:
        outcomes = [execute(unit) for unit in Course.find(folder).choose(units or ())]
    if as_json:
        print(json.dumps([outcome.to_dict() for outcome in outcomes], indent=2))
    else:
        _show(outcomes)
    raise typer.Exit(1 if any(outcome.failure for outcome in outcomes) else 0)


@course.command()
def book(
    units: Units = None,
    to: Annotated[Path, typer.Option(help="The folder that gets it; what was there is replaced.")] = Path("build/book"),
    folder: Folder = None,
) -> None:
    """Run the course and make a book of it: pages with all outputs, for a browser, which need no network.

    Status 1 when a unit fails; the cell in which it failed is shown, and no book is made.
    """
    from nslab.lessons.book import build

    found = Course.find(folder)
    with _runner() as execute:
        outcomes = build(found, found.choose(units or ()), execute, to)
    _show(outcomes)
    if any(outcome.failure for outcome in outcomes):
        raise typer.Exit(1)
    print(f"\nopen {to / 'index.html'}")


@course.command()
def coverage(folder: Folder = None, as_json: common.Json = False) -> None:
    """Say how many facts the cells of the course show on the kernel, by kind, and which are missing."""
    found = Course.find(folder).coverage()
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    table = Table("kind", box=None, pad_edge=False)
    for level in LEVELS:
        table.add_column(level, justify="right")
    for kind in ("", *found.kinds):
        counts = (found.of(level, kind) for level in LEVELS)
        table.add_row(kind or "all", *(f"{shown} of {total}" if total else "" for shown, total in counts))
    Console().print(table)
    for level in LEVELS:
        missing = Table("", "", box=None, pad_edge=False, show_header=False)
        for fact in found.missing(level):
            missing.add_row(fact.id, escape(fact.statement))
        if missing.row_count:
            Console().print(f"\n{level}, shown by no cell:")
            Console().print(missing)
    if found.unknown:
        print(f"\nin cells, but not in the table of facts: {', '.join(found.unknown)}")


@contextlib.contextmanager
def _runner(kernel: str = "") -> Iterator[Callable[[Unit], Outcome]]:
    """What runs a unit, with a bar for its cells in a terminal."""
    from nslab.lessons.executing import execute

    errors = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:

        def run(unit: Unit) -> Outcome:
            task = progress.add_task(unit.name)
            outcome = execute(
                unit, kernel=kernel, progress=lambda done, all_: progress.update(task, completed=done, total=all_)
            )
            progress.remove_task(task)
            return outcome

        yield run


def _show(outcomes: Sequence[Outcome]) -> None:
    table = Table("unit", "question", box=None, pad_edge=False)
    for header in ("s", "facts"):
        table.add_column(header, justify="right")
    table.add_column()
    for outcome in outcomes:
        unit, recorded = outcome.unit, f"[yellow]{outcome.recorded} cells shown from recordings[/]" if outcome.recorded else ""
        mark = "[red]failed[/]" if outcome.failure else escape(outcome.impossible) or recorded or "[green]ok[/]"
        proven = "" if outcome.recorded else str(len(unit.facts) or "")  # what is shown from recordings proves nothing here
        table.add_row(unit.name, escape(unit.title), f"{outcome.seconds:.1f}", proven, mark)
    facts = {fact for outcome in outcomes if not outcome.recorded for fact in outcome.unit.facts}
    table.add_row("", "", f"{sum(outcome.seconds for outcome in outcomes):.1f}", str(len(facts)), "")
    Console().print(table)
    if any(outcome.recorded for outcome in outcomes):
        print("\nThis machine allows no namespaces: such cells were not run. nslab doctor says what to do about it.")
    for outcome in outcomes:
        if failure := outcome.failure:
            code = Syntax(failure.source, "python", theme="ansi_light", background_color="default")
            Console().print(Panel(code, title=f"{outcome.unit.name}, code cell {failure.cell}", title_align="left"))
            print(failure.message)
