"""nslab ls: the containers that are running, and the labs that are up."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nslab import procfs
from nslab.cli import common, spaces
from nslab.container.listing import Listed, listed
from nslab.labs.places import held
from nslab.model.words import readable
from nslab.observe import discover


def ls(
    every: Annotated[bool, typer.Option("--namespaces", "-n", help="Every namespace of this machine instead.")] = False,
    kind: Annotated[list[str] | None, typer.Option("--kind", "-k", help="Namespaces of this kind. Repeatable.")] = None,
    of: Annotated[str, typer.Option(help="Namespaces of whom: part of what stands below 'belongs to'.")] = "",
    columns: Annotated[str, typer.Option(help=f"Of namespaces, with commas: {', '.join(spaces.COLUMNS)}.")] = "",
    save: Annotated[Path | None, typer.Option(help="Write a snapshot of all there, for nslab diff and nslab draw.")] = None,
    as_json: common.Json = False,
) -> None:
    """List the containers of every notebook and program of this user (for root: of everybody), and the labs of nslab up.

    With --json also every namespace that can be seen.
    """
    if save:
        text = discover().to_json()
        with common.writing("--save", save):
            save.write_text(text)
    elif every or kind or of or columns:
        spaces.show(discover(contents=False), kind or (), of, columns, as_json)
    else:
        _running(as_json)


def _running(as_json: bool) -> None:
    containers, up = listed(), held()
    if as_json:
        found = spaces.plain(discover(contents=False))
        print(json.dumps({"containers": [asdict(container) for container in containers], "labs": up, **found}, indent=2))
        return
    table = Table("name", "PID", "its own", "hardened", "age", "made by", box=None, pad_edge=False)
    for each in containers:
        table.add_row(
            escape(readable(each.name)) or "-", str(each.pid), " ".join(each.kinds) or "nothing",
            "yes" if each.hardened else "no", _age(time.time() - each.started), escape(readable(_maker(each))),
        )  # fmt: skip
    console = common.console()
    console.print(table if containers else "no container is running")
    if up:
        console.print()
        console.print(_labs(up))


def _labs(up: list[dict[str, Any]]) -> Table:
    table = Table("lab", "PID", "nodes", "links", "age", "file", box=None, pad_edge=False)
    for lab in up:
        age = _age(time.time() - lab["started"]) if lab["running"] else "being deployed"
        nodes = escape(", ".join(lab["nodes"]))
        table.add_row(escape(lab["name"]), str(lab["pid"]), nodes, str(lab["links"]), age, escape(readable(lab["file"])))
    return table


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _maker(container: Listed) -> str:
    try:
        return f"{procfs.stat(container.owner).name}, PID {container.owner}"
    except OSError:
        return f"PID {container.owner}"
