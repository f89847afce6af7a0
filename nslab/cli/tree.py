"""nslab tree: user namespaces and what each owns, or PID namespaces and who is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

from nslab.cli import common
from nslab.errors import SpecError
from nslab.model.snapshot import SeenNamespace, Snapshot, held_by
from nslab.model.words import readable
from nslab.observe import discover

Leaves = Callable[[Snapshot, SeenNamespace], list[str]]


def tree(
    kind: Annotated[str, typer.Argument(help="user: with what each owns; pid: with its processes.")] = "user",
    as_json: common.Json = False,
) -> None:
    """Print the tree of user or PID namespaces, with what is in each: nslab tree; nslab tree pid"""
    leaves: dict[str, Leaves] = {"user": _owned, "pid": _processes}
    if kind not in leaves:
        raise SpecError("KIND", f"{kind!r} is neither user nor pid: only these have parents")
    snapshot = discover(contents=False)
    known = {each.id for each in snapshot.of_kind(kind)}
    tops = [each for each in snapshot.of_kind(kind) if each.parent not in known]
    if as_json:
        print(json.dumps([_plain(snapshot, each, leaves[kind]) for each in tops], indent=2))
        return
    console = common.console()
    for each in tops:
        console.print(_branch(snapshot, each, leaves[kind]))
    for unseen in snapshot.unseen:
        console.print(f"not seen: {escape(readable(str(unseen)))}")


def _branch(snapshot: Snapshot, namespace: SeenNamespace, leaves: Leaves) -> Tree:
    made = Tree(escape(_title(namespace)))
    for leaf in leaves(snapshot, namespace):
        made.add(escape(leaf))
    for child in snapshot.below(namespace.id):
        made.add(_branch(snapshot, child, leaves))
    return made


def _plain(snapshot: Snapshot, namespace: SeenNamespace, leaves: Leaves) -> dict[str, Any]:
    below = [_plain(snapshot, each, leaves) for each in snapshot.below(namespace.id)]
    return {"namespace": str(namespace), "belongs": namespace.belongs, "holds": leaves(snapshot, namespace), "children": below}


def _owned(snapshot: Snapshot, namespace: SeenNamespace) -> list[str]:
    return [_title(each) for each in snapshot.owned_by(namespace.id)]


def _processes(snapshot: Snapshot, namespace: SeenNamespace) -> list[str]:
    found = [snapshot.by_pid[pid] for pid in namespace.members]
    return [readable(f"{'/'.join(map(str, each.pids))} {each.title()}") for each in found if not each.kernel]


def _title(namespace: SeenNamespace) -> str:
    count = len(namespace.members)
    said = [f"{count} member{'s' * (count != 1)}", namespace.belongs, "" if namespace.members else held_by(namespace.holders)]
    return readable(f"{namespace}  {', '.join(filter(None, said))}")
