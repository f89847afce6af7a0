"""Trees of mounts, with what each tells the others: propagation, and peers in other mount namespaces."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import graphviz

from nslab.model import Mount
from nslab.model.snapshot import MountContent, Snapshot
from nslab.render import style
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table
from nslab.render.who import whose

ABOUT = (
    "Each frame is a mount namespace, each box a mount, beside the one that it lies on. A double outline is shared, a dashed "
    "one a slave, a thick one unbindable, a plain one private. A dashed line joins peers, an arrow goes from master to slave."
)
LEAST = 6  # mounts of a namespace that are drawn, however many namespaces there are


def mounts(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """The mounts of each mount namespace whose content is known. Past ``most``, mounts that are alike are folded."""
    tables = [(each, each.content.mounts) for each in snapshot.of_kind("mnt") if isinstance(each.content, MountContent)]
    groups = fold(tables, lambda pair: tuple((one.target, one.fstype) for one in pair[1]), most and max(1, most // LEAST))
    share = None if most is None else max(LEAST, most // max(1, len(groups)))
    graph = style.digraph(rankdir="LR", ranksep="0.35", nodesep="0.1", compound="true")
    peers: dict[int, list[str]] = {}
    slaves: list[tuple[int, str]] = []
    for number, group in reversed(list(enumerate(groups))):  # the engine puts what comes first at the bottom
        namespace, table = group[0]
        tree = _Tree(table, share)
        more = len(group) > 1
        aside = f"{len(group)} more like this" if more else f"{namespace.id.ino}  {whose(snapshot, namespace)}"
        tip = names([f"{each} {whose(snapshot, each)}" for each, _ in group]) if more else str(namespace)
        frame = style.frame("mnt", aside=aside, tip=tip) | {"peripheries": "1", "margin": "20"}  # long edges bend out
        around = graph.subgraph(name=f"cluster_around_{number}", graph_attr=style.GAP)
        with around as outer, outer.subgraph(name=f"cluster_{number}", graph_attr=frame) as inner:
            for name, alike in reversed(tree.nodes(f"m{number}")):
                _node(inner, name, alike, tree.path)
                said = alike[0].peers
                peers.setdefault(said.get("shared", 0), []).append(name)
                slaves += [(said["master"], name)] if "master" in said else []
            for above, below in reversed(tree.edges(f"m{number}")):
                inner.edge(f"{above}:e", f"{below}:w", arrowhead="none")
    peers.pop(0, None)
    for members in peers.values():
        for above, below in itertools.pairwise(members):
            graph.edge(above, below, style="dashed", arrowhead="none", constraint="false")
    for master, slave in slaves:
        for found in peers.get(master, [])[:1]:
            graph.edge(found, slave, constraint="false")
    rows: list[Sequence[str]] = [("mount namespace", "whose", "mount", "filesystem", "source", "propagation", "options")]
    for namespace, every in tables:
        for depth, one in _Tree(every, None).walk():
            facts = (one.fstype, one.source, propagation(one), ",".join(one.options))
            rows.append((str(namespace), whose(snapshot, namespace), "  " * depth + one.target, *facts))
    return Picture(title or f"Mounts: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT)


def propagation(mount: Mount) -> str:
    """In the words of mount_namespaces(7): "shared 12", "slave of 3", "private", "unbindable"."""
    words = {"shared": "shared {}", "master": "slave of {}", "propagate_from": "from {}"}
    said = [words[key].format(value) for key, value in mount.peers.items() if key in words]
    return ", ".join([*said, *(["unbindable"] if "unbindable" in mount.peers else [])]) or "private"


def _node(graph: graphviz.Digraph, name: str, group: list[Mount], path: dict[int, str]) -> None:
    one = group[0]
    if len(group) > 1:
        graph.node(name, style.label(f"{len(group)} more", one.fstype), shape="box", style="rounded,filled", peripheries="2",
                   tooltip=style.tooltip(names([each.target for each in group])))  # fmt: skip
        return
    look = {"peripheries": "2"} if "shared" in one.peers else {}
    look |= {"style": "filled,dashed"} if "master" in one.peers else {}
    look |= {"penwidth": "3"} if "unbindable" in one.peers else {}
    said = propagation(one)
    read_only = "read-only" if "ro" in one.options else ""
    small = ", ".join(filter(None, [one.fstype, read_only, said if said != "private" else ""]))
    graph.node(name, style.label(path[one.id], small), shape="box", height="0.3", margin="0.08,0.03", **look,
               tooltip=style.tooltip(one.target, one.fstype, f"source {one.source}", f"root {one.root}", said,
                                     *one.options))  # fmt: skip


class _Tree:
    """The mounts of one namespace, each below its parent; ``path`` is what of a target its parent does not say."""

    def __init__(self, mounts: Sequence[Mount], most: int | None):
        known = {each.id for each in mounts}
        self.children: dict[int, list[Mount]] = {}
        for each in mounts:
            self.children.setdefault(each.parent if each.parent in known and each.parent != each.id else 0, []).append(each)
        by_id = {each.id: each for each in mounts}
        self.path = {each.id: _below(by_id.get(each.parent), each) for each in mounts}
        in_order = [each for _, each in self.walk()]
        self.groups = fold(in_order, self._alike, most)
        self.shown = {each.id: number for number, group in enumerate(self.groups) for each in group}

    def _alike(self, mount: Mount) -> object:
        """Leaves below one mount, of one filesystem and one propagation; what others lie on stays."""
        return mount.id if mount.id in self.children else (mount.parent, mount.fstype, propagation(mount).split()[0])

    def walk(self) -> list[tuple[int, Mount]]:
        """Depth first, with the depth."""
        found, todo = [], [(0, each) for each in reversed(self.children.get(0, []))]
        while todo:
            depth, each = todo.pop()
            found.append((depth, each))
            todo += [(depth + 1, child) for child in reversed(self.children.get(each.id, []))]
        return found

    def nodes(self, prefix: str) -> list[tuple[str, list[Mount]]]:
        return [(f"{prefix}_{number}", group) for number, group in enumerate(self.groups)]

    def edges(self, prefix: str) -> list[tuple[str, str]]:
        every = [each for group in self.groups for each in group if each.parent in self.shown]
        found = dict.fromkeys((self.shown[each.parent], self.shown[each.id]) for each in every)
        return [(f"{prefix}_{one}", f"{prefix}_{other}") for one, other in found if one != other]


def _below(parent: Mount | None, mount: Mount) -> str:
    if parent is None or parent.target == "/" or not mount.target.startswith(f"{parent.target}/"):
        return mount.target
    return mount.target.removeprefix(f"{parent.target}/")
