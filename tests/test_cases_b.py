"""What goes wrong in network labs elsewhere, after reports of users of other tools; each must go right here."""

from __future__ import annotations

import json
import os
import socket

import pytest

import nslab
from nslab import Topology, network
from nslab.network import Network, check_name, decoding
from tests import uml
from tests.helpers import ROOT, reaches

NO_IPV6 = {"net.ipv6.conf.default.disable_ipv6": 1}
needs_ip = pytest.mark.requires("tool:ip")


def bind(address: str) -> None:
    """Take a port at this address, at once."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind((address, 0))


def sends(size: int, address: str) -> None:
    """Send one UDP datagram of this size that may not be cut into fragments; OSError EMSGSIZE when it is too large here."""
    ip_mtu_discover, ip_pmtudisc_do = 10, 2
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, ip_mtu_discover, ip_pmtudisc_do)
        sock.sendto(bytes(size), (address, 9))


def says(address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", (address, 9))


def linkinfo(where: Network, name: str):
    (shown,) = json.loads(where.run(["ip", "-j", "-d", "link", "show", name], check=True).stdout)
    return shown["linkinfo"]


def test_B01_a_name_over_15_bytes_is_refused_before_any_request() -> None:
    with network.create() as a:
        before = len(a.trace)
        for long in ("SW_SUPERVISOR_1-eth5", "x" * 16, "é" * 8):
            with pytest.raises(nslab.SpecError, match="at most 15"):
                a.veth("ok", a, long)
            with pytest.raises(nslab.SpecError, match="at most 15"):
                a.bridge(long)
        assert len(a.trace) == before
        a.veth("x" * 15, a, "é" * 7)
        assert {"x" * 15, "é" * 7} < {each.name for each in a.links()}


@pytest.mark.parametrize("name", ["a/b", "a b", "a:b", ".", "..", "", "d%d", "a\tb", "a\0b", "à", "all", "default", None])
def test_B02_a_name_that_the_kernel_refuses_or_rewrites(name) -> None:
    with pytest.raises(nslab.SpecError):
        check_name(name)
    with network.create() as a:
        with pytest.raises(nslab.SpecError):
            a.interface("lo").set(name=name or "")
        assert [each.name for each in a.links()] == ["lo"]


@needs_ip
def test_B02_names_that_are_accepted_stay_as_they_are() -> None:
    with network.create() as a:
        for name in ("é", "a.b", "-x", "x@y", "☃☃☃☃☃"):
            assert check_name(name) == name
            a.bridge(name)
            assert a.run(["ip", "link", "show", "dev", name]).returncode == 0


def test_B05_deploying_and_destroying_50_times_in_a_row() -> None:
    with network.create(sysctls=NO_IPV6) as fabric:
        for _ in range(50):
            with network.create(sysctls=NO_IPV6) as host:
                eth0, port = host.veth("eth0", fabric, "port")  # the same name each time
                port.delete()  # and so both ends are gone when this returns
                assert [each.name for each in host.links()] == ["lo"]
            assert [each.name for each in fabric.links()] == ["lo"]
        assert eth0.name == "eth0"


def test_B17_an_ipv6_address_can_be_used_at_once() -> None:
    a, b = network.create_many(2)
    with a, b:
        near, far = a.veth("eth0", b, "eth0")
        near.address("2001:db8::1/64")
        a.call(bind, "2001:db8::1")
        far.address("2001:db8::2/64")
        assert a.call(reaches, "2001:db8::2")


def test_B18_a_port_of_a_bridge_forwards_from_its_first_moment() -> None:
    a, b, switch = made = network.create_many(3, sysctls=NO_IPV6)
    bridge = switch.bridge("br0")
    for number, host in enumerate((a, b), 1):
        host.veth("eth0", switch, f"p{number}", other_master=bridge)[0].address(f"10.0.0.{number}/24")
    assert a.call(reaches, "10.0.0.2", 0.9)
    for each in made:
        each.close()


@needs_ip
def test_B18_the_bridge_says_that_stp_is_off() -> None:
    with network.create() as switch:
        switch.bridge("br0")
        switch.bridge("br1", stp=True)
        assert [linkinfo(switch, name)["info_data"]["stp_state"] for name in ("br0", "br1")] == [0, 1]


def test_B20_a_bridge_keeps_its_mac_whatever_its_ports_have() -> None:
    with network.create() as switch, network.create() as host:
        bridge = switch.bridge("br0")
        mac = bridge.state.mac
        _, port = host.veth("eth0", switch, "p1", other_mac="02:00:00:00:00:01", other_master=bridge)
        assert port.state.mac == "02:00:00:00:00:01" < mac
        assert bridge.state.mac == mac
        port.detach()
        assert bridge.state.mac == mac
        assert switch.bridge("br1", mac="02:00:00:00:00:99").state.mac == "02:00:00:00:00:99"


def test_B21_the_mtu_is_that_of_both_ends_and_of_the_bridge() -> None:
    a, b, switch = made = network.create_many(3, sysctls=NO_IPV6)
    bridge = switch.bridge("br0", mtu=9000)
    ends = []
    for number, host in enumerate((a, b), 1):
        ends += host.veth("eth0", switch, f"p{number}", mtu=9000, other_master=bridge)
        ends[-2].address(f"10.0.0.{number}/24")
    assert [each.state.mtu for each in ends] == [9000] * 4
    assert bridge.state.mtu == 9000
    assert a.call(reaches, "10.0.0.2")
    before = ends[2].state.counters.rx_bytes
    a.call(sends, 8000, "10.0.0.2")
    assert ends[2].state.counters.rx_bytes - before >= 8000
    with pytest.raises(OSError, match="too long"):
        a.call(sends, 9000, "10.0.0.2")
    switch.veth("p3", switch, "p4", mtu=1400, master=bridge)
    assert bridge.state.mtu == 9000, "as it was told, not the smallest of its ports"
    for each in made:
        each.close()


def test_B23_what_the_kernel_lacks_is_named_before_anything_is_made() -> None:
    lacking = [each for each in ("netem", "dummy", "vlan", "vlan filtering") if not network.has(each)]
    with network.create() as a:
        one, _ = a.veth("one", a, "two")
        asking = {
            "netem": lambda: one.shape(rate="1mbit", delay="10ms"), "dummy": lambda: a.dummy("d"),
            "vlan": lambda: a.vlan("v", one, 7), "vlan filtering": lambda: a.bridge("b", vlan_filtering=True),
        }  # fmt: skip
        before = a.links()
        for feature in lacking:
            steps = len(a.trace)
            with pytest.raises(nslab.Unavailable, match=feature) as caught:
                asking[feature]()
            assert "CONFIG_" in caught.value.how_to_get_it
            assert not [each for each in a.trace[steps:] if not each.errno]
        assert [each.name for each in a.links()] == [each.name for each in before]
        one.shape(rate="1mbit", delay=0)  # needs no netem


@pytest.mark.requires("root", "tool:linux.uml", "tool:tc")
def test_B23_a_kernel_that_has_all_of_it_does_all_of_it() -> None:
    """netem, dummy, VLANs and their filter, on another kernel: as tc and bridge show it, and the delay as a clock does."""
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from nslab import network
from tests.helpers import reaches
assert all(map(network.has, ("netem", "tbf", "htb", "dummy", "vlan", "vlan filtering")))
a, b = network.create_many(2)
near, far = a.veth("eth0", b, "eth0")
near.address("10.0.0.1/24"), far.address("10.0.0.2/24")
def took(count=5):
    begin = time.monotonic()
    assert all(reaches("10.0.0.2") for _ in range(count))
    return (time.monotonic() - begin) / count
a.call(reaches, "10.0.0.2")
fast = a.call(took)
near.shape(rate="10mbit", delay="40ms", jitter="1ms")
print(fast < 0.03, 0.035 < a.call(took) < 0.2)
print(a.run("tc qdisc show dev eth0 | sed 's/refcnt [0-9] //; s/ *$//'"))
near.shape(loss=100)
print(a.call(reaches, "10.0.0.2", 0.2))
near.unshape()
print(a.call(reaches, "10.0.0.2"))
a.dummy("d0"), a.vlan("v7", near, 7).address("10.7.0.1/24"), b.vlan("v7", far, 7).address("10.7.0.2/24")
print(a.call(reaches, "10.7.0.2"))
bridge = b.bridge("br0", vlan_filtering=True)
_, port = a.veth("eth1", b, "p1", other_master=bridge)
port.join_vlan(10), port.join_vlan(20, tagged=False), port.leave_vlan(1)
print(b.run("bridge vlan show dev p1 | tail -n +2"))
"""
    wanted = ("sch_netem", "sch_tbf", "sch_htb", "veth", "bridge", "dummy", "8021q")
    assert [" ".join(line.split()) for line in uml.output(uml.modules(*wanted) + script).splitlines()] == [
        "True True",
        "qdisc tbf 1: root rate 10Mbit burst 5000b lat 50ms",
        "qdisc netem 2: parent 1:1 limit 10000 delay 40ms 1ms",
        "False",
        "True",
        "True",
        "p1 10",
        "20 PVID Egress Untagged",
    ]


