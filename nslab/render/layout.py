"""The picture of a topology: its nodes with their addresses, and the links between them."""

from __future__ import annotations

from html import escape

import graphviz

from nslab.model import KINDS, Layout, LinkLayout
from nslab.render.picture import Picture

LINE = "#7f7f7f"
# By role: a shape, and a colour that black can be read on.
_LOOKS = {"host": ("box", "rounded,filled", "#ffffff"), "router": ("ellipse", "filled", "#cfe3f1"),
          "switch": ("box", "filled", "#e6e6e6")}  # fmt: skip
_MOST = 4  # addresses that are shown of a node


def draw_layout(layout: Layout, title: str = "") -> Picture:
    """What a topology comes to. What lies between two nodes is written on the link, or on the switch if it has one."""
    graph = graphviz.Graph(
        graph_attr={"bgcolor": "transparent", "fontname": "Arial", "ranksep": "0.7", "nodesep": "0.3", "margin": "0.05"},
        node_attr={"fontname": "Arial", "fontsize": "11", "color": LINE, "margin": "0.12,0.06"},
        edge_attr={"fontname": "Arial", "fontsize": "9", "color": KINDS["net"].colour, "penwidth": "1.6"},
    )  # fmt: skip
    notes: dict[str, list[str]] = {name: [] for name in layout.nodes}
    for link in layout.links:
        for end in link.ends:
            if layout.nodes[end.node] != "switch":
                notes[end.node] += end.addresses
            elif not notes[end.node]:
                notes[end.node] += link.subnets
    depth = _depths(layout)
    for number, (name, role) in sorted(enumerate(layout.nodes.items()), key=lambda item: (depth[item[1][0]], item[0])):
        shape, style, fill = _LOOKS[role]
        shown = notes[name][:_MOST] + ([f"and {len(notes[name]) - _MOST} more"] if len(notes[name]) > _MOST else [])
        lines = "".join(f'<br/><font point-size="9">{escape(line)}</font>' for line in shown)
        graph.node(f"n{number}", f"<<b>{escape(name)}</b>{lines}>", shape=shape, style=style, fillcolor=fill,
                   tooltip=f"{role} {name}")  # fmt: skip
    numbers = {name: f"n{number}" for number, name in enumerate(layout.nodes)}
    for link in layout.links:
        above, below = sorted(link.ends, key=lambda end: depth[end.node])  # stable where both are as far down
        graph.edge(numbers[above.node], numbers[below.node], label=_label(layout, link),
                   tooltip=f"{above.node} {above.interface} to {below.node} {below.interface}")  # fmt: skip
    return Picture(title or f"Topology: {layout.name or 'without a name'}", graph.source, str(layout))


def _label(layout: Layout, link: LinkLayout) -> str:
    switched = any(layout.nodes[end.node] == "switch" for end in link.ends)
    limits = [", ".join(f"{key} {text}" for key, text in link.limits().items())]
    lines = [line for line in [*(() if switched else link.subnets), *limits] if line]
    return f"<{'<br/>'.join(map(escape, lines))}>" if lines else ""


def _depths(layout: Layout) -> dict[str, int]:
    """How far below the top each node stands: on top the first router, or else the first switch, of each part of it."""
    neighbours: dict[str, list[str]] = {name: [] for name in layout.nodes}
    for link in layout.links:
        one, two = (end.node for end in link.ends)
        neighbours[one].append(two)
        neighbours[two].append(one)
    found: dict[str, int] = {}
    rank = {"router": 0, "switch": 1, "host": 2}
    for top in sorted(layout.nodes, key=lambda name: rank[layout.nodes[name]]):
        todo = [] if top in found else [top]
        found.setdefault(top, 0)
        for name in todo:  # grows while it is walked: those next to a node are one below it
            below = [other for other in neighbours[name] if other not in found]
            found |= dict.fromkeys(below, found[name] + 1)
            todo += below
    return found
