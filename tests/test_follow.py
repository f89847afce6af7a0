"""A packet on its way through a lab: every step of it, in order, and what routers and NAT do to it."""

from __future__ import annotations

import json

import pytest

import nslab
from nslab import Topology
from nslab.model.packets import Walk
from tests.helpers import reaches


def over_a_router() -> Topology:
    """a -- s -- r -- b, in two subnets."""
    lab = Topology("walk", ipv6=False)
    r = lab.router("r")
    lab.link(lab.host("a"), lab.switch("s"), subnet="10.0.1.0/24")
    lab.link("s", r)
    lab.link(lab.host("b"), r, subnet="10.0.2.0/24")
    return lab


THERE = [
    ("a", "eth0", "out"),
    ("s", "s-1", "in"),
    ("s", "s-2", "out"),
    ("r", "eth0", "in"),
    ("r", "eth1", "out"),
    ("b", "eth0", "in"),
]
BACK = [(node, name, "in" if way == "out" else "out") for node, name, way in reversed(THERE)]


def steps(walk: Walk, number: int) -> list[tuple[str, str, str]]:
    return [(hop.node, hop.interface, hop.direction) for hop in walk.of(number)]


def test_a_ping_there_and_back() -> None:
    lab = over_a_router()
    with lab.deploy() as running:
        walk = lab.follow("a", lab["b"], protocol="ICMP")
        macs = {key: interface.state.mac for key, interface in running.interfaces.items()}
    assert steps(walk, 1) == THERE
    assert steps(walk, 2) == BACK
    assert [hop.packet.ttl for hop in walk.of(1)] == [64, 64, 64, 64, 63, 63]
    assert [hop.time for hop in walk.hops] == sorted(hop.time for hop in walk.hops)
    assert walk.hops[0].time == 0 < walk.hops[-1].time < 1
    assert {hop.packet.what.split(" id")[0] for hop in walk.of(2)} == {"echo reply"}
    for hop in walk.of(1):
        to = ("r", "eth0") if hop.node in ("a", "s") or (hop.interface == "eth0" and hop.node == "r") else ("b", "eth0")
        assert hop.packet.destination_mac == macs[to]
    assert not any(hop.changes for hop in walk.hops)
    assert isinstance(walk.value, float)
    assert walk.nodes == {"r": "router", "a": "host", "s": "switch", "b": "host"}


def test_who_is_asked_before_is_seen_too_and_the_table_has_all_of_it() -> None:
    lab = over_a_router()
    with lab.deploy():
        walk = lab.follow("a", "b")
    assert [walk.of(number)[0].packet.protocol for number in range(1, 7)] == ["ARP", "ARP", "ICMP", "ARP", "ARP", "ICMP"]
    assert walk.of(1)[0].packet.destination_mac == "ff:ff:ff:ff:ff:ff"
    assert len(walk.rows()) == 25
    assert "6 packets, 24 hops" in str(walk)
    assert "who has 10.0.1.254?" in walk._repr_mimebundle_()["text/html"]
    rows = json.loads(walk.to_json())
    assert rows[0]["node"] == "a"
    assert len(rows) == 24


@pytest.mark.requires("tool:nft")
def test_nat_is_a_change_of_address() -> None:
    lab = over_a_router()
    with lab.deploy() as running:
        lab["r"].network.masquerade(running.interfaces["r", "eth1"])
        walk = lab.follow(lambda: lab["a"].call(reaches, lab["b"].addresses[0]), port=9)
    assert walk.value is True
    assert steps(walk, 1) == THERE
    assert steps(walk, 2) == BACK
    (out,) = [hop for hop in walk.of(1) if hop.changes]
    (back,) = [hop for hop in walk.of(2) if hop.changes]
    assert (out.node, out.interface) == ("r", "eth1")
    assert (back.node, back.interface) == ("r", "eth0")
    assert out.changes[0].startswith("source 10.0.1.1:")
    assert " is now 10.0.2.254:" in out.changes[0]
    assert back.changes[0].startswith("destination 10.0.2.254:")
    assert out.changes[0] in str(walk)


def test_a_ping_that_nobody_answers_shows_how_far_it_came() -> None:
    lab = over_a_router()
    with lab.deploy():
        lab["r"].network.sysctls({"net.ipv4.ip_forward": 0})
        walk = lab.follow(lambda: lab["a"].call(reaches, lab["b"].addresses[0], 0.05), protocol="TCP")
        nothing = lab.follow(lambda: None, protocol="TCP")
    assert steps(walk, 1) == THERE[:4]
    assert nothing.hops == ()
    assert "nothing that was captured fits" in str(nothing)


def test_what_cannot_be_followed() -> None:
    lab = over_a_router()
    with lab.deploy():
        for wrong in (("a", "s"), ("s", "a"), ("a", "nobody"), ("a",)):
            with pytest.raises(nslab.SpecError):
                lab.follow(*wrong)
        with pytest.raises(ZeroDivisionError):
            lab.follow(lambda: 1 / 0)
    with pytest.raises(nslab.DeadNamespace):
        lab.follow("a", "b")