@pytest.mark.requires("tool:tc")
@pytest.mark.parametrize("method", ["tbf", "htb"])
def test_B24_no_rate_makes_the_kernel_warn(method) -> None:
    with network.create() as a:
        one, _ = a.veth("one", a, "two")
        for rate, burst in (("8kbit", 1514), ("1mbit", 1514), ("1gbit", 500_000), ("10gbit", 5_000_000)):
            shape = one.shape(rate=rate, method=method)
            assert shape.warnings == []
            assert shape.burst == burst >= 1514, "a full frame must fit"
            words = "class" if method == "htb" else "qdisc"
            shown = a.run(["tc", words, "show", "dev", "one"], check=True).stdout.lower()
            assert f"rate {rate}" in shown
        with pytest.raises(nslab.SpecError, match="full frame"):
            one.shape(rate="1mbit", burst=1513)


@pytest.mark.parametrize(("rate", "seconds"), [(1, 1.0), (10, 0.5), (100, 0.5)])
def test_B26_a_connection_gets_what_the_link_carries_and_not_more(rate: int, seconds: float) -> None:
    """Segments that nobody has cut yet pass the shaper as they are; what arrives is 85 to 100 % of the rate."""
    lab = Topology("shaped", ipv6=False)
    lab.link(lab.host("a"), lab.router("r"), rate=f"{rate}mbit")
    with lab.deploy():
        found = lab.throughput("a", "r", seconds=seconds)
    assert 0.85 * rate * 10**6 <= found.bits <= rate * 10**6, found


