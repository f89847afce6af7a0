"""Static routes by the shortest paths through the whole topology, as far as routers lead. Hosts do not forward.

A nat is a router that passes nothing on which comes from outside. A path is as long as the number of routers on it. Of paths
of equal length the one whose first interface, then whose first router was named first counts, so that the routes come out the
same each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from nslab.model.layout import StaticRoute

if TYPE_CHECKING:
    from nslab.topology.resolving import End, Segment

ALL = {4: "0.0.0.0/0", 6: "::/0"}


def routes(
    roles: Mapping[str, str], segments: Sequence[Segment], names: Mapping[End, str], outside: Collection[End] = ()
) -> dict[str, tuple[StaticRoute, ...]]:
    """The routes of every host and router, IPv4 first. A host has a default route, and others only where that leads astray.

    ``outside`` are the ends of nats at which they pass nothing on.
    """
    made: dict[str, list[StaticRoute]] = {name: [] for name, role in roles.items() if role != "switch"}
    for version in (4, 6):
        there = [segment for segment in segments if version in segment.subnets]
        for name, found in _family(version, roles, there, names, outside).items():
            made[name] += found
    return {name: tuple(found) for name, found in made.items()}


def _family(
    version: int, roles: Mapping[str, str], segments: Sequence[Segment], names: Mapping[End, str], outside: Collection[End]
) -> dict[str, list[StaticRoute]]:
    leading = [[end for end in segment.ends if roles[end[1]] in ("router", "nat")] for segment in segments]
    if not any(leading):
        return {}
    routers = [[end for end in ends if end not in outside] for ends in leading]
    ways = _ways(version, segments, routers, names)
    away = _distances(leading, routers)
    targets = [str(segment.subnets[version]) for segment in segments]
    made = {}
    for name, (own, steps) in ways.items():
        if not steps:
            continue
        if roles[name] == "host" and len({(via, interface) for _, via, interface in steps}) == 1:
            made[name] = [StaticRoute(ALL[version], steps[0][1], steps[0][2])]  # there is but one way out, wherever it leads
            continue
        found = []
        for number, target in enumerate(targets):
            reaching = [step for step in steps if step[0] in away[number]]
            if number not in own and reaching:
                _, via, interface = min(reaching, key=lambda step: away[number][step[0]])  # the first of those equally short
                found.append(StaticRoute(target, via, interface))
        made[name] = _with_default(version, found) if roles[name] == "host" else found
    return made


def _ways(
    version: int, segments: Sequence[Segment], routers: Sequence[Sequence[End]], names: Mapping[End, str]
) -> dict[str, tuple[set[int], list[tuple[str, str, str]]]]:
    """For each node the numbers of its own segments, and the steps from it: a router, its address there, the way to it."""
    ends = sorted((end, number) for number, segment in enumerate(segments) for end in segment.ends)
    found: dict[str, tuple[set[int], list[tuple[str, str, str]]]] = {}
    for end, number in ends:
        own, steps = found.setdefault(end[1], (set(), []))
        own.add(number)
        for router in routers[number]:
            if router[1] != end[1]:
                address = next(each for each in segments[number].addresses[router] if each.version == version)
                steps.append((router[1], str(address.ip), names[end]))
    return found


def _distances(leading: Sequence[Sequence[End]], routers: Sequence[Sequence[End]]) -> list[dict[str, int]]:
    """For each segment the routers from which it can be reached, and how many segments lie before it.

    ``leading`` are those that lead to a segment, ``routers`` those that pass on what comes from there.
    """
    takes: dict[str, list[int]] = {}
    for number, ends in enumerate(routers):
        for _, name in ends:
            takes.setdefault(name, []).append(number)
    found = []
    for segment in range(len(leading)):
        lengths: dict[str, int] = {}
        seen, edge, length = {segment}, {segment}, 0
        while edge:
            new = {name for number in edge for _, name in leading[number] if name not in lengths}
            lengths.update(dict.fromkeys(new, length))
            edge = {number for name in new for number in takes.get(name, ()) if number not in seen}
            seen |= edge
            length += 1
        found.append(lengths)
    return found


def _with_default(version: int, found: list[StaticRoute]) -> list[StaticRoute]:
    """The most frequent way as the default, and the others as they are."""
    if not found:
        return []
    out = [(route.via, route.interface) for route in found if route.target == ALL[version]]  # of the machine
    via, interface = out[0] if out else Counter((route.via, route.interface) for route in found).most_common(1)[0][0]
    default = StaticRoute(ALL[version], via, interface)
    return [default, *(route for route in found if (route.via, route.interface) != (via, interface))]
