"""nslab draw: a picture of the namespaces of this machine, or of a snapshot that was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nslab.errors import SpecError
from nslab.model.difference import Difference
from nslab.model.snapshot import Snapshot
from nslab.observe import discover
from nslab.render import VIEWS, Picture
from nslab.render import draw as picture_of
from nslab.render.folding import MOST


def draw(
    file: Annotated[Path | None, typer.Argument(help="A snapshot or difference in JSON, instead of this moment.")] = None,
    view: Annotated[str, typer.Option("--view", "-v", help=f"One of {', '.join(VIEWS)}.")] = "",
    of: Annotated[str, typer.Option(help="Only what this container, or the process with this PID, has to do with.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to: .svg, .png, .dot or .txt; else text.")
    ] = None,
    most: Annotated[int, typer.Option(help="Nodes past which what is alike is folded; 0 draws each.")] = MOST,
    title: Annotated[str, typer.Option(help="Instead of its own.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Its table, as a list of objects.")] = False,
) -> None:
    """Draw who owns what, who shares what, processes, PIDs, ids, mounts, or one container: nslab draw -o map.svg"""
    thing = discover() if file is None else _read(file)
    made = picture_of(thing, view=view, of=int(of) if of.isdigit() else of, title=title, most=most or None)
    if output:
        made.save(output)
    if as_json:
        head, *rows = made.rows
        print(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
    elif not output:
        print(_as_text(made))


def _as_text(picture: Picture) -> str:
    return picture._repr_mimebundle_()["text/plain"]


def _read(file: Path) -> Snapshot | Difference:
    try:
        text = file.read_text()
        return Snapshot.from_json(text) if '"namespaces"' in text else Difference.from_json(text)
    except (OSError, ValueError, TypeError) as error:
        raise SpecError("file", f"{file} has no snapshot and no difference of nslab: {error}") from None
