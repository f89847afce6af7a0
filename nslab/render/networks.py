"""The networks of a snapshot: interfaces, bridges with their ports, and veth pairs from one namespace to another."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import graphviz

from nslab.model import KINDS, NamespaceId
from nslab.model.layout import limits
from nslab.model.snapshot import NetContent, SeenInterface, SeenNamespace, Snapshot
from nslab.model.words import readable
from nslab.render import style
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table
from nslab.render.who import whose

ABOUT = (
    "Each frame is a network namespace, each box an interface with its addresses, square ones bridges. A thick line is a veth "
    "pair, a thin one joins a bridge and its ports, a dashed one what lies upon another; dashed and red is down."
)
LEAST = 3  # boxes of a network that are drawn, however many networks there are
WIRE = KINDS["net"].colour
_ADDRESSES, _ROUTES = 4, 4  # that are shown of an interface, and of a network
_PLAIN = {"127.0.0.1/8", "::1/128"}  # what a loopback interface has once it is up

Network = tuple[SeenNamespace, NetContent]
End = tuple[NamespaceId, int]  # a network, and the index of an interface there


def networks(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """Each network whose content is known. Past ``most`` interfaces, networks and interfaces that are alike are folded."""
    every = [(each, each.content) for each in snapshot.of_kind("net") if isinstance(each.content, NetContent)]
    every.sort(key=lambda network: network[0].id != snapshot.machine.get("net"))
    wired = [network for network in every if _drawn(network[1])]
    if most is not None and sum(len(_drawn(content)) for _, content in wired) <= most:
        most = None
    groups = fold(wired, _alike, most and max(1, most // LEAST))
    graph = style.undirected(rankdir="LR", ranksep="0.7", nodesep="0.1", compound="true")
    folded = {each.id for group in groups for each, _ in group if len(group) > 1}
    drawing = _Drawing(graph, snapshot, folded, most and max(LEAST, most // max(1, len(groups))))
    if lone := [network for network in every if not _drawn(network[1])]:
        _lone(graph, snapshot, lone)
    if not every:
        graph.node("none", style.label("no network", "what none isolates is known"), shape="box", tooltip=" ")
    for number, group in reversed(list(enumerate(groups))):  # the engine puts what comes first at the bottom
        drawing.network(f"n{number}", group)
    drawing.lines(groups)
    rows: list[Sequence[str]] = [("network", "whose", "interface", "kind", "state", "addresses", "joined to", "limits")]
    rows += [row for network in every for row in _rows(snapshot, network)]
    notes = [readable(f"{each} {whose(snapshot, each)}: {line}") for each, content in every for line in _routes(content)]
    text = "\n".join([text_table(rows), *notes])
    return Picture(title or f"Networks: {snapshot.scope}", graph.source, text, rows, ABOUT, notes)


def _drawn(content: NetContent) -> list[SeenInterface]:
    """All interfaces but a loopback that has no address of its own."""
    return [each for each in content.interfaces if each.state.kind != "loopback" or set(each.state.addresses) - _PLAIN]


def _alike(network: Network) -> Hashable:
    """Networks with the same sorts of interfaces, which lead to the same networks; a bridge makes one its own."""
    namespace, content = network
    ports = [(each.state.kind, each.peer_network, each.rate, each.delay, each.loss, each.state.up) for each in _drawn(content)]
    return (namespace.id if any(port[0] == "bridge" for port in ports) else None, *ports)


class _Drawing:
    """``folded`` are the networks that are not drawn by themselves; ``share`` is how many interfaces one may have."""

    def __init__(self, graph: graphviz.Graph, snapshot: Snapshot, folded: set[NamespaceId], share: int | None):
        self.graph, self.snapshot, self.folded, self.share = graph, snapshot, folded, share
        self.nodes: dict[End, str] = {}

    def network(self, prefix: str, group: list[Network]) -> None:
        """A frame with interfaces; those of the rest of its group are where the like of the first are. What is not alike is one
        node.
        """
        namespace, content = group[0]
        if len(set(map(_alike, group))) > 1:
            which = names([f"{each} {whose(self.snapshot, each)}" for each, _ in group])
            style.folded_node(self.graph, prefix, "net", f"{len(group)} more", which)
            self.nodes |= {(each.id, one.state.index): prefix for each, other in group for one in other.interfaces}
            return
        more = len(group) > 1
        aside = f"{len(group)} more like this" if more else f"{namespace.id.ino}  {whose(self.snapshot, namespace)}"
        tip = names([f"{each} {whose(self.snapshot, each)}" for each, _ in group]) if more else str(namespace)
        frame = style.frame("net", aside=aside, tip=tip) | {"peripheries": "1"}
        around = self.graph.subgraph(name=f"cluster_around_{prefix}", graph_attr=style.GAP)
        with around as outer, outer.subgraph(name=f"cluster_{prefix}", graph_attr=frame) as inner:
            for number, alike in reversed(list(enumerate(self._folded(content)))):
                name = f"{prefix}_{number}"
                _interface(inner, name, alike, more)
                self.nodes |= {(namespace.id, each.state.index): name for each in alike}
            if not more and (said := _routes(content)):
                shown = [*said[:_ROUTES], *([f"and {len(said) - _ROUTES} more"] if len(said) > _ROUTES else [])]
                inner.node(f"{prefix}_routes", style.label("routes", *shown), shape="plain", style="solid",
                           tooltip=style.tooltip(*said))  # fmt: skip
        for each, other in group[1:]:
            pairs = zip(_drawn(content), _drawn(other), strict=True)
            self.nodes |= {(each.id, there.state.index): self.nodes[namespace.id, here.state.index] for here, there in pairs}

    def _folded(self, content: NetContent) -> list[list[SeenInterface]]:
        """The interfaces of a network, those together that lead to what is folded, or are alike and too many."""
        drawn, hidden = [], dict[Hashable, list[SeenInterface]]()
        for each in _drawn(content):
            if self.share is None or each.peer_network not in self.folded:
                drawn.append(each)
            else:
                hidden.setdefault((each.state.kind, each.state.master), []).append(each)
        return [*fold(drawn, self._sort, self.share), *hidden.values()]

    def _sort(self, one: SeenInterface) -> Hashable:
        """Those of one kind on one bridge. A bridge is by itself, and what leads to something that is drawn."""
        itself = one.state.index if one.state.kind == "bridge" or one.peer_network else 0
        return (one.state.kind, one.state.master, itself)

    def lines(self, groups: list[list[Network]]) -> None:
        """Each veth pair once, from the network that has more; bridges to their ports."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        sizes = {each.id: len(content.interfaces) for group in groups for each, content in group}
        for namespace, content in (network for group in groups for network in group):
            for each in _drawn(content):
                here = self.nodes[namespace.id, each.state.index]
                above = self.nodes.get((namespace.id, each.state.master))
                if above and above != here:
                    found[above, here] = {"color": style.LINE}
                other = each.peer_network or (namespace.id if each.state.kind != "veth" else None)
                there = self.nodes.get((other, each.state.peer)) if other and each.state.peer else None
                if not there or there == here or {(there, here), (here, there)} & found.keys():
                    continue
                if each.state.kind != "veth":
                    found[there, here] = {"style": "dashed", "color": style.LINE}
                else:
                    first = other in sizes and sizes[other] >= sizes[namespace.id]
                    found[(there, here) if first else (here, there)] = {"color": WIRE, "penwidth": "3"}
        for (one, two), look in found.items():
            self.graph.edge(one, two, **look)


