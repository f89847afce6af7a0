"""Who owns what: the tree of user namespaces, with the namespaces that each owns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import graphviz

from nslab.model import NamespaceId
from nslab.model.snapshot import SeenNamespace, Snapshot, held_by
from nslab.render import style
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table
from nslab.render.who import whose

ABOUT = (
    "Each house is a user namespace. A thick line leads to its children, a thin one to what it owns: who is root in "
    "the house has all rights over them."
)


def owners(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """Every namespace of a snapshot below its owner. Past ``most``, what is alike is folded; None draws each."""
    graph = style.digraph(rankdir="LR", ranksep="0.6", nodesep="0.08")
    users = [each for each in snapshot.of_kind("user") if each.parent not in snapshot.by_id]
    known = {each.id for each in snapshot.of_kind("user")}
    astray = [each for each in snapshot.namespaces if each.kind != "user" and each.owner not in known]
    shape = _Tree(snapshot, most)
    for user in users:
        shape.add(graph, user)
    if astray:
        graph.node("unseen", style.label("an owner out of sight"), shape="house", style="dashed", tooltip=" ")
        shape.owned(graph, "unseen", astray)
    rows = _rows(snapshot)
    return Picture(title or f"Who owns what: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT)


class _Tree:
    """The nodes that were decided on: what is folded is decided for the whole picture."""

    def __init__(self, snapshot: Snapshot, most: int | None):
        self.snapshot = snapshot
        self.groups = fold(snapshot.namespaces, self._alike, most)
        self.hidden = {each.id for group in self.groups for each in group[1:]}
        self.group = {group[0].id: group for group in self.groups}

    def _alike(self, namespace: SeenNamespace) -> tuple[object, ...]:
        """Of one kind, below owners that are alike: ten containers of the same kinds are."""
        return (namespace.kind, *self._place(namespace))

    def _place(self, namespace: SeenNamespace) -> tuple[object, ...]:
        if namespace.kind == "user":
            return (namespace.parent, tuple(sorted(each.kind for each in self.snapshot.owned_by(namespace.id))))
        owner = self.snapshot.by_id.get(namespace.owner) if namespace.owner else None
        return self._place(owner) if owner and owner.id not in self.snapshot.machine.values() else (namespace.owner,)

    def add(self, graph: graphviz.Digraph, user: SeenNamespace) -> None:
        """A user namespace, what it owns, and those below it."""
        todo = [user]
        while todo:
            one = todo.pop()
            if one.id in self.hidden:
                continue
            self.node(graph, one)
            self.owned(graph, _name(one.id), self.snapshot.owned_by(one.id))
            for child in self.snapshot.below(one.id):
                if child.kind == "user" and child.id not in self.hidden:
                    graph.edge(_name(one.id), _name(child.id), penwidth="3")
                    todo.append(child)

    def owned(self, graph: graphviz.Digraph, owner: str, namespaces: Iterable[SeenNamespace]) -> None:
        for each in namespaces:
            if each.id not in self.hidden:
                self.node(graph, each)
                graph.edge(owner, _name(each.id), arrowhead="none", penwidth="1.2")

    def node(self, graph: graphviz.Digraph, one: SeenNamespace) -> None:
        group = self.group[one.id]
        if len(group) > 1:
            which = names([_title(self.snapshot, each) for each in group])
            style.folded_node(graph, _name(one.id), one.kind, f"{len(group)} more", which)
        else:
            alive = f"{len(one.members)} members" if one.members else f"held by {held_by(one.holders)}"
            style.namespace_node(graph, _name(one.id), one.kind, one.id.ino, whose(self.snapshot, one), more=alive)


def _title(snapshot: Snapshot, namespace: SeenNamespace) -> str:
    return f"{namespace} {whose(snapshot, namespace)}".strip()


def _name(identity: NamespaceId) -> str:
    return f"n_{identity.dev}_{identity.ino}"


def _rows(snapshot: Snapshot) -> list[Sequence[str]]:
    """Depth first, each user namespace with what it owns below it."""
    rows: list[Sequence[str]] = [("namespace", "owner", "whose", "members", "held by")]
    known = {each.id for each in snapshot.of_kind("user")}

    def line(depth: int, each: SeenNamespace) -> None:
        owner = f"user:[{each.owner.ino}]" if each.owner else "-"
        rows.append(("  " * depth + str(each), owner, whose(snapshot, each), str(len(each.members)), held_by(each.holders)))

    def walk(user: SeenNamespace, depth: int) -> None:
        line(depth, user)
        for each in snapshot.owned_by(user.id):
            line(depth + 1, each)
        for child in snapshot.below(user.id):
            if child.kind == "user":
                walk(child, depth + 1)

    for user in snapshot.of_kind("user"):
        if user.parent not in known:
            walk(user, 0)
    for each in snapshot.namespaces:
        if each.kind != "user" and each.owner not in known:
            line(0, each)
    return rows
