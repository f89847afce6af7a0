"""Topologies on paper: what resolve() works out, checked by ipaddress and networkx, and what it refuses."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_interface, ip_network
from itertools import combinations

import networkx
import pytest

from nslab import SpecError
from nslab.model.layout import Layout
from nslab.topology import Topology

pytestmark = pytest.mark.unit


def two_subnets() -> Topology:
    lab = Topology("two subnets")
    a, b, r = lab.host("a"), lab.host("b"), lab.router("r")
    lab.link(a, r, subnet="10.0.1.0/24")
    lab.link(b, r, subnet="10.0.2.0/24", rate="10mbit")
    return lab


def mesh() -> Topology:
    """Routers as in the Petersen graph, a switched segment with two routers and a host with two interfaces."""
    lab = Topology.from_graph(networkx.petersen_graph(), name="mesh")
    lab.switch("s1")
    for number in range(10):
        lab.link(lab.host(f"h{number}"), f"n{number}")
    lab.link("n0", "s1")
    lab.link("n7", "s1")
    lab.link(lab.host("wide"), "s1")
    lab.link("wide", "n3")
    return lab


SHAPES = {
    "two subnets": two_subnets,
    "mesh": mesh,
    "single": lambda: Topology.single(40),
    "linear": lambda: Topology.linear(8),
    "ring": lambda: Topology.ring(7),
    "tree": lambda: Topology.tree(depth=2, fanout=10),
    "star": lambda: Topology.star(6),
}
all_shapes = pytest.mark.parametrize("shape", SHAPES)


def deliver(layout: Layout, start: str, target: str) -> list[str]:
    """The nodes that a packet passes, found with nothing but each node's own addresses and routes."""
    destination = ip_address(target)
    owners = {str(ip_interface(text).ip): end.node for link in layout.links for end in link.ends for text in end.addresses}
    path = [start]
    while path[-1] != owners[target]:
        node = path[-1]
        assert len(path) == 1 or layout.nodes[node] == "router", f"{path}: {node} does not forward"
        assert len(path) <= len(layout.nodes), f"{path} goes round"
        own = [ip_interface(text).network for end in layout.endpoints(node) for text in end.addresses]
        table = {net: target for net in own} | {ip_network(route.target): route.via for route in layout.routes[node]}
        fitting = [net for net in table if net.version == destination.version and destination in net]
        assert fitting, f"{path}: {node} has no route to {target}"
        via = table[max(fitting, key=lambda net: net.prefixlen)]
        assert via == target or any(ip_address(via) in net for net in own), f"{via} is no neighbour of {node}"
        path.append(owners[via])
    return path


def routers_only(layout: Layout) -> networkx.Graph:
    """Nodes with addresses and their segments, an edge where one is on the other."""
    graph = networkx.Graph()
    for link in layout.links:
        for end in link.ends:
            if layout.nodes[end.node] != "switch":
                graph.add_edge(end.node, link.subnets)
    return graph


@all_shapes
def test_any_node_reaches_any_other_by_a_shortest_path(shape: str) -> None:
    layout = SHAPES[shape]().resolve()
    graph = routers_only(layout)
    ends = [name for name, role in layout.nodes.items() if role != "switch"]
    some = ends if len(ends) < 14 else [*ends[:4], *ends[-4:]]
    hosts = {name for name in ends if layout.nodes[name] == "host"}
    for one, two in combinations(some, 2):
        for start, target in ((one, two), (two, one)):
            goal = layout.endpoints(target)[0]
            segment = next(link.subnets for link in layout.links if goal in link.ends)
            forwarding = graph.subgraph(set(graph) - hosts | {start})
            most = (networkx.shortest_path_length(forwarding, start, segment) + 1) // 2
            nearest = networkx.shortest_path_length(graph.subgraph({*forwarding, target}), start, target) // 2
            for text in goal.addresses:
                path = deliver(layout, start, str(ip_interface(text).ip))
                assert nearest <= len(path) - 1 <= most, (path, text)


