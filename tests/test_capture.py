"""What a capture sees, beside what tcpdump sees, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import Topology, network
from nslab.model.packets import Packet
from nslab.network import Network
from nslab.network.decoding import Raw, decode
from nslab.topology.lab import Lab
from tests.helpers import eventually, in_python, reaches
from tests.test_topology import two_subnets


@contextlib.contextmanager
def wire() -> Iterator[tuple[Network, Network]]:
    """10.0.0.1 and 10.0.0.2, without IPv6, which talks by itself."""
    near, far = network.create_many(2, sysctls={"net.ipv6.conf.default.disable_ipv6": 1})
    with near, far:
        for end, number in zip(near.veth("eth0", far, "eth0"), (1, 2), strict=True):
            end.address(f"10.0.0.{number}/24")
        yield near, far


def say(text: str, address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), (address, port))


def said(packet: Packet) -> tuple[str, str, str, str, str]:
    return packet.direction, packet.protocol, packet.sender, packet.receiver, packet.what


def test_what_passes_is_told_in_words_and_in_order() -> None:
    with wire() as (near, far), far.capture("eth0") as seen:
        near.call(say, "hello", "10.0.0.2", 7)
    mac = {"near": seen.packets[0].source_mac, "far": seen.packets[1].source_mac}
    assert [said(packet) for packet in seen][:3] == [
        ("in", "ARP", "10.0.0.1", "10.0.0.2", "who has 10.0.0.2? tell 10.0.0.1"),
        ("out", "ARP", "10.0.0.2", "10.0.0.1", f"10.0.0.2 is at {mac['far']}"),
        ("in", "UDP", *seen_ends(seen.packets[2]), "5 bytes"),
    ]
    assert said(seen.packets[3])[:2] == ("out", "ICMP")
    assert seen.packets[3].what == "port unreachable"
    assert seen.packets[2].destination_port == 7
    assert seen.packets[2].ttl == 64
    assert seen.packets[2].data.endswith(b"hello")
    assert seen.packets[0].destination_mac == "ff:ff:ff:ff:ff:ff"
    assert mac["near"] != mac["far"]
    assert [packet.time for packet in seen] == sorted(packet.time for packet in seen)
    assert (seen.dropped, seen.omitted) == (0, 0)


def seen_ends(packet: Packet) -> tuple[str, str]:
    return f"10.0.0.1:{packet.source_port}", "10.0.0.2:7"


@pytest.mark.requires("tool:tcpdump")
def test_tcpdump_reads_the_file_and_sees_the_same(tmp_path: Path) -> None:
    with wire() as (near, far), near.capture() as seen:
        near.call(say, "hello", "10.0.0.2", 7)
        assert far.call(reaches, "10.0.0.1")
    seen.save(tmp_path / "seen.pcapng")
    done = subprocess.run(
        ["tcpdump", "-tt", "-n", "-r", tmp_path / "seen.pcapng"], capture_output=True, text=True, check=True, env={"TZ": "UTC"}
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(seen) >= 6
    for line, packet in zip(lines, seen, strict=True):
        assert float(line.split()[0]) == pytest.approx(packet.time, rel=0, abs=2e-6)
    assert "IP 10.0.0.1" in lines[2]
    assert "UDP, length 5" in lines[2]
    assert "Flags [S]" in done.stdout
    assert "bad" not in done.stdout


def test_while_it_runs_it_can_be_looked_at_and_it_ends_when_told() -> None:
    with wire() as (near, far):
        seen = far.capture()
        assert len(seen) == 0
        assert near.call(reaches, "10.0.0.2")
        now = len(seen)
        assert now >= 4
        assert "capturing" in repr(seen)
        seen.stop()
        assert near.call(reaches, "10.0.0.2")
        assert len(seen) == now
        assert "capturing" not in repr(seen)
        seen.stop()


def test_it_ends_with_its_network_and_when_it_is_forgotten() -> None:
    threads = threading.active_count()
    with wire() as (near, far):
        seen = near.capture()
        far.capture()
        gc.collect()
        assert eventually(lambda: threading.active_count() == threads + 1)
    assert not seen.running
    assert threading.active_count() == threads
    with pytest.raises(nslab.DeadNamespace):
        near.capture()


def test_a_filter_takes_what_was_asked_for() -> None:
    with wire() as (near, far):
        with near.capture(protocol="tcp") as tcp, near.capture(host="10.0.0.3") as other, near.capture(port=7) as seven:
            near.call(say, "hello", "10.0.0.2", 7)
            assert far.call(reaches, "10.0.0.1")
        assert {packet.protocol for packet in tcp} == {"TCP"}
        assert not len(other)
        assert [said(packet)[:2] for packet in seven] == [("out", "UDP")]
        for wrong in ({"protocol": "IPX"}, {"host": "a b"}, {"port": 0}, {"port": "http"}, {"interface": "eth7"},
                      {"max_packets": 0}):  # fmt: skip
            with pytest.raises(nslab.SpecError, match=next(iter(wrong)).replace("interface", "name")):
                near.capture(**wrong)


def test_what_is_too_much_is_counted_and_said() -> None:
    with wire() as (near, _), near.capture(max_packets=3) as seen:
        near.call(many, 10)
    assert len(seen) == 3
    assert seen.omitted >= 8
    assert f"{seen.omitted} more were not kept" in repr(seen)


def many(count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(count):
            with contextlib.suppress(ConnectionRefusedError):
                sock.sendto(bytes(1000), ("10.0.0.2", 7))


def test_what_the_kernel_had_no_room_for_is_counted(monkeypatch) -> None:
    """Nothing is read meanwhile, and there is little room."""
    from nslab.network import capturing

    monkeypatch.setattr(capturing, "_ROOM", 1)
    with wire() as (near, _), near.capture(protocol="UDP") as seen, seen._intake.lock:
        near.call(many, 50)
    assert seen.dropped > 30
    assert f"{seen.dropped} dropped by the kernel" in repr(seen)


def test_tables_and_json() -> None:
    with wire() as (near, _), near.capture() as seen:
        near.call(say, "hello", "10.0.0.2", 7)
    shown = seen._repr_mimebundle_()
    assert "who has 10.0.0.2? tell 10.0.0.1" in shown["text/plain"]
    assert "<td" in shown["text/html"]
    rows = json.loads(seen.to_json())
    assert [row["protocol"] for row in rows[:3]] == ["ARP", "ARP", "UDP"]
    assert "data" not in rows[0]


def test_what_nobody_could_decode_is_a_row_too() -> None:
    good = bytes(12) + b"\x08\x00" + bytes.fromhex("4500001d000140004011") + bytes(100)
    for size in range(len(good)):
        packet = decode(Raw(0, "", "eth0", "in", 0, size, good[:size]))
        assert packet.protocol
    assert "cannot be decoded" in decode(Raw(0, "", "eth0", "in", 0, 3, b"abc")).what


# -- in a lab


def on_a_switch() -> tuple[Topology, Lab]:
    lab = Topology("switched", ipv6=False)
    switch = lab.switch("s")
    for name in ("a", "b", "c"):
        lab.link(lab.host(name), switch, subnet="10.7.0.0/24")
    return lab, lab.deploy()


def test_a_node_by_name_and_a_switch_by_its_ports() -> None:
    lab, running = on_a_switch()
    with running, lab.capture("a") as at_a, running.capture(lab["s"]) as ports, lab.capture("s", "s-3") as third:
        assert lab["a"].call(reaches, "10.7.0.2")
    assert {(packet.node, packet.interface) for packet in at_a} == {("a", "eth0")}
    assert {packet.interface for packet in ports} == {"s-1", "s-2", "s-3"}
    assert [packet.protocol for packet in third if packet.protocol != "IGMP"] == ["ARP"]  # a bridge joins groups
    tcp = [(packet.interface, packet.direction) for packet in ports if packet.protocol == "TCP"]
    assert tcp == [("s-1", "in"), ("s-2", "out"), ("s-2", "in"), ("s-1", "out")]


def test_captures_do_not_hear_each_other_begin() -> None:
    """Each sends itself frames over the loopback interface until they have a time, and the last may come late."""
    lab, running = on_a_switch()
    with running, contextlib.ExitStack() as stack:
        captures = [stack.enter_context(lab.capture("a")) for _ in range(10)]
        lab["a"].run("ping -c1 127.0.0.1", check=True)
    on_lo = [{packet.protocol for packet in capture if packet.interface == "lo"} for capture in captures]
    assert on_lo == [{"ICMP"}] * 10


def test_a_node_that_came_later_and_its_port() -> None:
    lab, running = on_a_switch()
    with running:
        d = lab.host("d")
        lab.link(d, "s")
        with lab.capture(d) as seen, lab.capture("s") as ports:
            assert d.call(reaches, lab["a"].addresses[0])
        walk = lab.follow(d, "a")
    assert {packet.interface for packet in ports if packet.protocol == "TCP"} == {"s-1", "s-4"}
    assert len([packet for packet in seen if packet.protocol == "TCP"]) == 2
    assert [(hop.node, hop.interface) for hop in walk.of(1)] == [("d", "eth0"), ("s", "s-4"), ("s", "s-1"), ("a", "eth0")]


def test_what_is_no_node_or_no_interface_of_it() -> None:
    lab = two_subnets()
    with pytest.raises(nslab.DeadNamespace):
        lab.capture("a")
    with lab.deploy() as running:
        with pytest.raises(nslab.SpecError, match="nobody"):
            running.capture("nobody")
        with pytest.raises(nslab.SpecError, match="a has no 'eth7', but eth0"):
            running.capture("a", "eth7")
        seen = running.capture("r", host="b")
        assert lab["a"].call(reaches, lab["b"].addresses[0])
        assert {packet.interface for packet in seen if packet.protocol == "TCP"} == {"eth0", "eth1"}
    assert not seen.running


def test_nothing_is_left_of_a_capture_that_a_script_ends_in() -> None:
    done = in_python("from nslab import network; net = network.create(); seen = net.capture(); print(len(seen))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_the_machine_itself_is_not_captured() -> None:
    with pytest.raises(nslab.Refused):
        Network.of(os.getpid())


@pytest.mark.parametrize("ageing_time", [300, 0])
def test_containers_with_aliases_on_one_bridge_and_a_third_that_listens(ageing_time: float) -> None:
    """It hears broadcasts, and nothing that a and b say to each other; but on a hub, which learns nothing, all of it."""
    quiet = {"net.ipv6.conf.default.disable_ipv6": 1}
    with contextlib.ExitStack() as stack:
        fabric = stack.enter_context(network.create(sysctls=quiet))
        bridge = fabric.bridge("br0", ageing_time=ageing_time, mcast_snooping=False)
        a, b, _ = boxes = [
            stack.enter_context(nslab.Container(name, isolate="net uts", hostname=name, sysctls=quiet)) for name in "abc"
        ]
        inside = [stack.enter_context(Network.of(box)) for box in boxes]
        for number, each in enumerate(inside, 1):
            each.veth("eth0", fabric, f"p{number}", other_master=bridge)[0].address(
                f"10.0.0.{number}/24", f"10.0.0.10{number}/24"
            )
        with inside[2].capture() as third, inside[1].capture() as second:
            assert a.call(reaches, "10.0.0.102")
            assert b.call(reaches, "10.0.0.101")
    others = [packet for packet in third if packet.destination_mac != "ff:ff:ff:ff:ff:ff"]
    assert next(packet.what for packet in third if packet not in others) == "who has 10.0.0.102? tell 10.0.0.1"
    assert len([packet for packet in second if packet.protocol == "TCP"]) == 4
    if ageing_time:
        assert others == []
    else:
        assert [said(packet)[1:] for packet in others] == [
            said(packet)[1:] for packet in second if packet.destination_mac != "ff:ff:ff:ff:ff:ff"
        ]
