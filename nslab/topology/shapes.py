"""Shapes that have a name, and those of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from nslab.errors import SpecError
from nslab.ops import spec

if TYPE_CHECKING:
    import networkx

    from nslab.topology.node import Node
    from nslab.topology.topology import Topology

    Made = TypeVar("Made", bound=Topology)

MOST = 100_000  # nodes; far above what one machine holds
OPTIONS = {"subnet", "addresses", "names", "rate", "delay", "loss", "up"}


def single(lab: Made, hosts: int) -> Made:
    count = spec.number("hosts", hosts, 1, MOST)
    switch = lab.switch("s1")
    for number in range(1, count + 1):
        lab.link(lab.host(f"h{number}"), switch)
    return lab


def linear(lab: Made, switches: int) -> Made:
    before: Node | None = None
    for number in range(1, spec.number("switches", switches, 1, MOST) + 1):
        switch = lab.switch(f"s{number}")
        lab.link(lab.host(f"h{number}"), switch)
        if before:
            lab.link(before, switch)
        before = switch
    return lab


def ring(lab: Made, routers: int) -> Made:
    nodes = [lab.router(f"r{number}") for number in range(1, spec.number("routers", routers, 3, MOST) + 1)]
    for number, router in enumerate(nodes, 1):
        lab.link(lab.host(f"h{number}"), router)
    for router, following in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        lab.link(router, following)
    return lab


def tree(lab: Made, depth: int, fanout: int) -> Made:
    spec.number("depth", depth, 1, MOST)
    spec.number("fanout", fanout, 1, MOST)
    if fanout > 1 and fanout**depth > MOST:
        raise SpecError("depth", f"{fanout} to the power of {depth} are more than {MOST} hosts")
    switches, hosts = 1, 0
    level = [lab.switch("s1")]
    for left in range(depth, 0, -1):
        below: list[Node] = []
        for switch in level:
            for _ in range(fanout):
                if left > 1:
                    switches += 1
                    below.append(lab.switch(f"s{switches}"))
                else:
                    hosts += 1
                    below.append(lab.host(f"h{hosts}"))
                lab.link(below[-1], switch)
        level = below
    return lab


def star(lab: Made, hosts: int) -> Made:
    count = spec.number("hosts", hosts, 1, MOST)
    router = lab.router("r1")
    for number in range(1, count + 1):
        lab.link(lab.host(f"h{number}"), router)
    return lab


def from_graph(lab: Made, graph: networkx.Graph[Any]) -> Made:
    make = {"host": lab.host, "router": lab.router, "nat": lab.nat, "switch": lab.switch}
    nodes: dict[Any, Node] = {}
    graph = graph.to_undirected()
    for key, attributes in graph.nodes(data=True):
        name = f"n{key}" if isinstance(key, int) else str(key)
        neighbours = set(graph[key]) - {key}
        role = attributes.get("role", "host" if len(neighbours) == 1 else "router")
        if role not in make:
            raise SpecError(f"node {name!r}", f"its role {role!r} is none of {', '.join(make)}")
        nodes[key] = make[role](name)
    for one, two, attributes in graph.edges(data=True):
        lab.link(nodes[one], nodes[two], **{key: value for key, value in attributes.items() if key in OPTIONS})
    return lab
