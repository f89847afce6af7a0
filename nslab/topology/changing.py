"""From the layout that a lab has to another one, by the fewest requests; and back, when that fails.

What can be undone comes first, and each step says before it how it is undone: namespaces for new nodes, routes and links that
go, new links, what changes of those that stay, new routes. Nodes go last, for what ran in them does not come back.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from errno import EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH
from html import escape
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

from nslab import network
from nslab.model import tables
from nslab.model.layout import Endpoint, Layout, LinkLayout, StaticRoute
from nslab.namespaces import claims
from nslab.netlink import Request
from nslab.network import batching, messages
from nslab.topology import hiding, resolving, undoing
from nslab.trace import record

if TYPE_CHECKING:
    from nslab.container import Container
    from nslab.namespaces import Namespace
    from nslab.network import Network
    from nslab.topology.internet import Uplink
    from nslab.topology.lab import Lab

GONE = (ENODEV, ENOENT, ESRCH, EADDRNOTAVAIL)  # what the kernel says of what is not there (any more)


@dataclass(frozen=True)
class Changes:
    """What was done to a running lab: (verb, sort, what) for each thing, in order, and how many requests that took.

    ``verb`` is added, removed or changed; ``sort`` node, link, route, name or nat.
    """

    done: tuple[tuple[str, str, str], ...] = ()
    requests: int = 0

    def __bool__(self) -> bool:
        return bool(self.done)

    def to_json(self) -> str:
        """A list of objects, for programs."""
        return json.dumps([dict(zip(("verb", "sort", "what"), each, strict=True)) for each in self.done], indent=2)

    def summary(self) -> str:
        return f"{len(self.done)} changes, {self.requests} requests" if self.done else "nothing to change"

    def __str__(self) -> str:
        return "\n".join([*(f"{verb:8} {sort:5} {what}" for verb, sort, what in self.done), self.summary()])

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        table = tables.html(self.done, head=False)
        return {"text/plain": str(self), "text/html": f"{table}<div>{escape(self.summary())}</div>"}


def held(link: LinkLayout, end: Endpoint) -> tuple[str, ...]:
    """The addresses that an interface has. The kernel takes those of IPv6 away while it is turned off."""
    return end.addresses if link.up else tuple(text for text in end.addresses if ":" not in text)


def settle(lab: Lab) -> Layout:
    """What the topology comes to now; what stays keeps what it has, and its links say so if else it would be another."""
    topology = lab.topology
    for link in topology.links:
        link.kept = lab.made.get(link, link.kept)
    layout = topology.resolve()
    moved = resolving.resolve(topology) != layout
    for link, made in zip(topology.links, layout.links, strict=True):
        link.kept = made if moved else None
    return layout


def change(lab: Lab, layout: Layout) -> Changes:
    """Bring the lab to this layout, or leave it as it was."""
    before = len(lab.trace)
    work = _Change(lab, layout)
    if work.done:
        lab.check(layout, work.new_nodes, [*work.new_links, *(new for _, new in work.other_links)])
        with contextlib.ExitStack() as undo, record(lab.trace):
            work.carry_out(undo)
            undo.pop_all()
        work.let_go()
    lab.layout, lab.made = layout, dict(zip(lab.topology.links, layout.links, strict=True))
    lab.asked = {node.name: node.options() for node in lab.topology}
    return Changes(tuple(work.done), len(lab.trace) - before)


class _Change:
    """What differs between two layouts, and how it is done."""

    def __init__(self, lab: Lab, layout: Layout):
        self.lab, self.before, self.after = lab, lab.layout, layout
        self.done: list[tuple[str, str, str]] = []
        self.closing: list[Uplink | Container | Network | Namespace] = []
        old, new = lab.layout.nodes, layout.nodes
        same = {name for name, role in new.items() if old.get(name) == role and lab.asked[name] == lab.topology[name].options()}
        self.old_nodes = {name: role for name, role in old.items() if name not in same}
        self.new_nodes = {name: role for name, role in new.items() if name not in same}
        self._note("node", [f"{name} ({role})" for name, role in self.old_nodes.items()],
                   [f"{name} ({role})" for name, role in self.new_nodes.items()])  # fmt: skip
        there, wanted = ({_key(link): link for link in each.links} for each in (lab.layout, layout))
        stays = {key for key in there.keys() & wanted.keys() if all(node not in self.new_nodes for node, _ in key)}
        self.old_links = [link for key, link in there.items() if key not in stays]
        self.new_links = [link for key, link in wanted.items() if key not in stays]
        self._note("link", map(_title, self.old_links), map(_title, self.new_links))
        self.other_links = [(there[key], wanted[key]) for key in there if key in stays and _differ(there[key], wanted[key])]
        self.done += [("changed", "link", f"{_title(new)}: {_difference(old, new)}") for old, new in self.other_links]
        self.old_routes, self.new_routes, self.moved_routes = self._routes()
        outside = hiding.outsides(layout)
        nats = [name for name, role in layout.nodes.items() if role == "nat"]
        self.outsides = {name: outside.get(name, ()) for name in nats if outside.get(name, ()) != self._outside(name)}
        for name, interfaces in self.outsides.items():
            self.done.append(("changed", "nat", f"{name}: hides by {', '.join(interfaces) or 'none'}"))

    def _note(self, sort: str, old: Iterable[str], new: Iterable[str]) -> None:
        self.done += [("removed", sort, what) for what in old] + [("added", sort, what) for what in new]

    def _outside(self, name: str) -> tuple[str, ...]:
        return () if name in self.new_nodes else hiding.outsides(self.before).get(name, ())

    def _routes(self) -> tuple[dict[str, list[StaticRoute]], dict[str, list[StaticRoute]], dict[str, list[StaticRoute]]]:
        """Those to be removed, made, and led another way, by node. A route goes by itself when its interface does."""
        lost = {(end.node, end.interface, version) for link in self.old_links for end in link.ends for version in (4, 6)}
        for was, now in self.other_links:
            for had, end in zip(_sorted(was), _sorted(now), strict=True):  # with the last IPv4 address go the routes of IPv4
                versions = (4, 6) if not now.up else (4,) if had.addresses[:1] != end.addresses[:1] else ()
                lost |= {(end.node, end.interface, version) for version in versions}
        old, new, moved = {}, {}, {}
        for name, routes in self.after.routes.items():
            gone = {} if name in self.new_nodes else {route.target: route for route in self.before.routes.get(name, ())}
            alive = {target: route for target, route in gone.items() if (name, route.interface, _version(route)) not in lost}
            wanted = {route.target: route for route in routes}
            old[name] = [route for target, route in alive.items() if target not in wanted]
            new[name] = [route for target, route in wanted.items() if target not in alive]
            moved[name] = [route for target, route in wanted.items() if target in alive and alive[target] != route]
            self._note("route", [f"{name}: {_way(gone[target])}" for target in gone if target not in wanted],
                       [f"{name}: {_way(route)}" for target, route in wanted.items() if target not in gone])  # fmt: skip
            self.done += [("changed", "route", f"{name}: {_way(route)}") for target, route in wanted.items()
                          if target in gone and gone[target] != route]  # fmt: skip
        return old, new, moved

    # -- doing it -------------------------------------------------------------------------------------------------------

    def carry_out(self, undo: contextlib.ExitStack) -> None:
        lab = self.lab
        undo.callback(undoing.let_go, lab, undoing.nodes(lab))
        for name in [name for name in self.old_nodes if name in lab.networks]:
            self.closing += [held[name] for held in (lab.networks, lab.hostnames)]
            # a new node of this name would seem to have these
            self.closing += [held.pop(name) for held in (lab.uplinks, lab.containers) if name in held]
        undo.callback(undoing.restore, undoing.tables(lab, self._touched()))
        lab.add_nodes(self.new_nodes)
        with network.batch():
            for name, routes in self.old_routes.items():
                self._send(lab.networks[name], [self._request(name, route, False) for route in routes])
            self._remove_links(undo)
        undo.callback(undoing.remove_new, lab, lab.interfaces.copy(), lab.bridges.copy())
        with network.batch():
            lab.add_bridges(self.new_nodes)
            for link in self.new_links:
                lab.add_link(link)
            for old, new in self.other_links:
                undo.callback(undoing.alter_back, lab, old, new)
                self._alter(old, new)
            for name, routes in self.moved_routes.items():
                self._send(lab.networks[name], [self._request(name, route, True, replaces=True) for route in routes])
            for name, routes in self.new_routes.items():
                self._send(lab.networks[name], [self._request(name, route, True) for route in routes])
        for name, outside in self.outsides.items():
            if name not in self.new_nodes:
                undo.callback(hiding.hide, lab.networks[name], self._outside(name))
            hiding.hide(lab.networks[name], outside)
        undo.callback(lab.name_nodes, self.before)
        lab.name_nodes(self.after)

    def let_go(self) -> None:
        """End what runs in nodes that go, and let go of them."""
        lab = self.lab
        for command in [command for command, name in lab.commands.items() if name in self.old_nodes]:
            command.end()
        for forward in [forward for forward, name in lab.forwards.items() if name in self.old_nodes]:
            forward.close()
        for name in self.old_nodes.keys() - self.new_nodes.keys():
            lab.networks.pop(name, None)
            lab.hostnames.pop(name, None)
        for each in self.closing:
            each.close()
        claims.claim(lab)

    def _touched(self) -> set[str]:
        """The nodes whose addresses or routes may change, also of those that go."""
        ends = [end.node for link in self.old_links for end in link.ends]
        ends += [end.node for _, new in self.other_links for end in new.ends]
        for routes in (self.old_routes, self.new_routes, self.moved_routes):
            ends += [name for name, found in routes.items() if found]
        return {name for name in ends if name in self.lab.networks}

    def _remove_links(self, undo: contextlib.ExitStack) -> None:
        """Links that go, but for those between two nodes whose namespaces go; then the bridges without ports."""
        lab = self.lab
        for link in self.old_links:
            staying = [end for end in link.ends if end.node not in self.old_nodes or end.node in lab.bridges]
            ends = {(end.node, end.interface): lab.interfaces.pop((end.node, end.interface)) for end in link.ends}
            if staying:
                undo.callback(undoing.make_again, lab, link, ends)
                interface = ends[staying[0].node, staying[0].interface]
                self._send(interface.network, [messages.delete_link(interface.index, interface.name)])
            else:
                undo.callback(lab.interfaces.update, ends)
        for name in self.old_nodes:
            if bridge := lab.bridges.pop(name, None):
                undo.callback(undoing.bridge_again, lab, name, bridge)
                self._send(bridge.network, [messages.delete_link(bridge.index, bridge.name)])

    def _alter(self, old: LinkLayout, new: LinkLayout) -> None:
        """What a link that stays is given and loses."""
        for was, end in zip(_sorted(old), _sorted(new), strict=True):
            interface = self.lab.interfaces[end.node, end.interface]
            if old.up and not new.up:
                interface.down()
            elif new.up and not old.up:
                interface.up()
            has = held(replace(old, up=old.up and new.up), was)
            self._send(interface.network, undoing.readdressed(interface.index, interface.name, has, held(new, end)))
            if old.limits() != new.limits():
                undoing.shape(interface, new)

    def _request(self, node: str, route: StaticRoute, adding: bool, *, replaces: bool = False) -> Request:
        interface = self.lab.interfaces[node, route.interface]
        return messages.change_route(
            adding, ip_network(route.target), via=ip_interface(route.via).ip, index=interface.index, name=interface.name,
            source=None, metric=None, replace=replaces,
        )  # fmt: skip

    def _send(self, where: Network, requests: list[Request]) -> None:
        """Have it done; what is to go and is not there is gone."""
        removes = ("RTM_DELLINK", "RTM_DELADDR", "RTM_DELROUTE")
        requests = [replace(each, fine=GONE) if each.name in removes else each for each in requests]
        if requests:
            batching.do(where, requests)


def _key(link: LinkLayout) -> frozenset[tuple[str, str]]:
    return frozenset((end.node, end.interface) for end in link.ends)


def _sorted(link: LinkLayout) -> list[Endpoint]:
    return sorted(link.ends, key=lambda end: end.node)


def _facts(link: LinkLayout) -> Iterator[tuple[str, str]]:
    for end in _sorted(link):
        yield end.node, " ".join(end.addresses) or "no address"
    yield "limits", ", ".join(f"{key} {text}" for key, text in link.limits().items()) or "no limits"
    yield "state", "up" if link.up else "down"


def _differ(old: LinkLayout, new: LinkLayout) -> bool:
    return [*_facts(old)] != [*_facts(new)]


def _difference(old: LinkLayout, new: LinkLayout) -> str:
    pairs = zip(_facts(old), _facts(new), strict=True)
    return "; ".join(f"{key} {now}, was {was}".replace("limits ", "").replace("state ", "")
                     for (key, was), (_, now) in pairs if was != now)  # fmt: skip


def _title(link: LinkLayout) -> str:
    return "--".join(f"{end.node} {end.interface}" for end in link.ends)


def _version(route: StaticRoute) -> int:
    return 6 if ":" in route.via else 4


def _way(route: StaticRoute) -> str:
    return f"{route.target} via {route.via} by {route.interface}"