@all_shapes
def test_addresses_lie_in_subnets_that_do_not_overlap(shape: str) -> None:
    layout = SHAPES[shape]().resolve()
    seen: set[str] = set()
    subnets = {ip_network(text) for link in layout.links for text in link.subnets}
    assert not [pair for pair in combinations(subnets, 2) if pair[0].version == pair[1].version and pair[0].overlaps(pair[1])]
    for link in layout.links:
        for end in link.ends:
            if layout.nodes[end.node] == "switch":
                assert end.addresses == ()
                continue
            assert {str(ip_interface(text).network) for text in end.addresses} == set(link.subnets)
            for text in end.addresses:
                face = ip_interface(text)
                assert face.ip in set(face.network.hosts()) if face.version == 4 else face.ip != face.network.network_address
                assert text not in seen
                seen.add(text)


@all_shapes
def test_it_comes_out_the_same_each_time_also_from_its_code(shape: str) -> None:
    lab = SHAPES[shape]()
    assert lab.resolve() == lab.resolve() == SHAPES[shape]().resolve()
    names: dict = {}
    exec(lab.to_python().replace("import nslab\n", "").replace("nslab.Topology", "Topology"), {"Topology": Topology}, names)
    assert names["lab"].resolve() == lab.resolve()
    assert names["lab"].to_python() == lab.to_python()


def test_what_is_added_later_leaves_addresses_as_they_were() -> None:
    lab = mesh()
    before = lab.resolve()
    lab.link(lab.host("late"), lab.router("later"))
    lab.link("later", "n1")
    lab.link("late", "s1")
    assert lab.resolve().links[: len(before.links)] == before.links


def test_the_two_subnets_in_numbers() -> None:
    layout = two_subnets().resolve()
    assert [end.addresses for end in layout.endpoints("r")] == [("10.0.1.254/24",), ("10.0.2.254/24",)]
    assert [(end.interface, end.addresses) for end in layout.endpoints("a")] == [("eth0", ("10.0.1.1/24",))]
    assert [(route.target, route.via) for route in layout.routes["a"]] == [("0.0.0.0/0", "10.0.1.254")]
    assert layout.links[1].rate == 10_000_000


def test_a_link_without_a_subnet_has_both_families() -> None:
    lab = Topology.single(300)
    layout = lab.resolve()
    assert layout.links[0].subnets == ("10.0.0.0/23", "fd00:0:0:1::/64"), "300 hosts do not fit into a /24"
    assert layout.links[299].ends[0].addresses == ("10.0.1.44/23", "fd00:0:0:1::12c/64")
    assert layout.links[299].ends[1].interface == "s1-300"
    lab = Topology(ipv6=False)
    lab.link(lab.host("a"), lab.host("b"))
    assert lab.resolve().links[0].subnets == ("10.0.0.0/24",)


def test_automatic_subnets_go_around_those_that_were_given() -> None:
    lab = Topology()
    hosts = [lab.host(f"h{number}") for number in range(6)]
    lab.link(hosts[0], hosts[1])
    lab.link(hosts[2], hosts[3], subnet=("10.0.0.128/25", "fd00:0:0:1::/64"))
    lab.link(hosts[4], hosts[5], addresses={"h4": "10.0.1.9/29"})
    found = [link.subnets for link in lab.resolve().links]
    assert found == [("10.0.2.0/24", "fd00:0:0:2::/64"), ("10.0.0.128/25", "fd00:0:0:1::/64"), ("10.0.1.8/29",)]
    assert lab.resolve().links[2].ends[1].addresses == ("10.0.1.10/29",), "the first that is free"


def test_aliases_names_and_a_point_to_point_subnet() -> None:
    lab = Topology()
    a, b, c = lab.host("a"), lab.router("b"), lab.host("c")
    aliases = {a: ["10.7.0.5", "10.7.0.200/24", "10.7.0.6/25"]}
    lab.link(a, b, subnet="10.7.0.0/24", names={a: "uplink", "b": "eth0"}, addresses=aliases)
    lab.link(b, c, subnet="192.0.2.0/31")
    one, two = lab.resolve().links
    assert one.ends[0].interface == "uplink"
    assert one.ends[0].addresses == ("10.7.0.5/24", "10.7.0.200/24", "10.7.0.6/25")
    assert [end.interface for end in (one.ends[1], *two.ends)] == ["eth0", "eth1", "eth0"]
    assert [end.addresses for end in two.ends] == [("192.0.2.1/31",), ("192.0.2.0/31",)]


