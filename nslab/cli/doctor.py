"""nslab doctor: what this machine allows."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nslab.cli import common
from nslab.machines import doctor as examine
from nslab.machines.report import COLOURS


def doctor(as_json: common.Json = False) -> None:
    """Say what this machine allows, and the command that lifts what it does not. Status 1 when no isolation works at all."""
    report = examine()
    if as_json:
        print(report.to_json())
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for check in report:
            remedy = f"\n[italic]what to do:[/] {escape(check.remedy)}" if check.remedy else ""
            mark = f"[bold {COLOURS[check.status]}]{check.status}[/]"
            table.add_row(mark, check.name, escape(check.finding) + remedy)
        Console().print(table)
    raise typer.Exit(0 if report.works else 1)
