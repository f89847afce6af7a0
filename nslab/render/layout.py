"""The picture of a topology: its nodes with their interfaces and addresses, and the links between them.

A node is a card in the shape and colour of its role, with a chip for each interface. A link is a line from chip to chip, and
what lies between (subnet, rate, delay, loss) a label on it. The grounds are thin enough for ink on any page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import graphviz

from nslab.model import KINDS
from nslab.model.layout import Endpoint, Layout, LinkLayout
from nslab.render import style
from nslab.render.layout_folding import Folded, depths, fold_layout
from nslab.render.picture import Picture, text_table

WIRE = KINDS["net"].colour
# By role: a shape, its style, and a ground on which ink can be read.
LOOKS = {
    "host": ("box", "rounded,filled", style.FAINT), "router": ("ellipse", "filled", f"{WIRE}33"),
    "switch": ("box", "filled", f"{style.INK}33"), "nat": ("box", "filled,diagonals", "#E69F0033"),
}  # fmt: skip
LEGEND = {"host": "rounded boxes are hosts", "router": "ellipses routers", "switch": "square boxes switches",
          "nat": "boxes with cut corners NAT"}  # fmt: skip
UNFOLD = "What is alike is folded: fold=False draws each, unfold="  # the name of a node follows
FOLD_FROM = 60  # nodes: of more than that, those that are alike are drawn once
_MOST = 4  # addresses that are shown of an interface, and routes of a node

End = tuple[str, str]  # a node and the name of its interface


@dataclass(frozen=True)
class _Drawn:
    """What is drawn, and how: ``down`` are the interfaces that are turned off; ``plain``: names only, for there are many."""

    layout: Layout
    folded: Folded
    down: Collection[End]
    containers: Mapping[str, str]
    routes: bool
    plain: bool

    @cached_property
    def segments(self) -> dict[str, tuple[str, ...]]:
        """The subnets that each switch is in."""
        ends = [(end.node, link.subnets) for link in self.layout.links for end in link.ends]
        return {node: subnets for node, subnets in ends if self.layout.nodes[node] == "switch"}


def draw_layout(
    layout: Layout, title: str = "", *, down: Collection[End] = (), containers: Mapping[str, str] | None = None,
    routes: bool = False, fold: bool | None = None, unfold: Iterable[str] = (),
) -> Picture:  # fmt: skip
    """What a topology comes to; ``down`` are interfaces, as (node, name), that are turned off besides those of links that are.
    ``containers`` says of nodes what they have of their own besides a network and a host name.

    With ``routes`` each card has the routes of its node. Of more than 60 nodes those that are alike are drawn once, with how
    many more there are; ``fold`` does that always or never, ``unfold`` names nodes around which everything is drawn.
    """
    down = {*down, *((end.node, end.interface) for link in layout.links if not link.up for end in link.ends)}
    folding = len(layout.nodes) > FOLD_FROM if fold is None else fold
    folded = (
        fold_layout(layout, down, set(unfold), containers or {}) if folding else Folded(layout.links, tuple(layout.nodes), ())
    )
    drawn = _Drawn(layout, folded, down, containers or {}, routes, len(folded.nodes) > FOLD_FROM)
    title = title or f"Topology: {layout.name or 'without a name'}"
    notes = _notes(drawn)
    text = "\n".join([text_table(_rows(drawn, folded.links)), *_folded(drawn), *notes])
    return Picture(title, _source(drawn), text, _rows(drawn, layout.links), _about(drawn), notes)


# -- graphviz -----------------------------------------------------------------------------------------------------------


def _source(drawn: _Drawn) -> str:
    graph = style.undirected(ranksep="0.3", nodesep="0.25")
    graph.attr("node", margin="0", fontsize="12")
    graph.attr("edge", color=WIRE, penwidth="2")
    depth = depths(drawn.layout)
    links = {}  # from each its upper end to its lower one; stable where both are as far down
    for number, link in enumerate(drawn.folded.links):
        links[number] = sorted(link.ends, key=lambda end: depth[end.node])
    numbers = {name: f"n{number}" for number, name in enumerate(drawn.layout.nodes)}
    for name in sorted(drawn.folded.nodes, key=lambda name: depth[name]):
        above = [(f"l{number}", ends[1]) for number, ends in links.items() if ends[1].node == name]
        below = [(f"l{number}", ends[0]) for number, ends in links.items() if ends[0].node == name]
        _node(graph, drawn, name, numbers[name], above, below)
    for number, link in enumerate(drawn.folded.links):
        _link(graph, drawn, link, f"l{number}", [(numbers[end.node], end) for end in links[number]])
    for number, more in enumerate(drawn.folded.more):
        label = f"<{_bold(more.says())}<br/>{_small(more.names())}>"
        graph.node(f"m{number}", label, shape="box", style="rounded,filled,dashed", margin="0.1,0.06",
                   tooltip=style.tooltip(*more.hidden))  # fmt: skip
        graph.node(numbers[more.beside], ordering="out")  # last, after those that it is like
        graph.edge(numbers[more.beside], f"m{number}", style="dashed", color=style.LINE, tooltip=more.says())
        if more.before:
            graph.edge(f"m{number}", numbers[more.before], style="dashed", color=style.LINE, tooltip=more.says())
    return str(graph.source)


def _node(
    graph: graphviz.Graph, drawn: _Drawn, name: str, number: str, above: Sequence[tuple[str, Endpoint]],
    below: Sequence[tuple[str, Endpoint]],
) -> None:  # fmt: skip
    role = drawn.layout.nodes[name]
    shape, drawn_as, fill = LOOKS[role]
    if drawn.plain:
        graph.node(number, f"<{_bold(name)}>", shape=shape, style=drawn_as, fillcolor=fill, margin="0.06,0.03",
                   tooltip=style.tooltip(f"{role} {name}"))  # fmt: skip
        return
    head = f"{_bold(name)}&#160; {_small(role)}"
    own = drawn.containers.get(name)
    outline = "2" if own else "1"
    said = [
        *([own] if own else []),
        *drawn.segments.get(name, ()),
        *(["out of the machine"] if name in drawn.layout.internet else []),
    ]
    if said:
        head += f"<br/>{_small(*_shortened(said))}"
    rows = [_chips(drawn, above), head, _chips(drawn, below)]
    if drawn.routes and (routes := drawn.layout.routes.get(name)):
        lines = [f"{'default' if _is_default(route.target) else route.target} via {route.via}" for route in routes]
        rows.append(_small(*_shortened(lines)))
    table = _table("".join(f"<tr><td>{row}</td></tr>" for row in rows if row))
    graph.node(number, f"<{table}>", shape=shape, style=drawn_as, fillcolor=fill, peripheries=outline,
               tooltip=style.tooltip(f"{role} {name}", f"a container with its own {own}" if own else ""))  # fmt: skip


def _chips(drawn: _Drawn, ends: Sequence[tuple[str, Endpoint]]) -> str:
    """A row of interfaces. Each is a port, by the number of its link: an interface may be called anything."""
    cells = []
    for number, end in ends:
        is_down = (end.node, end.interface) in drawn.down
        colour, frame = (style.BAD, "rounded,dashed") if is_down else (WIRE, "rounded")
        text = f"<b>{_small(end.interface)}</b>"
        if lines := [*_shortened(end.addresses), *(["down"] if is_down else [])]:
            text += f"<br/>{_small(*lines)}"
        cells.append(f'<td port="{number}" border="1" color="{colour}" style="{frame}">{text}</td>')
    return _table(f"<tr>{''.join(cells)}</tr>", spacing=3, padding=3) if cells else ""


def _table(rows: str, *, spacing: int = 0, padding: int = 3) -> str:
    return f'<table border="0" cellborder="0" cellspacing="{spacing}" cellpadding="{padding}">{rows}</table>'


def _link(graph: graphviz.Graph, drawn: _Drawn, link: LinkLayout, name: str, ends: Sequence[tuple[str, Endpoint]]) -> None:
    """A line from end to end, which passes what is said of it."""
    (above, upper), (below, lower) = ends
    is_down = any((end.node, end.interface) in drawn.down for end in link.ends)
    look = {"style": "dashed", "color": style.BAD} if is_down else {}
    tip = style.tooltip(f"{upper.node} {upper.interface} to {lower.node} {lower.interface}")
    one, two = (above, below) if drawn.plain else (f"{above}:{name}:s", f"{below}:{name}:n")
    lines = [] if drawn.plain else _said(drawn.layout, link)
    if not lines:
        graph.edge(one, two, tooltip=tip, **look)
        return
    attributes = f'border="1" cellborder="0" cellpadding="3" style="rounded" bgcolor="{style.FAINT}"'
    label = f"<table {attributes}><tr><td>{_small(*lines)}</td></tr></table>"
    graph.node(name, f"<{label}>", shape="plain", style="solid", color=look.get("color", WIRE), tooltip=tip)
    graph.edge(one, f"{name}:n", tooltip=tip, **look)
    graph.edge(f"{name}:s", two, tooltip=tip, **look)


def _said(layout: Layout, link: LinkLayout) -> list[str]:
    """What is written on a link: subnets, unless a switch has them, limits, and what it is the outside of."""
    subnets = () if any(layout.nodes[end.node] == "switch" for end in link.ends) else link.subnets
    outside = [f"outside of {link.outside}"] if link.outside else []
    return [*subnets, *(f"{key} {text}" for key, text in link.limits().items()), *outside]


def _is_default(target: str) -> bool:
    return target.endswith("/0")


def _bold(text: str) -> str:
    return f"<b>{style.said(text)}</b>"


def _small(*lines: str) -> str:
    return f'<font point-size="9">{"<br/>".join(map(style.said, lines))}</font>'


def _shortened(lines: Sequence[str]) -> list[str]:
    return [*lines[:_MOST], *([f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else [])]


def _about(drawn: _Drawn) -> str:
    """How the picture is to be read: what is in it."""
    roles = {drawn.layout.nodes[name] for name in drawn.folded.nodes}
    shapes = ", ".join(text for role, text in LEGEND.items() if role in roles)
    chips = "" if drawn.plain else "; each with a chip for each interface, and its addresses"
    more = "; a double outline is a container" if drawn.containers.keys() & set(drawn.folded.nodes) and not drawn.plain else ""
    more += "; what is dashed and red is down" if drawn.down else ""
    said = f"{shapes[0].upper()}{shapes[1:]}{chips}{more}." if shapes else ""
    folds = drawn.folded.more[:1]
    return said + "".join(f" {UNFOLD}{each.beside!r} those around that; the table has all of it." for each in folds)


# -- text ---------------------------------------------------------------------------------------------------------------


def _rows(drawn: _Drawn, links: tuple[LinkLayout, ...]) -> list[list[str]]:
    """The table of these links."""
    rows = [list(row) for row in replace(drawn.layout, links=links).rows()]
    for row in rows[1:] if drawn.down else ():
        for node, column in ((row[0], 1), (row[3], 4)):
            if (node, row[column]) in drawn.down:
                row[column] += " (down)"
    return rows


def _folded(drawn: _Drawn) -> Iterable[str]:
    """The nodes that are not drawn."""
    for more in drawn.folded.more:
        place = f"between {more.beside} and {more.before}" if more.before else f"on {more.beside}"
        yield f"{place}: {more.says()} ({more.names()})"


def _notes(drawn: _Drawn) -> tuple[str, ...]:
    """What goes beyond the table: nodes without a link, containers, routes."""
    whole = drawn.layout
    linked = {end.node for link in whole.links for end in link.ends}
    lines = [f"{name}: a {whole.nodes[name]} without a link" for name in drawn.folded.nodes if name not in linked]
    lines += [
        f"{name}: a container with its own {drawn.containers[name]}" for name in drawn.folded.nodes if name in drawn.containers
    ]
    if drawn.routes:
        routes = [(name, route) for name in drawn.folded.nodes for route in whole.routes.get(name, ())]
        lines += [f"{name}: {route.target} via {route.via} by {route.interface}" for name, route in routes]
    return tuple(lines)