def test_B27_a_checksum_that_is_left_to_the_hardware_is_not_called_bad() -> None:
    """Between namespaces there is no hardware: what arrives has none, as its receiver knows."""
    lab = Topology("checked")
    lab.link(lab.host("a"), lab.host("b"))
    with lab.deploy(), lab.capture("b", protocol="UDP") as udp, lab.capture("b", protocol="TCP") as tcp:
        for address in lab["b"].addresses:
            lab["a"].call(says, address)
            assert lab["a"].call(reaches, address)
    assert {packet.checksum for packet in udp} == {"partial"}
    assert {packet.checksum for packet in tcp} <= {"partial", "good"}
    assert len(udp) == 2
    raw = decoding.Raw(0, "", "eth0", "in", 0, udp.packets[0].length, udp.packets[0].data)
    assert decoding.decode(raw).checksum == "bad", "whoever does not ask the kernel would say so"


def test_B29_the_loopback_is_up_and_only_a_router_forwards() -> None:
    host, router = network.create(), network.create(sysctls={"net.ipv4.ip_forward": 1})
    with host, router:
        assert host.call(reaches, "127.0.0.1")
        assert host.call(reaches, "::1")
        names = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
        assert [host.sysctl(name) for name in names] == ["0", "0"]
        assert [router.sysctl(name) for name in names] == ["1", "0"]
        router.forward()
        assert [router.sysctl(name) for name in names] == ["1", "1"]
    with network.create(loopback=False) as bare:
        assert not bare.call(reaches, "127.0.0.1", 0.1)


def test_B31_what_is_not_there_is_not_made() -> None:
    folder = "/run/netns"
    before = os.listdir(folder) if os.path.isdir(folder) else None
    for nowhere in ("typo", 2**22 - 1):
        with pytest.raises((nslab.SpecError, nslab.DeadNamespace)):
            Network.of(nowhere)
    assert (os.listdir(folder) if os.path.isdir(folder) else None) == before


def test_B28_a_name_that_is_taken_where_an_end_goes_is_refused_at_once() -> None:
    """An interface is made where it belongs, and never moved: so nothing has to be tried again, or brought back."""
    with network.create() as near, network.create() as far:
        far.bridge("taken")
        with nslab.record() as trace, pytest.raises(nslab.SyscallError, match="EEXIST"):
            near.veth("one", far, "taken")
        assert len([step for step in trace if step.errno]) == len(trace) == 1
        assert [link.name for link in near.links()] == ["lo"]
        assert [link.name for link in far.links()] == ["lo", "taken"]
