"""nslab draw: a picture of the namespaces of this machine, of a snapshot that was saved, or of a lab."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nslab.cli import common, labs
from nslab.errors import SpecError
from nslab.labs.attached import attach
from nslab.labs.places import held
from nslab.model.difference import Difference
from nslab.model.snapshot import Snapshot
from nslab.observe import discover
from nslab.render import VIEWS, Picture
from nslab.render import draw as picture_of
from nslab.render.folding import MOST
from nslab.topology import Topology


def draw(
    what: Annotated[
        str | None,
        typer.Argument(
            help="Instead of this moment: a lab that is up, a topology (FILE.yaml), a snapshot or difference in JSON.",
            autocompletion=labs.names,
        ),
    ] = None,
    view: Annotated[str, typer.Option("--view", "-v", help=f"One of {', '.join(VIEWS)}.")] = "",
    of: Annotated[str, typer.Option(help="Only what this container, or the process with this PID, has to do with.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to: .svg, .png, .dot or .txt; else text.")
    ] = None,
    most: Annotated[int, typer.Option(min=0, help="Nodes past which what is alike is folded; 0 draws each.")] = MOST,
    title: Annotated[str, typer.Option(help="Instead of its own.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Its table, as a list of objects; of a lab, all that it comes to.")
    ] = False,
) -> None:
    """Draw who owns what, who shares what, processes, PIDs, ids, mounts, one container, or a lab: nslab draw -o map.svg"""
    with contextlib.ExitStack() as attached:
        lab = _lab(what, attached)
        if lab and (view or of):
            here = f"nslab draw --of {lab.name or 'NAME'} --view {view or 'owners'}"
            raise SpecError("--view" if view else "--of", f"a lab has one picture. Its namespaces while it is up: {here}")
        if lab:
            made = lab.draw(title=title, fold=None if most else False)
            told = asdict(lab.resolve())
        else:
            thing = discover() if what is None else _read(Path(what))
            made = picture_of(thing, view=view, of=int(of) if of.isdigit() else of, title=title, most=most or None)
    if output:
        with common.writing("--output", output):
            made.save(output)
    if as_json and lab:
        print(json.dumps(told, indent=2))
    elif as_json:
        head, *rows = made.rows
        print(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
    elif not output:
        print(_as_text(made))


def _lab(what: str | None, attached: contextlib.ExitStack) -> Topology | None:
    """The topology of a file, or of the lab of this name while ``attached``; None for what is something else."""
    if what is None or Path(what).is_file() or Path(what).suffix in (".yaml", ".yml"):
        return Topology.read(what) if what and Path(what).suffix in (".yaml", ".yml") else None
    if what not in [lab["name"] for lab in held()]:
        return None
    return attached.enter_context(attach(what)).topology


def _as_text(picture: Picture) -> str:
    return picture._repr_mimebundle_()["text/plain"]


def _read(file: Path) -> Snapshot | Difference:
    try:
        text = file.read_text()
        return Snapshot.from_json(text) if '"namespaces"' in text else Difference.from_json(text)
    except FileNotFoundError:
        raise SpecError("WHAT", f"{file} is neither a file nor a lab that is up") from None
    except (OSError, ValueError, TypeError) as error:
        raise SpecError("file", f"{file} has no snapshot and no difference of nslab: {error}") from None
