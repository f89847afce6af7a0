"""Who owns what: the tree of user namespaces, with the namespaces that each owns."""

from __future__ import annotations

from collections.abc import Sequence

import graphviz

from nslab.model import NamespaceId
from nslab.model.snapshot import SeenNamespace, Snapshot, held_by
from nslab.render import style
from nslab.render.folding import MOST, names
from nslab.render.owners_folding import Shown
from nslab.render.picture import Picture, text_table
from nslab.render.who import whose

ABOUT = (
    "Each house is a user namespace. A thick line leads to its children, a thin one to what it owns: who is root in "
    "the house has all rights over them."
)


def owners(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """Every namespace of a snapshot below its owner. Past ``most``, what is alike is folded; None draws each."""
    graph = style.digraph(rankdir="LR", ranksep="0.6", nodesep="0.08")
    shown = Shown(snapshot, most)
    if [each for each in shown.owned.get(None, ()) if each.id in shown.left or each.id in shown.more]:
        graph.node("unseen", style.label("an owner out of sight"), shape="house", style="dashed", tooltip=" ")
    todo: list[NamespaceId | None] = [None]
    for above in todo:  # grows while it is walked
        for each in [*shown.owned.get(above, ()), *shown.children.get(above, ())]:
            if not (each.id in shown.left or each.id in shown.more):
                continue
            _node(graph, snapshot, shown, each)
            if above or each.kind != "user":
                look = {"penwidth": "3"} if each.kind == "user" else {"arrowhead": "none", "penwidth": "1.2"}
                graph.edge(_name(above) if above else "unseen", _name(each.id), **look)
            todo += [each.id] if each.kind == "user" and each.id in shown.left else []
    if shown.rest:
        which = style.tooltip(names([_title(snapshot, each) for each in shown.rest]))
        whom = ", ".join(dict.fromkeys(whose(snapshot, each) for each in shown.rest))
        head = style.label(f"{len(shown.rest)} more namespaces", whom)
        graph.node("rest", head, shape="box", peripheries="2", tooltip=which)
        for above in dict.fromkeys(each.parent if each.kind == "user" else each.owner for each in shown.rest):
            if above in shown.left:
                graph.edge(_name(above), "rest", style="dashed", arrowhead="none")
    rows = _rows(snapshot)
    return Picture(title or f"Who owns what: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT)


def _node(graph: graphviz.Digraph, snapshot: Snapshot, shown: Shown, one: SeenNamespace) -> None:
    group = shown.more.get(one.id)
    if group:
        below = " ".join(dict.fromkeys(each.kind for each in shown.owned.get(one.id, ()))) if one.kind == "user" else ""
        which = names([_title(snapshot, each) for each in group])
        note = f"each owns {below}" if below else ""
        style.folded_node(graph, _name(one.id), one.kind, f"{len(group)} more", which, note)
    else:
        alive = f"{len(one.members)} members" if one.members else f"held by {held_by(one.holders)}"
        style.namespace_node(graph, _name(one.id), one.kind, one.id.ino, whose(snapshot, one), more=alive)


def _title(snapshot: Snapshot, namespace: SeenNamespace) -> str:
    return f"{namespace} {whose(snapshot, namespace)}".strip()


def _name(identity: NamespaceId) -> str:
    return f"n_{identity.dev}_{identity.ino}"


def _rows(snapshot: Snapshot) -> list[Sequence[str]]:
    """Depth first, each user namespace with what it owns below it."""
    rows: list[Sequence[str]] = [("namespace", "owner", "whose", "members", "held by")]
    whole = Shown(snapshot, None)
    todo = [(0, each) for each in [*whole.owned.get(None, ()), *whole.children.get(None, ())][::-1]]
    while todo:
        depth, each = todo.pop()
        owner = f"user:[{each.owner.ino}]" if each.owner else "-"
        rows.append(("  " * depth + str(each), owner, whose(snapshot, each), str(len(each.members)), held_by(each.holders)))
        if each.kind == "user":
            below = [*whole.owned.get(each.id, ()), *whole.children.get(each.id, ())]
            todo += [(depth + 1, child) for child in below[::-1]]
    return rows
