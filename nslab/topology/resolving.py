"""From a topology to its Layout: segments, names of interfaces, subnets, addresses. No kernel is asked.

Everything follows the order in which nodes and links were named, so that it comes out the same each time, and what is named
later changes little before it: segments are numbered by their first link; in a segment hosts have the lowest addresses, and
routers the highest (of the first 65,534). What a link of a running lab has already is chosen for it again, where that can be.
"""

from __future__ import annotations

import itertools
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from typing import TYPE_CHECKING

from nslab.errors import SpecError
from nslab.model.layout import Endpoint, Layout, LinkLayout, StaticRoute
from nslab.network.names import MAX_NAME
from nslab.topology import routing, values
from nslab.topology.values import Address, Subnet

if TYPE_CHECKING:
    from nslab.topology.node import Node
    from nslab.topology.topology import Topology

POOL: dict[int, Subnet] = {4: IPv4Network("10.0.0.0/8"), 6: IPv6Network("fd00::/48")}
SMALLEST = {4: 24, 6: 64}  # the prefix of an automatic subnet, unless more addresses are needed
HIGHEST = 65534  # the number, counted from 1, of the highest address that is given automatically
MAX_PORTS = 1023  # of one Linux bridge: BR_MAX_PORTS
WORLD = IPv4Network("0.0.0.0/0")  # where a nat with a way out of the machine leads
WAY_OUT = "internet"  # the interface by which it does
UPLINK = IPv4Network("100.64.0.0/24")  # between such a nat and the program that passes on what it sends. RFC 6598

End = tuple[int, str]  # the number of a link and the name of the node at this end of it
Kept = Mapping[int, LinkLayout]  # what links, by number, have in a running lab


@dataclass
class Segment:
    """What is linked through switches alone: it has one subnet of each family."""

    links: list[int] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)  # those of hosts and routers
    subnets: dict[int, Subnet] = field(default_factory=dict)  # by version, 4 and 6
    addresses: dict[End, list[Address]] = field(default_factory=dict)


def resolve(topology: Topology, kept: Kept | None = None) -> Layout:
    """The Layout of a topology; SpecError that names the node or the link which cannot be. ``kept`` is chosen again."""
    kept = kept or {}
    names = _interfaces(topology, kept)
    segments = _segments(topology)
    for segment in segments:
        _asked(topology, segment)
    _overlaps(topology, segments)
    _keep_subnets(topology, segments, kept)
    _choose_subnets(topology, segments)
    for segment in segments:
        _number(topology, segment, kept)
    home = {number: segment for segment in segments for number in segment.links}
    links = []
    for number, link in enumerate(topology.links):
        segment = home[number]
        one, two = (_endpoint(node, number, names, segment) for node in link.ends)
        subnets = tuple(str(segment.subnets[version]) for version in sorted(segment.subnets))
        outside = link.outside.name if link.outside else ""
        links.append(LinkLayout((one, two), subnets, link.rate, link.delay, link.loss, link.is_up, outside))
    roles = {node.name: node.role for node in topology}
    internet = tuple(node.name for node in topology if node.internet)
    return Layout(topology.name, roles, tuple(links), _routes(topology, roles, segments, names, internet), internet)


def _routes(
    topology: Topology, roles: Mapping[str, str], segments: list[Segment], names: dict[End, str], internet: Iterable[str]
) -> dict[str, tuple[StaticRoute, ...]]:
    """Routes by the links that are up. A nat takes nothing from outside that is for behind it, where it is not known."""
    down = {number for number, link in enumerate(topology.links) if not link.is_up}
    if down:
        segments = [replace(each, ends=[end for end in each.ends if end[0] not in down]) for each in segments]
    outside = {(number, link.outside.name) for number, link in enumerate(topology.links) if link.outside}
    if internet:
        ends = [(len(topology.links), name) for name in internet]
        segments = [*segments, Segment(ends=ends, subnets={4: WORLD}, addresses={end: [] for end in ends})]
        outside |= set(ends)
    return routing.routes(roles, segments, names, outside)


def _endpoint(node: Node, number: int, names: dict[End, str], segment: Segment) -> Endpoint:
    end = (number, node.name)
    return Endpoint(node.name, names[end], tuple(map(str, segment.addresses.get(end, ()))))


# -- names of interfaces ------------------------------------------------------------------------------------------------


