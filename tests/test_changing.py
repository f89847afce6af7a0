"""Labs that change while they are up: against a fresh deploy of the same, the requests counted, and undone when it fails."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

import nslab
from nslab import Topology, network
from nslab.network import batching
from nslab.topology.lab import Lab
from tests.helpers import link
from tests.test_topology import two_subnets

IP = pytest.mark.requires("tool:ip")
PING = pytest.mark.requires("tool:ping")
SCRIPT = "ip -j -d link; echo; ip -j addr; echo; ip -j -4 route; echo; ip -j -6 route; echo; cat /etc/hosts"


def told(lab: Lab) -> dict[str, Any]:
    """What each node says of itself, without what is another each time: indexes, counters, tentative and remaining times."""
    found: dict[str, Any] = {}
    for name, role in lab.layout.nodes.items():
        if role == "switch":
            continue
        links, addresses, four, six, hosts = lab[name].run(SCRIPT, check=True).stdout.split("\n\n", 4)
        state = [(each["ifname"], each["address"], {"UP", "LOWER_UP"} & {*each["flags"]}) for each in json.loads(links)]
        given = [
            (each["ifname"], sorted((info["local"], info["prefixlen"], info["scope"]) for info in each["addr_info"]))
            for each in json.loads(addresses)
        ]
        first = {name: next((text for text, _, _ in infos if ":" not in text), "") for name, infos in given}
        routes = [
            sorted((route["dst"], route.get("gateway", ""), route["dev"], *route["flags"]) for route in json.loads(table))
            for table in (four, six)
        ]
        found[name] = sorted(state, key=str), sorted(given), first, routes, sorted(hosts.splitlines())
    ports = lab.fabric.links() if lab.fabric else []
    found[""] = sorted((each.name, each.up, each.mac, each.carrier) for each in ports if each.kind == "veth")
    return found


def same_as_fresh(topology: Topology) -> None:
    """The lab as it is, and a new one from the code that it gives for itself."""
    place: dict[str, Any] = {}
    exec(topology.to_python(), place)
    with topology.deploy() if not topology.running else topology.lab as changed, place["lab"].deploy() as fresh:
        assert changed.layout.routes == fresh.layout.routes
        assert told(changed) == told(fresh)


def wide() -> Topology:
    """Two routers, a switched segment, one to one links: all with automatic addresses."""
    lab = Topology("wide")
    r1, r2, s = lab.router("r1"), lab.router("r2"), lab.switch("s")
    for number in (1, 2, 3):
        lab.link(lab.host(f"h{number}"), s)
    lab.link(r1, s)
    lab.link(r1, r2)
    lab.link(r2, lab.host("far"))
    lab.link(r2, s)
    return lab


@IP
def test_nodes_and_links_are_added_while_it_is_up() -> None:
    lab = Topology("grows")
    s = lab.switch("s1")
    lab.link(lab.host("h1"), s)
    with lab.deploy() as running:
        before = lab["h1"].addresses
        late = lab.host("late")
        assert late.alive
        assert late.run("hostname").stdout == "late\n"
        lab.link(late, s, rate="10mbit")
        r = lab.router("r")
        lab.link(r, s)
        lab.link(r, lab.host("beyond"))
        assert lab.ping_all().lost == []
        assert lab["h1"].addresses == before
        assert "beyond" in lab["h1"].run("cat /etc/hosts").stdout, "names follow"
        assert running.last
        same_as_fresh(lab)


@IP
def test_nodes_and_links_are_removed_while_it_is_up() -> None:
    lab = wide()
    with lab.deploy():
        addresses = {name: lab[name].addresses for name in ("h1", "h3", "far", "r2")}
        sleeper = lab["h2"].popen("exec sleep 1000")
        lab["h2"].remove()
        assert sleeper.wait(2) != 0, "what ran in it has ended"
        with pytest.raises(nslab.SpecError, match="not in this topology"):
            lab["h2"]
        assert "h2" not in lab["h1"].run("cat /etc/hosts").stdout
        lab.links[0].remove()
        assert lab["h1"].run("ls /sys/class/net").stdout == "lo\n"
        lab.link("h1", "s")
        assert {name: lab[name].addresses for name in addresses} == addresses, "what stays keeps its own"
        lab.remove("r1")
        assert lab.ping_all().lost == []
        same_as_fresh(lab)


@PING
def test_routes_lead_around_a_link_that_is_down() -> None:
    lab = Topology.ring(4)
    with lab.deploy():
        over = next(link for link in lab.links if {end.name for end in link.ends} == {"r1", "r2"})
        assert "ttl=62" in lab["h1"].run("ping -4 -c1 h2").check().stdout
        over.down()
        assert "ttl=60" in lab["h1"].run("ping -4 -c1 h2").check().stdout, "the other way round the ring"
        assert lab["h1"].run("ping -6 -c1 -W2 h2").returncode == 0
        assert lab["r1"].run("cat /sys/class/net/eth1/operstate").stdout == "down\n"
        over.up()
        assert "ttl=62" in lab["h1"].run("ping -4 -c1 h2").check().stdout
        assert lab.ping_all().lost == []


@IP
@pytest.mark.parametrize("down", [0, 4])
def test_a_link_that_is_down_is_as_one_deployed_so(down: int) -> None:
    lab = wide()
    with lab.deploy():
        lab.links[down].down()
        same_as_fresh(lab)
    assert ", up=False)" in lab.to_python()
    with lab.deploy():
        lab.links[down].up()
        same_as_fresh(lab)
    assert lab.to_python() == wide().to_python()


@pytest.mark.requires("tool:tc")
def test_links_are_reshaped() -> None:
    lab = two_subnets()
    with lab.deploy():
        narrow = lab.links[1]

        def rates() -> list[list[int]]:
            found = []
            for node, interface in (("b", "eth0"), ("r", "eth1")):
                queues = json.loads(lab[node].run(f"tc -j qdisc show dev {interface}").check().stdout)
                found.append([queue["options"]["rate"] * 8 for queue in queues if queue["kind"] == "tbf"])
            return found

        narrow.shape(rate="2mbit")
        assert rates() == [[2_000_000]] * 2
        if not network.has("netem"):
            with pytest.raises(nslab.Unavailable, match="netem"):
                narrow.shape(delay="5ms")
            assert rates() == [[2_000_000]] * 2
            assert (narrow.rate, narrow.delay) == (2_000_000, 0)
        with pytest.raises(nslab.SpecError, match=r"link b--r.*unshape"):
            narrow.shape()
        narrow.unshape()
        assert rates() == [[], []]
        assert lab.ping_all().lost == []


@IP
def test_addresses_are_added_and_removed() -> None:
    lab = wide()
    with lab.deploy():
        wire, first = lab.links[1], lab["h2"].addresses[0]
        wire.address("h2", "10.0.0.77", "10.0.0.78/24")
        assert lab["h1"].run("ping -c1 -W1 10.0.0.78").returncode == 0
        same_as_fresh(lab)
    with lab.deploy():
        wire.remove_address("h2", first)
        assert lab["h2"].addresses[0] == "10.0.0.77"
        assert "10.0.0.77 h2" in lab["h1"].run("cat /etc/hosts").stdout
        with pytest.raises(nslab.SpecError, match="none of"):
            wire.remove_address("h2", first)
        with pytest.raises(nslab.SpecError, match="must stay"):
            wire.remove_address("h2", "10.0.0.77", "10.0.0.78")
        with pytest.raises(nslab.SpecError, match=r"10\.9\.0\.1 lies outside"):
            wire.address("h2", "10.9.0.1")
        with pytest.raises(nslab.SpecError, match="has none"):
            wire.address("s", "10.0.0.9")
        same_as_fresh(lab)


# -- apply --------------------------------------------------------------------------------------------------------------


def test_an_equal_topology_takes_no_request() -> None:
    lab = wide()
    with lab.deploy():
        with nslab.record() as trace:
            did = lab.apply(wide())
        assert not trace
        assert not did
        assert str(did) == "nothing to change"
        assert json.loads(did.to_json()) == []


def test_one_more_link_takes_its_own_requests_and_those_of_the_routes_that_change() -> None:
    lab, wanted = wide(), wide()
    wanted.link("far", "r1", rate="10mbit")
    with lab.deploy():
        before = {name: set(routes) for name, routes in lab.lab.layout.routes.items()}
        with nslab.record() as trace:
            did = lab.apply(wanted)
        after = lab.lab.layout.routes
        changed = sum(len(set(routes) ^ before[name]) for name, routes in after.items())
        calls = [step.call for step in trace]
        assert calls.count("RTM_NEWLINK") <= 1 + 1 + 2, "a veth pair, its other end up, and two for offloads"
        assert calls.count("RTM_NEWADDR") == 4
        assert calls.count("RTM_NEWROUTE") + calls.count("RTM_DELROUTE") <= changed
        assert did.requests == len(trace)
        assert {verb for verb, sort, _ in did.done if sort == "link"} == {"added"}
        assert "added    link  far eth1--r1 eth2" in str(did)
        assert lab.ping_all().lost == []
        same_as_fresh(lab)


def test_what_stays_is_not_touched() -> None:
    lab = wide()
    with lab.deploy() as running:
        h1, process = lab["h1"], lab["h1"].popen("exec sleep 1000")
        network_of = {name: each.namespace.id for name, each in running.networks.items()}
        indexes = {end: each.index for end, each in running.interfaces.items()}
        wanted = wide()
        wanted.remove("h2", "far")
        wanted.link(wanted.router("new"), "s")
        lab.apply(wanted)
        assert lab["h1"] is h1
        assert link("net", process.pid) == str(h1.network.namespace), "it runs on"
        assert {name: each.namespace.id for name, each in running.networks.items() if name != "new"} == {
            name: identity for name, identity in network_of.items() if name not in ("h2", "far")
        }
        staying = {end: each.index for end, each in running.interfaces.items() if "new" not in end and end[0] != "s"}
        assert staying.items() <= indexes.items()
        process.end()


SHAPES: dict[str, Callable[[], Topology]] = {
    "wide": wide,
    "two subnets": two_subnets,
    "ring": lambda: Topology.ring(4),
    "star": lambda: Topology.star(4),
    "tree": lambda: Topology.tree(depth=2, fanout=2),
    "single": lambda: Topology.single(4),
}


@IP
@pytest.mark.parametrize("seed", range(4))
def test_from_any_topology_to_any_other(seed: int) -> None:
    """A walk through shapes, and what is changed at random between them; at the end it is as if it had been deployed so."""
    choose = random.Random(seed)
    lab = SHAPES[choose.choice(list(SHAPES))]()
    with lab.deploy():
        for _ in range(3):
            lab.apply(_changed(SHAPES[choose.choice(list(SHAPES))](), choose))
        same_as_fresh(lab)


def _changed(lab: Topology, choose: random.Random) -> Topology:
    hosts = [node.name for node in lab if node.role == "host"]
    lab.remove(choose.choice(hosts))
    for _ in range(2):
        lab.link(choose.choice([node for node in lab if node.role != "host"]), lab.host(f"x{len(lab)}"))
    choose.choice(lab.links).shape(rate=choose.choice(("1mbit", "10mbit")))
    if choose.random() < 0.5:
        choose.choice(lab.links).down()
    return lab


def test_what_is_no_topology_is_refused() -> None:
    lab = wide()
    with pytest.raises(nslab.DeadNamespace, match="on paper only"):
        lab.apply(wide())
    with lab.deploy():
        with pytest.raises(nslab.SpecError, match="must be a Topology"):
            lab.apply("ring")  # type: ignore[arg-type]
        wanted = wide()
        wanted.link("h1", "h2", subnet="10.0.0.0/25")
        wanted.link("h1", "h3", subnet="10.0.0.0/26")
        with nslab.record() as trace, pytest.raises(nslab.SpecError, match="overlap"):
            lab.apply(wanted)
        assert not trace
        assert lab.to_python() == wide().to_python()


# -- undone -------------------------------------------------------------------------------------------------------------


def everything(lab: Topology) -> tuple[object, ...]:
    """What must be as before: what is told, what is written down, and what is held."""
    running = lab.lab
    held = {name: each.namespace.id for name, each in running.networks.items()}
    return told(running), lab.to_python(), str(lab), held, set(running.interfaces), set(running.bridges)


def _bigger() -> Topology:
    wanted = wide()
    wanted.remove("h2")
    wanted.links[2].remove()
    wanted.link(wanted.host("new"), wanted.switch("t"))
    wanted.link("t", wanted.router("r3"))
    wanted.link("r3", "r1")
    wanted.links[-4].shape(rate="1mbit")
    wanted.links[0].down()
    return wanted


FAILURES: dict[str, tuple[Any, str, int]] = {
    "namespaces": (network, "create_many", 1),
    "a bridge": (network.Network, "bridge", 0), "links": (network.Network, "veth", 1),
    "an address": (network.Interface, "address", 0), "a rate": (network.Interface, "shape", 0),
    "a state": (network.Interface, "down", 0), "removals": (batching, "deliver", 1), "requests": (batching, "deliver", 6),
}  # fmt: skip


@IP
@pytest.mark.parametrize("where", FAILURES)
def test_a_change_that_is_interrupted_is_undone_whole(monkeypatch, where: str) -> None:
    """Also when the kernel has done what was asked, and nobody has been told."""
    place, name, left = FAILURES[where]
    real, calls = getattr(place, name), itertools.count()

    def fails(*args: Any, **options: Any) -> Any:
        at = next(calls)
        if at != left:
            return real(*args, **options)
        if place is batching:
            real(*args, **options)
        raise KeyboardInterrupt("here")

    lab = wide()
    with lab.deploy():
        before = everything(lab)
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fails)
            with pytest.raises(KeyboardInterrupt, match="here"):
                lab.apply(_bigger())
        assert everything(lab) == before
        lab.apply(_bigger())
        same_as_fresh(lab)


@IP
def test_a_request_that_the_kernel_refuses_undoes_the_whole_change() -> None:
    lab = wide()
    with lab.deploy():
        lab["far"].run("ip link add eth1 type veth peer name eth9", check=True)
        before = everything(lab)
        with pytest.raises(nslab.SyscallError, match="EEXIST"):
            lab.link("far", lab["h1"])
        assert everything(lab) == before
        lab["far"].run("ip link del eth1", check=True)
        lab.link("far", lab["h1"])
        assert lab.ping_all().lost == []


@IP
def test_what_somebody_else_gave_stays_when_a_change_fails_on_it() -> None:
    lab = wide()
    with lab.deploy():
        lab["h1"].run("ip addr add 10.0.0.99/24 dev eth0", check=True)
        before = everything(lab)
        with pytest.raises(nslab.SyscallError, match="EEXIST"):
            lab.links[0].address("h1", "10.0.0.98", "10.0.0.99")
        assert everything(lab) == before
        lab["r1"].run("ip route del 10.0.2.0/24", check=True)
        lab.links[4].down()
        assert lab.ping_all().lost == []


def test_after_the_end_it_is_changed_on_paper() -> None:
    lab = wide()
    with lab.deploy():
        lab.links[0].remove()
    lab.links[0].down()
    lab.host("late")
    with pytest.raises(nslab.DeadNamespace):
        lab["late"].run("true")
    with lab.deploy():
        assert lab["late"].run("hostname").stdout == "late\n"