def _lone(graph: graphviz.Graph, snapshot: Snapshot, lone: list[Network]) -> None:
    """One node for all networks that have nothing but a loopback interface."""
    titles = [f"{each} {whose(snapshot, each)}" for each, _ in lone]
    owners = style.listing(list(dict.fromkeys(whose(snapshot, each) for each, _ in lone)), 2)
    if len(lone) == 1:
        style.namespace_node(graph, "lone", "net", lone[0][0].id.ino, owners, "nothing but lo")
    else:
        style.folded_node(graph, "lone", "net", f"{len(lone)} with nothing but lo", names(titles), owners)


def _interface(graph: graphviz.Graph, name: str, alike: list[SeenInterface], several: bool) -> None:
    """One, or those that are alike; ``several``: it stands for those of several networks."""
    state = alike[0].state
    look = {"shape": "box", "style": "filled" if state.kind == "bridge" else "rounded,filled", "color": WIRE, "height": "0.3"}
    if len(alike) > 1:
        sort = state.kind if len({each.state.kind for each in alike}) == 1 else ""
        which = style.tooltip(names([each.state.name for each in alike]))
        graph.node(name, style.label(f"{len(alike)} more {sort}".rstrip()), **look, peripheries="2", tooltip=which)
        return
    said = [] if several else [each for each in state.addresses if not each.startswith("fe80:")]  # those are in the tooltip
    lines = [*said[:_ADDRESSES], *([f"and {len(said) - _ADDRESSES} more"] if len(said) > _ADDRESSES else []), _limits(alike[0])]
    if not state.up:
        look |= {"color": style.BAD, "style": f"{look['style']},dashed"}
        lines.append("down")
    elif state.kind == "veth" and alike[0].peer_network is None:
        lines.append("its other end is out of sight")
    tip = ["one each"] if several else [f"index {state.index}", state.mac, f"MTU {state.mtu}", *state.addresses]
    graph.node(name, style.label(state.name, *lines, aside=state.kind), **look, tooltip=style.tooltip(*tip))


def _limits(one: SeenInterface) -> str:
    return ", ".join(f"{key} {text}" for key, text in limits(one.rate, one.delay, one.loss).items())


def _routes(content: NetContent) -> list[str]:
    """The routes by way of somebody, or to nowhere; all others follow from addresses."""
    known = {each.state.index: each.state.name for each in content.interfaces}
    found = []
    for each in content.routes:
        if each.via or each.kind not in ("", "unicast"):
            kind = f"{each.kind} " if each.kind not in ("", "unicast") else ""
            via = f" via {each.via}" if each.via else ""
            found.append(f"{kind}{each.to}{via}" + (f" on {known.get(each.index, each.index)}" if each.via else ""))
    return found


def _rows(snapshot: Snapshot, network: Network) -> Iterator[Sequence[str]]:
    namespace, content = network
    known = {each.state.index: each.state.name for each in content.interfaces}
    for each in content.interfaces:
        state = each.state
        joined = [f"port of {known.get(state.master, state.master)}"] if state.master else []
        if each.peer_network:
            other = snapshot.by_id.get(each.peer_network)
            inside = other.content.interfaces if other and isinstance(other.content, NetContent) else ()
            name = next((one.state.name for one in inside if one.state.index == state.peer), str(state.peer))
            joined.append(f"{name} of net:[{each.peer_network.ino}]" if each.peer_network != namespace.id else name)
        elif state.peer and state.kind != "veth":
            joined.append(f"upon {known.get(state.peer, state.peer)}")
        yield (
            str(namespace), whose(snapshot, namespace), state.name, state.kind, "up" if state.up else "down",
            " ".join(state.addresses), ", ".join(joined), _limits(each),
        )  # fmt: skip
