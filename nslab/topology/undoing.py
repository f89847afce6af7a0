"""Undoing a change of a lab: what was made goes, what went is made again, and addresses and routes are as they were found.

Each step may find that there is nothing to undo, for it cannot be known how far a change came that was interrupted.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, NamedTuple

from nslab.errors import NslabError
from nslab.model import InterfaceState, Route
from nslab.model.layout import LinkLayout
from nslab.namespaces import Namespace
from nslab.netlink import Request
from nslab.network import Interface, Network, batching, messages

if TYPE_CHECKING:
    from nslab.topology.contained import NodeContainer
    from nslab.topology.internet import Uplink
    from nslab.topology.lab import Lab

End = tuple[str, str]  # a node and one of its interfaces
ANY = range(1, 4096)  # every errno


class Nodes(NamedTuple):
    """The namespaces of a lab."""

    networks: dict[str, Network]
    hostnames: dict[str, Namespace]
    containers: dict[str, NodeContainer]
    uplinks: dict[str, Uplink]
    fabric: Network | None


class Table(NamedTuple):
    """The interfaces of a node, with their addresses, and its routes, as the kernel told them."""

    network: Network
    links: list[InterfaceState]
    routes: list[Route]


def nodes(lab: Lab) -> Nodes:
    return Nodes(lab.networks.copy(), lab.hostnames.copy(), lab.containers.copy(), lab.uplinks.copy(), lab.fabric)


def let_go(lab: Lab, before: Nodes) -> None:
    """Let go of the namespaces that are new."""
    new: list[Uplink | NodeContainer | Network | Namespace] = []
    for there, held in (
        (lab.uplinks, before.uplinks),
        (lab.containers, before.containers),
        (lab.networks, before.networks),
        (lab.hostnames, before.hostnames),
    ):
        new += [each for name, each in there.items() if held.get(name) is not each]
    for each in new + ([lab.fabric] if lab.fabric and not before.fabric else []):
        each.close()
    lab.networks, lab.hostnames, lab.containers, lab.uplinks, lab.fabric = before


def remove_new(lab: Lab, interfaces: dict[End, Interface], bridges: dict[str, Interface]) -> None:
    """Remove all interfaces but these, which were there before."""
    new = [each for end, each in lab.interfaces.items() if interfaces.get(end) is not each]
    new += [each for name, each in lab.bridges.items() if bridges.get(name) is not each]
    for each in new:
        _send(each.network, [messages.delete_link(each.index, each.name)])
    lab.interfaces, lab.bridges = interfaces, bridges


def make_again(lab: Lab, link: LinkLayout, ends: dict[End, Interface]) -> None:
    """Make a link that was removed, if it was; ``ends`` are the handles on it."""
    if all(_is_there(each) for each in ends.values()):
        lab.interfaces.update(ends)
    else:
        lab.add_link(link)


def bridge_again(lab: Lab, name: str, bridge: Interface) -> None:
    if _is_there(bridge):
        lab.bridges[name] = bridge
    else:
        lab.add_bridges({name: "switch"})


def alter_back(lab: Lab, old: LinkLayout, new: LinkLayout) -> None:
    """Turn a link on or off again, and slow it down as before."""
    for end in old.ends:
        interface = lab.interfaces[end.node, end.interface]
        with contextlib.suppress(NslabError):
            if old.up != new.up:
                interface.up() if old.up else interface.down()
            if old.limits() != new.limits():
                shape(interface, old)


def shape(interface: Interface, link: LinkLayout) -> None:
    """Slow it down as this link is to be."""
    if link.limits():
        interface.shape(rate=link.rate or None, delay=link.delay or None, loss=link.loss or None)
    else:
        interface.unshape()


def tables(lab: Lab, names: Iterable[str]) -> list[Table]:
    networks = [lab.networks[name] for name in names]
    return [Table(each, each.links(), each.routes()) for each in networks]


def restore(before: list[Table]) -> None:
    """Let these have the addresses and routes again that they had, whoever gave them; of interfaces by name."""
    for network, links, routes in before:
        with contextlib.suppress(NslabError):
            now = {each.name: each for each in network.links()}
            for was in links:
                if there := now.get(was.name):
                    _send(network, readdressed(there.index, there.name, there.addresses, was.addresses))
            names = {each.index: each.name for each in links}
            wanted = {_named(route, names): route for route in routes}
            found = {_named(route, {each.index: name for name, each in now.items()}): route for route in network.routes()}
            _send(network, [_request(route, name, route.index, False) for (_, name), route in found.items()
                            if (replace(route, index=0), name) not in wanted])  # fmt: skip
            _send(network, [_request(route, name, now[name].index, True) for (_, name), route in wanted.items()
                            if (replace(route, index=0), name) not in found and name in now])  # fmt: skip


def readdressed(index: int, name: str, has: Sequence[str], wanted: Sequence[str]) -> list[Request]:
    """From some addresses to others. With the first IPv4 address of a subnet the kernel takes away the others too."""
    requests = []
    for is_v6 in (False, True):
        old, new = (_family(each, is_v6) for each in (has, wanted))
        if is_v6:
            gone, more = [text for text in old if text not in new], [text for text in new if text not in old]
        else:
            pairs = zip(old, new, strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            gone, more = old[same:], new[same:]
        requests += [messages.change_address(False, index, name, ip_interface(text)) for text in reversed(gone)]
        requests += [messages.change_address(True, index, name, ip_interface(text)) for text in more]
    return requests


def _family(addresses: Sequence[str], is_v6: bool) -> list[str]:
    """Those of IPv4, or those of IPv6 that were given."""
    return [text for text in addresses if (":" in text) == is_v6 and not text.startswith("fe80:")]


def _named(route: Route, names: dict[int, str]) -> tuple[Route, str]:
    return replace(route, index=0), names.get(route.index, "")


def _request(route: Route, name: str, index: int, adding: bool) -> Request:
    subnet = ip_network(route.to if route.to != "default" else "0.0.0.0/0" if route.version == 4 else "::/0")
    via = ip_interface(route.via).ip if route.via else None
    metric = route.metric or None
    return messages.change_route(adding, subnet, via=via, index=index, name=name, source=None, metric=metric, replace=False)


def _is_there(interface: Interface) -> bool:
    return any(each.index == interface.index for each in interface.network.links())


def _send(network: Network, requests: list[Request]) -> None:
    """Have it done, whether there is something to do or not."""
    if requests:
        batching.deliver(network, [replace(each, fine=ANY) for each in requests])
