"""The namespace map: which processes are in which namespaces, the machine's and their own."""

from __future__ import annotations

import itertools

import graphviz

from nslab.model import Membership, NamespaceId, NamespaceMap
from nslab.render import style
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table

ABOUT = "Each coloured shape is a namespace; a line leads to every process in it, dashed where that is the machine's."


def namespace_map(whole: NamespaceMap, title: str = "", most: int | None = MOST) -> Picture:
    """The picture of a NamespaceMap: a row for each kind, a column for the machine and for each process with own ones.

    Where it would have more than ``most`` nodes, processes that have the same kinds for themselves are folded.
    """
    title = title or "Namespaces: " + style.listing(["the machine", *(member.title for member in whole.members)])
    data, more = _folded(whole, most)
    graph = style.digraph(rankdir="LR", ranksep="1.3", nodesep="0.07", splines="true")
    graph.attr("edge", arrowhead="none")
    graph.node("machine", style.label("the machine", "this notebook and all else"), shape="box", style="rounded,filled",
               tooltip="every process that nothing isolates")  # fmt: skip
    for kind, identity in data.machine.items():
        style.namespace_node(graph, _name(kind, identity), kind, identity.ino, "the machine's")
        graph.edge("machine", _name(kind, identity))
    for (kind, identity), members in _own(data).items():
        style.namespace_node(graph, _name(kind, identity), kind, identity.ino, _whose(kind, members))
    for number, member in enumerate(data.members):
        _member(graph, f"p{number}", member)
    with graph.subgraph(graph_attr={"rank": "same"}) as column:
        for above, below in itertools.pairwise(_column(data, more)):
            column.edge(above, below, style="invis", weight="10")
    for number, group in enumerate(more):
        label = style.label(f"{len(group)} more", f"each with its own {' '.join(group[0].own)}")
        which = style.tooltip(names([each.title for each in group]))
        graph.node(f"more{number}", label, shape="box", peripheries="2", style="rounded,filled", tooltip=which)
        for kind in group[0].own:
            inodes = list(dict.fromkeys(str(each.kinds[kind].ino) for each in group))
            style.folded_node(graph, f"more{number}_{kind}", kind, f"{len(inodes)} more", names(inodes))
            graph.edge(f"more{number}_{kind}", f"more{number}", penwidth="2.4")
    rows = _rows(whole)
    return Picture(title, graph.source, text_table(rows), rows, ABOUT)


def _member(graph: graphviz.Digraph, name: str, member: Membership) -> None:
    facts = [f"PID {member.pid}", *(f"{key}: {value}" for key, value in (member.facts or {}).items())]
    graph.node(name, style.label(member.title, *facts), shape="box", style="rounded,filled,bold",
               tooltip=style.tooltip(member.title, *facts))  # fmt: skip
    for kind, identity in member.kinds.items():
        own = kind in member.own
        graph.edge(_name(kind, identity), name, **({"penwidth": "2.4"} if own else {"style": "dashed"}))


def _own(data: NamespaceMap) -> dict[tuple[str, NamespaceId], list[Membership]]:
    """The namespaces that are not the machine's, with who is in them."""
    found: dict[tuple[str, NamespaceId], list[Membership]] = {}
    for member in data.members:
        for kind in member.own:
            found.setdefault((kind, member.kinds[kind]), []).append(member)
    return found


def _folded(data: NamespaceMap, most: int | None) -> tuple[NamespaceMap, list[list[Membership]]]:
    """Those that are drawn one by one, and groups of those that are not."""
    nodes = sum(1 + len(member.own) for member in data.members) + len(data.machine)
    if most is None or nodes <= most:
        return data, []
    share = max(2, len(data.members) * most // nodes)
    groups = fold(data.members, lambda member: member.own, share)
    return NamespaceMap(data.machine, tuple(group[0] for group in groups if len(group) == 1)), [g for g in groups if len(g) > 1]


def _column(data: NamespaceMap, more: list[list[Membership]]) -> list[str]:
    """The namespaces from top to bottom: those of one kind together, so that the eye compares them."""
    own = _own(data)
    return [
        name
        for kind, identity in data.machine.items()
        for name in [
            _name(kind, identity),
            *(_name(*key) for key in own if key[0] == kind),
            *(f"more{number}_{kind}" for number, group in enumerate(more) if kind in group[0].own),
        ]
    ]


def _name(kind: str, identity: NamespaceId) -> str:
    return f"{kind}_{identity.dev}_{identity.ino}"


def _whose(kind: str, members: list[Membership]) -> str:
    if len(members) > 1:
        return f"shared by {len(members)}"
    return "borrowed" if kind in members[0].borrowed else "its own"


def _rows(data: NamespaceMap) -> list[tuple[str, ...]]:
    own = _own(data)
    heads = ("kind", "the machine", *(f"{member.title} (PID {member.pid})" for member in data.members))
    return [heads, *((kind, str(identity.ino), *(_cell(own, kind, member) for member in data.members))
                     for kind, identity in data.machine.items())]  # fmt: skip


def _cell(own: dict[tuple[str, NamespaceId], list[Membership]], kind: str, member: Membership) -> str:
    if kind not in member.own:
        return "the same"
    whose = _whose(kind, own[kind, member.kinds[kind]])
    return f"{member.kinds[kind].ino} ({'own' if whose == 'its own' else whose})"
