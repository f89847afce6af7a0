"""The namespace map: which processes are in which namespaces, the machine's and their own."""

from __future__ import annotations

import itertools
from html import escape
from typing import Any

import graphviz

from nslab.errors import SpecError
from nslab.model import KINDS, Membership, NamespaceMap
from nslab.render.picture import Picture

LINE = "#7f7f7f"
_WHITE_TEXT = {"net", "user", "time"}  # on these colours black cannot be read


def draw(*things: Any, title: str = "") -> Picture:
    """Which namespaces these containers, processes or namespace maps are in, beside the machine's own."""
    if not things:
        raise SpecError("things", "what is to be drawn? nslab.draw(container, process, ...)")
    maps = []
    for thing in things:
        if isinstance(thing, NamespaceMap):
            maps.append(thing)
        elif hasattr(thing, "namespace_map"):
            maps.append(thing.namespace_map())
        else:
            raise SpecError("things", f"{type(thing).__name__} cannot be drawn as a namespace map")
    members = tuple(member for one in maps for member in one.members)
    return namespace_map(NamespaceMap(maps[0].machine, members), title)


def namespace_map(data: NamespaceMap, title: str = "") -> Picture:
    """The picture of a NamespaceMap: a row for each kind, a column for the machine and for each process with own ones."""
    title = title or "Namespaces: " + ", ".join(["the machine", *(member.title for member in data.members)])
    graph = graphviz.Digraph(
        graph_attr={"rankdir": "LR", "bgcolor": "transparent", "fontname": "Arial", "ranksep": "1.3", "nodesep": "0.07",
                    "splines": "true", "margin": "0.05"},
        node_attr={"fontname": "Arial", "fontsize": "11", "style": "filled", "penwidth": "1"},
        edge_attr={"color": LINE, "arrowhead": "none", "penwidth": "1.6"},
    )  # fmt: skip
    graph.node("machine", _label("the machine", "this notebook and all else"), shape="box", style="rounded,filled",
               fillcolor="#f2f2f2", color=LINE, tooltip="every process that nothing isolates")  # fmt: skip
    for kind, identity in data.machine.items():
        _namespace(graph, f"m_{kind}", kind, identity.ino, "the machine's")
        graph.edge("machine", f"m_{kind}", color=_line(kind))
    for number, member in enumerate(data.members):
        name = f"p{number}"
        facts = [f"PID {member.pid}", *(f"{key}: {value}" for key, value in (member.facts or {}).items())]
        graph.node(name, _label(member.title, *facts), shape="box", style="rounded,filled,bold", fillcolor="#ffffff",
                   color="#000000", tooltip=f"process {member.pid}")  # fmt: skip
        for kind, identity in member.kinds.items():
            if kind in member.own:
                _namespace(graph, f"{name}_{kind}", kind, identity.ino, "borrowed" if kind in member.borrowed else "its own")
                graph.edge(f"{name}_{kind}", name, color=_line(kind), penwidth="2.4")
            else:
                graph.edge(f"m_{kind}", name, color=_line(kind), style="dashed")
    with graph.subgraph(graph_attr={"rank": "same"}) as column:
        rows = _rows(data)
        for above, below in itertools.pairwise(rows):
            column.edge(above, below, style="invis", weight="10")
    return Picture(title, graph.source, _text(data))


def _rows(data: NamespaceMap) -> list[str]:
    """The namespaces from top to bottom: those of one kind side by side, so that the eye compares them."""
    rows = []
    for kind in data.machine:
        rows.append(f"m_{kind}")
        rows += [f"p{number}_{kind}" for number, member in enumerate(data.members) if kind in member.own]
    return rows


def _line(kind: str) -> str:
    """The colour of an edge: that of the kind, but for black, which vanishes on a dark page."""
    return LINE if kind == "time" else KINDS[kind].colour


def _label(head: str, *lines: str) -> str:
    small = "".join(f'<br/><font point-size="9">{escape(line)}</font>' for line in lines)
    return f"<<b>{escape(head)}</b>{small}>"


def _namespace(graph: graphviz.Digraph, name: str, kind: str, inode: int, whose: str) -> None:
    row = KINDS[kind]
    colour = "#ffffff" if kind in _WHITE_TEXT else "#000000"
    label = f'<<font color="{colour}"><b>{kind}</b>&#160;&#160;{inode}<br/><font point-size="9">{whose}</font></font>>'
    graph.node(name, label, shape=row.shape, fillcolor=row.colour, color=LINE, margin="0.1,0.04", height="0.35",
               tooltip=f"{kind}:[{inode}], {whose}: {row.isolates}")  # fmt: skip


def _text(data: NamespaceMap) -> str:
    heads = ["kind", "the machine", *(f"{member.title} (PID {member.pid})" for member in data.members)]
    rows = [
        [kind, str(identity.ino), *(_cell(member, kind) for member in data.members)] for kind, identity in data.machine.items()
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]]
    return "\n".join(lines)


def _cell(member: Membership, kind: str) -> str:
    if kind not in member.own:
        return "the same"
    return f"{member.kinds[kind].ino} ({'borrowed' if kind in member.borrowed else 'own'})"
