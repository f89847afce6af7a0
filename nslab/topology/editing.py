"""Changing what a topology says: addresses of links, another topology in its place, and how it was before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from nslab.errors import SpecError
from nslab.topology import values

if TYPE_CHECKING:
    from nslab.topology.link import Link
    from nslab.topology.node import Node
    from nslab.topology.topology import Topology


class Saved(NamedTuple):
    """What a topology says, with all that can be changed of its nodes and links."""

    ipv6: bool
    nodes: dict[str, Node]
    links: list[Link]
    inner: list[tuple[Node | Link, dict[str, Any]]]


def saved(topology: Topology) -> Saved:
    inner: list[Node | Link] = [*topology.nodes.values(), *topology.links]
    return Saved(topology.ipv6, dict(topology.nodes), list(topology.links), [(each, dict(vars(each))) for each in inner])


def restore(topology: Topology, before: Saved) -> None:
    topology.ipv6, topology.nodes, topology.links, inner = before
    for each, attributes in inner:
        vars(each).update(attributes)


def add_addresses(link: Link, node: Node | str, addresses: Iterable[str]) -> None:
    """More addresses for one end, behind those that it has, whether these were given or chosen."""
    _give(link, node, lambda own: (*own, *map(str, addresses)))


def remove_addresses(link: Link, node: Node | str, addresses: Iterable[str]) -> None:
    """Fewer; SpecError when it has not got one of them, or would have no other of the same family."""
    where = f"{link}, addresses"
    unwanted = {values.address(where, text)[0].ip for text in addresses}

    def less(own: tuple[str, ...]) -> tuple[str, ...]:
        there = {text: values.address(where, text)[0] for text in own}
        for missing in unwanted - {each.ip for each in there.values()}:
            raise SpecError(where, f"{missing} is none of {', '.join(own)}")
        left = tuple(text for text, each in there.items() if each.ip not in unwanted)
        if {each.version for each in there.values()} != {there[text].version for text in left}:
            raise SpecError(where, "one address of each family must stay; without a link a node has none")
        return left

    _give(link, node, less)


def _give(link: Link, node: Node | str, change: Any) -> None:
    topology, name = link.ends[0].topology, str(node)
    number = topology.number(link)
    end = next((end for end in topology.resolve().links[number].ends if end.node == name), None)
    if end is None or not end.addresses:
        rule = f"addresses: the port of switch {name} has none" if end else f"addresses: {name} is not an end of it"
        raise SpecError(str(link), rule)
    with topology.edited():
        link.addresses = {**link.addresses, name: change(end.addresses)}


def adopt(topology: Topology, wanted: Topology) -> None:
    """Let ``topology`` say what ``wanted`` says; the nodes and links of both are the same objects as before."""
    nodes = {}
    for node in wanted:
        own = topology.nodes.get(node.name)
        nodes[node.name] = own if own and node.is_like(own) else node.copy(topology)
    left: dict[frozenset[str], list[Link]] = {}
    for link in topology.links:
        if all(nodes.get(end.name) is end for end in link.ends):
            left.setdefault(_between(link), []).append(link)
    links: dict[int, Link] = {}
    for same in (True, False):  # of links between the same two, first those that are as wanted
        for number, link in enumerate(wanted.links):
            those = left.get(_between(link), [])
            found = next((each for each in those if not same or each.options() == link.options()), None)
            if found and number not in links:
                those.remove(found)
                links[number] = found
    for number, link in enumerate(wanted.links):
        ends = (nodes[link.ends[0].name], nodes[link.ends[1].name])
        links.setdefault(number, type(link)(ends, (), {}, {}, 0, 0, 0.0))
        outside = nodes[link.outside.name] if link.outside else None
        vars(links[number]).update({**vars(link), "ends": ends, "outside": outside})
    topology.ipv6, topology.nodes, topology.links = wanted.ipv6, nodes, [links[number] for number in range(len(links))]


def _between(link: Link) -> frozenset[str]:
    return frozenset(end.name for end in link.ends)