def _interfaces(topology: Topology, kept: Kept) -> dict[End, str]:
    """A name for every end. Ports of switches share one namespace with the bridges themselves."""
    found: dict[End, str] = {}
    taken: dict[str, dict[str, str]] = {node.name: {} for node in topology if node.role != "switch"}
    for node in topology:
        if node.internet:
            taken[node.name][WAY_OUT] = "its way out of the machine"
    fabric = {node.name: f"the bridge of node {node.name!r}" for node in topology if node.role == "switch"}
    for number, link in enumerate(topology.links):
        for node in link.ends:
            place = taken.get(node.name, fabric)
            if (name := link.names.get(node.name)) is not None:
                if name in place:
                    raise SpecError(str(link), f"names: {name!r} on node {node.name!r} is {place[name]} already")
                place[name] = f"an end of {link}"
                found[number, node.name] = name
    for number, layout in kept.items():
        for end in layout.ends:
            place = taken.get(end.node, fabric)
            if (number, end.node) not in found and end.interface not in place:
                place[end.interface] = f"an end of {topology.links[number]}"
                found[number, end.node] = end.interface
    ports = Counter[str]()
    free = {node.name: itertools.count(0 if node.role != "switch" else 1) for node in topology}
    for number, link in enumerate(topology.links):
        for node in link.ends:
            ports[node.name] += 1
            if node.role == "switch" and ports[node.name] > MAX_PORTS:
                raise SpecError(f"node {node.name!r}", f"{link} is one port too many: a bridge has at most {MAX_PORTS:,}")
            if (number, node.name) not in found:
                place, start = taken.get(node.name, fabric), f"{node.name}-" if node.role == "switch" else "eth"
                name = next(name for count in free[node.name] if (name := f"{start}{count}") not in place)
                if (size := len(name.encode())) > MAX_NAME:
                    rule = f"its interface for {link} would be {name!r}, {size} bytes long, of at most {MAX_NAME}"
                    raise SpecError(f"node {node.name!r}", f"{rule}: give it a shorter name, or the link names={{...}}")
                place[name] = f"an end of {link}"
                found[number, node.name] = name
    return found


# -- segments -----------------------------------------------------------------------------------------------------------


def _segments(topology: Topology) -> list[Segment]:
    """The segments, in the order of their first links; SpecError where switches form a loop."""
    leader = {node.name: node.name for node in topology if node.role == "switch"}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    for link in topology.links:
        one, two = (node.name for node in link.ends)
        if one in leader and two in leader:
            if find(one) == find(two):
                raise SpecError(str(link), "closes a loop of switches, in which frames would go round for ever: use a router")
            leader[find(one)] = find(two)
    segments: dict[int | str, Segment] = {}
    for number, link in enumerate(topology.links):
        through = next((find(node.name) for node in link.ends if node.name in leader), None)
        segment = segments.setdefault(number if through is None else through, Segment())
        segment.links.append(number)
        segment.ends += [(number, node.name) for node in link.ends if node.name not in leader]
    return list(segments.values())


# -- subnets ------------------------------------------------------------------------------------------------------------


def _asked(topology: Topology, segment: Segment) -> None:
    """The subnets and addresses of a segment that were given, each in the other."""
    for link in (topology.links[number] for number in segment.links):
        for subnet in link.subnets:
            other = segment.subnets.setdefault(subnet.version, subnet)
            if other != subnet:
                raise SpecError(str(link), f"its subnet {subnet} is another than {other}, which the same segment has already")
    owners: dict[object, str] = {}
    for number, name in segment.ends:
        link = topology.links[number]
        for text in link.addresses.get(name, ()):
            address = _inside(f"{link}, node {name!r}", segment, text)
            if address.ip in owners:
                raise SpecError(
                    f"{link}, node {name!r}", f"its address {address.ip} is one of node {owners[address.ip]!r} already"
                )
            owners[address.ip] = name
            segment.addresses.setdefault((number, name), []).append(address)


def _inside(where: str, segment: Segment, text: str) -> Address:
    """An address that was given, with the length of its subnet if it has none of its own."""
    address, has_length = values.address(where, text)
    version = address.version
    if version not in segment.subnets:
        if not has_length:
            raise SpecError(where, f"the address {text} needs a length, as in {text}/{SMALLEST[version]}, or the link a subnet")
        segment.subnets[version] = values.subnet(where, str(address.network))
    subnet = segment.subnets[version]
    if address.ip not in subnet:
        raise SpecError(where, f"the address {address.ip} lies outside the subnet {subnet}")
    if not _first(subnet) <= int(address.ip) <= _last(subnet):
        raise SpecError(where, f"the address {address.ip} stands for the subnet {subnet} itself, or for all in it")
    return address if has_length else ip_interface(f"{address.ip}/{subnet.prefixlen}")


def _overlaps(topology: Topology, segments: Iterable[Segment]) -> None:
    given = [(subnet, segment) for segment in segments for subnet in segment.subnets.values()]
    if any(node.internet for node in topology):
        for subnet, segment in given:
            if subnet.overlaps(UPLINK):
                where = f"{topology.links[segment.links[0]]}"
                raise SpecError(where, f"its subnet {subnet} overlaps {UPLINK}, by which a nat leads out of the machine")
    given.sort(key=lambda pair: (pair[0].version, int(pair[0].network_address), pair[0].prefixlen))
    for (one, first), (two, second) in itertools.pairwise(given):
        if one.version == two.version and int(two.network_address) <= int(one.broadcast_address):
            where = f"{topology.links[first.links[0]]} and {topology.links[second.links[0]]}"
            raise SpecError(where, f"their subnets {one} and {two} overlap")