def test_from_a_graph() -> None:
    graph = networkx.Graph()
    graph.add_edge("web", "core", rate="1gbit", delay="2ms", loss="0.5%", weight=3)
    graph.add_edge("db", "core", subnet="10.9.0.0/16")
    graph.add_node(7, role="host")
    graph.add_edge(7, "core")
    graph.add_edge(7, "web", subnet="10.8.0.0/30")
    graph.add_node("web", role="host")
    lab = Topology.from_graph(graph, name="office")
    assert {node.name: node.role for node in lab} == {"web": "host", "core": "router", "db": "host", "n7": "host"}
    first = lab.resolve().links[0]
    assert (first.rate, first.delay, first.loss) == (10**9, 2000, 0.5)
    assert lab.links[0].options() == {"rate": "1gbit", "delay": "2ms", "loss": "0.5%"}
    directed = networkx.DiGraph([("a", "b"), ("b", "a"), ("b", "c")])
    assert len(Topology.from_graph(directed).links) == 2
    with pytest.raises(SpecError, match=r"link a--a.*itself"):
        Topology.from_graph(networkx.Graph([("a", "a")]))


def test_shapes_have_the_size_that_they_say() -> None:
    tree = Topology.tree(depth=3, fanout=4)
    roles = [node.role for node in tree]
    assert (roles.count("switch"), roles.count("host"), len(tree.links)) == (1 + 4 + 16, 64, 4 + 16 + 64)
    ring = networkx.Graph([[end.name for end in link.ends] for link in Topology.ring(5).links])
    assert sorted(map(len, networkx.cycle_basis(ring))) == [5]
    assert len(Topology.linear(8).resolve().links) == 15
    for wrong in (lambda: Topology.ring(2), lambda: Topology.single(0), lambda: Topology.tree(depth=9, fanout=9)):
        with pytest.raises(SpecError):
            wrong()


def test_B07_the_third_positional_argument_of_a_link_is_refused() -> None:
    lab = Topology()
    with pytest.raises(TypeError):
        lab.link(lab.host("a"), lab.host("b"), "10.0.0.0/24")  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a/b", "a b", "a:b", ".", "..", "", "d%d", "SW_SUPERVISOR_16", "é" * 8, "lo", "a\n"])
def test_B01_B02_names_that_the_kernel_refuses_or_rewrites(name: str) -> None:
    lab = Topology()
    with pytest.raises(SpecError, match=re.escape(repr(name))):
        lab.host(name)
    with pytest.raises(SpecError, match=re.escape(repr(name))):
        lab.link(lab.host("a"), lab.host("b"), names={"a": name})
    assert len(lab) == 2
    assert not lab.links


def test_B01_the_port_of_a_switch_with_a_long_name() -> None:
    lab = Topology()
    lab.link(lab.switch("SW_SUPERVISOR_1"), lab.host("h1"))
    with pytest.raises(SpecError, match=r"node 'SW_SUPERVISOR_1'.*'SW_SUPERVISOR_1-1', 17 bytes long, of at most 15"):
        lab.resolve()
    lab = Topology()
    lab.link(lab.switch("SW_SUPERVISOR_1"), lab.host("h1"), names={"SW_SUPERVISOR_1": "p1"})
    assert lab.resolve().links[0].ends[0].interface == "p1"


@pytest.mark.parametrize("name", ["localhost", "7", "10.0.0.1", "0x7f", "default", "x#y", "ip6-localhost"])
def test_names_that_mean_something_else(name: str) -> None:
    with pytest.raises(SpecError, match=re.escape(name)):
        Topology().host(name)


