"""Namespaces on the command line: filtered, in columns, as JSON; snapshots that were saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from nslab.cli import common
from nslab.errors import SpecError
from nslab.model import KINDS, NamespaceId
from nslab.model.plain import to_plain
from nslab.model.snapshot import SeenNamespace, Snapshot, held_by
from nslab.model.words import readable

Column = Callable[[Snapshot, SeenNamespace], str]


def _inode(identity: NamespaceId | None) -> str:
    return str(identity.ino) if identity else "-"


def _leader(snapshot: Snapshot, each: SeenNamespace) -> str:
    process = snapshot.by_pid.get(each.leader)
    return f"{process.pid} {process.title()}" if process else "-"


COLUMNS: Mapping[str, Column] = {
    "kind": lambda _, each: each.kind,
    "inode": lambda _, each: str(each.id.ino),
    "number": lambda _, each: str(each.number),
    "owner": lambda _, each: _inode(each.owner),
    "uid": lambda _, each: "-" if each.owner_uid is None else str(each.owner_uid),
    "parent": lambda _, each: _inode(each.parent),
    "members": lambda _, each: str(len(each.members)),
    "leader": _leader,
    "belongs": lambda _, each: each.belongs or "-",
    "held": lambda _, each: held_by(each.holders) or "-",
}
_LONG = ("leader", "belongs", "held")  # that may be folded; what is cut off a number makes another one
_MOST = 500  # columns that a terminal may have
_USUAL = "kind,inode,owner,members,belongs,held,leader"


def show(snapshot: Snapshot, kinds: Iterable[str], of: str, columns: str, as_json: bool) -> None:
    """A table or JSON of those of these kinds (none: of all) that belong to somebody whose name has ``of`` in it."""
    if unknown := set(kinds) - set(KINDS):
        raise SpecError("--kind", f"{', '.join(sorted(unknown))}: none of {', '.join(KINDS)}")
    names = [name for word in (columns or _USUAL).split(",") if (name := word.strip())]
    if unknown := set(names) - set(COLUMNS):
        raise SpecError("--columns", f"{', '.join(sorted(unknown))}: none of {', '.join(COLUMNS)}")
    found = [each for each in snapshot.namespaces if each.kind in (set(kinds) or KINDS) and of in each.belongs]
    if as_json:
        print(json.dumps(plain(snapshot, found), indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=name not in _LONG, overflow="fold")
    for each in found:
        table.add_row(*(escape(readable(COLUMNS[name](snapshot, each))) for name in names))
    console = common.console()
    least = Measurement.get(console, console.options.update(max_width=_MOST), table).minimum
    console.width = max(console.width, least if found else 0)  # else Rich leaves columns out
    console.print(table if found else "no such namespace")
    for unseen in snapshot.unseen:
        console.print(f"not seen: {escape(readable(str(unseen)))}")


def plain(snapshot: Snapshot, found: Iterable[SeenNamespace] | None = None) -> dict[str, Any]:
    """Those found, or all, and what was not seen."""
    chosen = snapshot.namespaces if found is None else found
    return {"namespaces": [to_plain(each) for each in chosen], "unseen": [to_plain(each) for each in snapshot.unseen]}


def read(argument: str, file: Path) -> Snapshot:
    """A snapshot that was saved; SpecError when there is none in it."""
    try:
        return Snapshot.from_json(file.read_text())
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(argument, f"{file} has no snapshot of nslab: {error}; make one by nslab ls --save FILE") from None