def _keep_subnets(topology: Topology, segments: list[Segment], kept: Kept) -> None:
    """For segments that were given no subnet those that their links have, where these are large enough and free."""
    given = sorted(_span(subnet) for segment in segments for subnet in segment.subnets.values())
    for segment in segments if kept else ():
        if segment.subnets:
            continue
        for text in (text for number in segment.links if number in kept for text in kept[number].subnets):
            subnet = ip_network(text)
            version, first, last = span = _span(subnet)
            at = bisect(given, span)
            after = at < len(given) and given[at][0] == version and given[at][1] <= last
            before = at > 0 and given[at - 1][0] == version and first <= given[at - 1][2]
            roomy = subnet.num_addresses > len(segment.ends) + 1 or subnet.prefixlen > SMALLEST[version]
            wanted = version == 4 or topology.ipv6
            if wanted and version not in segment.subnets and roomy and not before and not after:
                segment.subnets[version] = subnet
                given.insert(at, span)


def _span(subnet: Subnet) -> tuple[int, int, int]:
    return subnet.version, int(subnet.network_address), int(subnet.broadcast_address)


def _choose_subnets(topology: Topology, segments: list[Segment]) -> None:
    """Subnets for the segments that were given none, in their order, where nothing that was given lies."""
    asked = {number for number, link in enumerate(topology.links) if link.subnets or link.addresses}
    open_ones = [segment for segment in segments if asked.isdisjoint(segment.links)]
    for version in (4, 6) if topology.ipv6 else (4,):
        taken = sorted(
            (int(subnet.network_address), int(subnet.broadcast_address))
            for segment in segments
            for subnet in segment.subnets.values()
            if subnet.version == version
        )
        lacking = [segment for segment in open_ones if version not in segment.subnets]
        for segment, subnet in zip(lacking, _free(version, taken, lacking), strict=True):
            segment.subnets[version] = subnet


def _free(version: int, taken: list[tuple[int, int]], segments: list[Segment]) -> Iterator[Subnet]:
    pool = POOL[version]
    width = pool.max_prefixlen
    at = int(pool.network_address) + (1 << (width - SMALLEST[6]) if version == 6 else 0)  # fd00:0:0:1:: is the first
    for segment in segments:
        # its own address, that of all, and one for each end
        bits = max(width - SMALLEST[version], (len(segment.ends) + 1).bit_length())
        size = 1 << bits
        at = -(-at // size) * size
        while clash := next((last for first, last in taken if first < at + size and at <= last), None):
            at = -(-(clash + 1) // size) * size
        if at + size - 1 > int(pool.broadcast_address):
            raise SpecError("topology", f"has more segments than {pool} has subnets; give some of the links a subnet")
        yield IPv4Network((at, width - bits)) if version == 4 else IPv6Network((at, width - bits))
        at += size


def _first(subnet: Subnet) -> int:
    """The lowest address for a node. RFC 3021: a subnet of two has no other addresses than those of the two."""
    return int(subnet.network_address) + (subnet.prefixlen < subnet.max_prefixlen - 1)


def _last(subnet: Subnet) -> int:
    return int(subnet.broadcast_address) - (subnet.version == 4 and subnet.prefixlen < subnet.max_prefixlen - 1)


# -- addresses ----------------------------------------------------------------------------------------------------------


def _number(topology: Topology, segment: Segment, kept: Kept) -> None:
    """An address of each family for every end that was given none of it."""
    for version, subnet in sorted(segment.subnets.items()):
        taken = {int(each.ip) for given in segment.addresses.values() for each in given if each.version == version}
        first = _first(subnet)
        last = min(_last(subnet), first + HIGHEST - 1)
        upwards = (value for value in range(first, last + 1) if value not in taken)
        downwards = (value for value in range(last, first - 1, -1) if value not in taken)
        for end in segment.ends if kept else ():
            own = segment.addresses.setdefault(end, [])
            address = _held(kept, end, version)
            if address and address.network == subnet and int(address.ip) not in taken and not _has(own, version):
                taken.add(int(address.ip))
                own.append(address)
        for end in segment.ends:
            own = segment.addresses.setdefault(end, [])
            if _has(own, version):
                continue
            value = next(downwards if topology[end[1]].role in ("router", "nat") else upwards, None)
            if value is None or value in taken:
                count = _last(subnet) - first + 1
                where = f"{topology.links[end[0]]}, node {end[1]!r}"
                raise SpecError(where, f"the subnet {subnet} has {count:,} addresses, and all are taken")
            taken.add(value)
            own.append(_interface(version, value, subnet.prefixlen))
    for own in segment.addresses.values():
        own.sort(key=lambda each: each.version)  # stable: the first of a family stays the first


def _has(own: Iterable[Address], version: int) -> bool:
    return any(each.version == version for each in own)


def _held(kept: Kept, end: End, version: int) -> Address | None:
    """The first address of this family that an end has in the running lab."""
    texts = [text for each in (kept[end[0]].ends if end[0] in kept else ()) if each.node == end[1] for text in each.addresses]
    return next((address for address in map(ip_interface, texts) if address.version == version), None)


def _interface(version: int, value: int, length: int) -> Address:
    return IPv4Interface((value, length)) if version == 4 else IPv6Interface((value, length))