def _linked(*links, switches: str = "", **options) -> Topology:
    """Nodes are made as they are named: hosts, or switches."""
    lab = Topology()
    for one, two, *rest in links:
        for name in (one, two):
            if name not in lab:
                (lab.switch if name in switches.split() else lab.host)(name)
        lab.link(one, two, **(rest[0] if rest else {}), **options)
    return lab


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: [lab := Topology(), lab.host("a"), lab.router("a")], r"node 'a': is there already"),
        (lambda: [lab := Topology(), lab.host("web"), lab.router("Web")], r"node 'Web'.*'web'"),
        (lambda: _linked(("a", "a")), r"link a--a: leads from a node to itself"),
        (lambda: Topology().link("a", "b"), r"node 'a': is not in this topology"),
        (lambda: Topology().link(Topology().host("a"), "b"), r"node 'a': belongs to another topology"),
        (lambda: _linked(("a", "b", {"subnet": "10.0.0.0/24"}), ("c", "d", {"subnet": "10.0.0.128/25"})),
         r"link a--b and link c--d: their subnets 10.0.0.0/24 and 10.0.0.128/25 overlap"),
        (lambda: _linked(("a", "s", {"subnet": "10.0.0.0/24"}), ("b", "s", {"subnet": "10.0.1.0/24"}), switches="s"),
         r"link b--s: its subnet 10.0.1.0/24 is another than 10.0.0.0/24"),
        (lambda: _linked(("a", "b"), subnet="10.0.0.0/24", addresses={"a": "10.0.1.5"}),
         r"link a--b, node 'a': the address 10.0.1.5 lies outside the subnet 10.0.0.0/24"),
        (lambda: _linked(("a", "b"), subnet="10.0.0.0/24", addresses={"a": "10.0.0.255"}), r"node 'a': the address 10.0.0.255"),
        (lambda: _linked(("a", "b"), subnet="10.0.0.0/24", addresses={"a": "10.0.0.5", "b": "10.0.0.5"}),
         r"link a--b, node 'b': its address 10.0.0.5 is one of node 'a' already"),
        (lambda: _linked(("a", "b"), addresses={"a": "10.0.0.5"}), r"link a--b, node 'a'.*needs a length"),
        (lambda: _linked(("a", "b"), addresses={"c": "10.0.0.5"}), r"node 'c'"),
        (lambda: _linked(("a", "s"), switches="s", addresses={"s": "10.0.0.5/24"}), r"link a--s.*port of switch s"),
        (lambda: _linked(("a", "s"), ("b", "s"), ("c", "s"), ("d", "s"), switches="s", subnet="10.0.0.0/30"),
         r"link c--s, node 'c': the subnet 10.0.0.0/30 has 2 addresses, and all are taken"),
        (lambda: _linked(("a", "b"), subnet="10.0.0.1/24"), r"link a--b.*an address in the subnet 10.0.0.0/24"),
        (lambda: _linked(("a", "b"), subnet="127.0.0.0/8"), r"link a--b.*reserved"),
        (lambda: _linked(("a", "b"), subnet="10.0.0.1/32"), r"link a--b.*one address only"),
        (lambda: _linked(("a", "b"), subnet="ten"), r"link a--b: 'ten' is no subnet"),
        (lambda: _linked(("a", "b"), subnet=("10.0.0.0/24", "10.0.1.0/24")), r"link a--b: has more than one"),
        (lambda: _linked(("a", "b"), ("a", "c"), names={"a": "up"}), r"link a--c: names: 'up' on node 'a' is an end of"),
        (lambda: _linked(("s", "a"), ("s", "b", {"names": {"s": "s"}}), switches="s"), r"link s--b.*the bridge of node 's'"),
        (lambda: _linked(("s", "t"), ("t", "u"), ("u", "s"), switches="s t u"), r"link u--s: closes a loop of switches"),
        (lambda: _linked(("s", "t"), ("t", "s"), switches="s t"), r"link t--s: closes a loop of switches"),
        (lambda: Topology.single(1024), r"node 's1': link h1024--s1 is one port too many: a bridge has at most 1,023"),
        (lambda: _linked(("a", "b"), rate="10"), r"link a--b: rate '10' is not a number and its unit"),
        (lambda: _linked(("a", "b"), rate=10), r"link a--b: rate 10"),
        (lambda: _linked(("a", "b"), rate="0mbit"), r"link a--b: rate '0mbit' does not lie"),
        (lambda: _linked(("a", "b"), delay="5min"), r"link a--b: delay '5min'"),
        (lambda: _linked(("a", "b"), loss="101%"), r"link a--b: loss '101%'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_says_where(make, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        lab = make()
        lab.resolve()


def test_a_bridge_takes_so_many_ports() -> None:
    assert len(Topology.single(1023).resolve().links) == 1023


def test_the_display() -> None:
    lab = two_subnets()
    shown = lab._repr_mimebundle_()
    assert "2 hosts, 1 router, 2 links" in shown["text/plain"]
    assert re.search(r"b +eth0 +10.0.2.1/24 +r +eth1 +10.0.2.254/24 +10.0.2.0/24 +rate 10mbit", str(lab))
    assert "10.0.2.254/24" in shown["text/html"]
    lab.link("a", "b", subnet="10.0.1.0/25")
    assert "overlap" in lab._repr_mimebundle_()["text/html"], "one that is not finished is shown too"
    assert "0 links" in repr(Topology())
    Topology()._repr_mimebundle_()
