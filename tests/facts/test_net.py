"""What is true of network namespaces, each fact shown by the kernel. network_namespaces(7)"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator

import pytest

import nslab
from nslab import network
from nslab.model import KINDS
from nslab.network import Interface, Network
from tests import uml
from tests.helpers import link, reaches

ip = pytest.mark.requires("tool:ip")
NET, USER = KINDS["net"].flag, KINDS["user"].flag
NO_IPV6 = {"net.ipv6.conf.default.disable_ipv6": 1}  # so that nothing is sent but what a test sends


@contextlib.contextmanager
def pair() -> Iterator[tuple[Network, Network, Interface, Interface]]:
    """Two networks with a wire between them, 10.0.0.1 and 10.0.0.2."""
    a, b = network.create_many(2, sysctls=NO_IPV6)
    with a, b:
        near, far = a.veth("eth0", b, "eth0")
        near.address("10.0.0.1/24")
        far.address("10.0.0.2/24")
        yield a, b, near, far


@contextlib.contextmanager
def bridged(count: int, ageing_time: float = 300) -> Iterator[tuple[list[Network], list[Interface], list[Interface]]]:
    """Networks with 10.0.0.1, .2 and so on, on one bridge; with their interfaces and their ports there."""
    fabric, *hosts = made = network.create_many(count + 1, sysctls=NO_IPV6)
    bridge = fabric.bridge("br0", ageing_time=ageing_time, mcast_snooping=False)  # else it speaks by itself
    ends, ports = [], []
    for number, host in enumerate(hosts, 1):
        end, port = host.veth("eth0", fabric, f"p{number}", other_master=bridge)
        end.address(f"10.0.0.{number}/24")
        ends.append(end)
        ports.append(port)
    try:
        yield hosts, ends, ports
    finally:
        for each in made:
            each.close()


def names(where: Network) -> list[str]:
    return [each.name for each in where.links()]


def test_net_01_a_new_one_has_a_loopback_that_is_down_and_no_routes() -> None:
    with network.create(loopback=False) as new:
        assert names(new) == ["lo"]
        assert new.run("tail -n +2 /proc/net/route").stdout == ""
        assert not new.call(reaches, "127.0.0.1", 0.2)
        new.interface("lo").up()
        assert new.call(reaches, "127.0.0.1")


def test_net_02_a_veth_pair_carries_traffic_between_two() -> None:
    with pair() as (a, b, near, _):
        assert a.call(reaches, "10.0.0.2")
        assert b.call(reaches, "10.0.0.1")
        near.delete()
        assert not b.call(reaches, "10.0.0.1", 0.2)


def test_net_03_either_end_that_is_down_takes_the_carrier_of_the_other() -> None:
    with pair() as (_, _, near, far):
        for one, other in ((near, far), (far, near)):
            assert other.state.carrier
            one.down()
            assert other.state.up
            assert not other.state.carrier
            one.up()


def test_net_04_with_a_namespace_its_veth_devices_go_and_their_peers() -> None:
    from tests.helpers import eventually

    with pair() as (a, b, _, _):
        assert names(a) == ["lo", "eth0"]
        b.close()
        assert eventually(lambda: names(a) == ["lo"])


@ip
def test_net_05_a_device_is_in_one_namespace_at_a_time() -> None:
    with network.create() as a, nslab.Container(isolate="net") as b, Network.of(b) as inside:
        a.bridge("br0")
        a.veth("one", a, "two")
        moved = a.run(f"exec 3</proc/{os.getpid()}/fd/{inside.namespace.fileno()}; ip link set one netns /proc/self/fd/3")
        if os.geteuid() == 0:  # an ordinary user's shell in there may not look at this process
            assert moved.returncode == 0, moved.stderr
            assert names(a) == ["lo", "br0", "two"]
            assert "one" in names(inside)
        for name in ("lo", "br0"):
            refused = a.run(["ip", "link", "set", name, "netns", "1"])
            assert refused.returncode != 0
        assert {"lo", "br0"} <= set(names(a))


@pytest.mark.requires("root", "tool:linux.uml", "tool:ip")
def test_net_06_a_network_card_goes_back_to_the_initial_namespace_not_to_that_of_the_creator() -> None:
    """On another kernel, which can have a card to spare; nothing is sent by it."""
    script = """
import os, subprocess
def cards(*enter):
    text = subprocess.run([*enter, "ip", "-br", "link"], capture_output=True, text=True).stdout
    return [line.split()[0] for line in text.splitlines() if line.startswith("eth0")]
def within(*before):
    made = subprocess.Popen([*before, "unshare", "--net", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
    made.stdout.readline()
    return made
outer = within()
inside = ("nsenter", f"--net=/proc/{outer.pid}/ns/net")
nested = within(*inside)
print(cards(), cards(*inside))
subprocess.run(["ip", "link", "set", "eth0", "netns", str(nested.pid)], check=True)
print(cards(), cards(*inside), cards("nsenter", f"--net=/proc/{nested.pid}/ns/net"))
nested.kill()
nested.wait()
while not cards() + cards(*inside):  # the kernel ends a namespace in its own time
    pass
print(cards(), cards(*inside))
"""
    seen = uml.output(script, hardware=["eth0=mcast"]).splitlines()
    assert seen == ["['eth0'] []", "[] [] ['eth0']", "['eth0'] []"]


def listening(port: int) -> bool:
    """Whether a port can be taken here, and then not once more."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", port))
        first.listen()
        try:
            second.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def connects(port: int) -> int:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port))


def test_net_07_each_has_its_own_ports_and_its_own_127_0_0_1() -> None:
    with socket.socket() as outside, network.create() as inside:
        outside.bind(("127.0.0.1", 0))
        outside.listen()
        port = outside.getsockname()[1]
        assert connects(port) == 0
        assert inside.call(connects, port) == errno.ECONNREFUSED
        assert inside.call(listening, port)


@pytest.mark.requires("tool:nft")
def test_net_08_firewall_rules_belong_to_one_namespace() -> None:
    rules = "table inet t { chain c { type filter hook input priority 0; policy drop; }; }"
    with bridged(3) as ((a, b, c), _, _):
        assert c.call(reaches, "10.0.0.1")
        a.run(["nft", rules], check=True)
        assert not c.call(reaches, "10.0.0.1", 0.2)
        assert c.call(reaches, "10.0.0.2")
        assert "policy drop" in a.run("nft list ruleset").stdout
        assert b.run("nft list ruleset").stdout == ""


def test_net_09_proc_net_is_that_of_the_process_that_looks() -> None:
    assert os.readlink("/proc/net") == "self/net"
    with nslab.Container(isolate="net") as web, Network.of(web) as inside:
        inside.bridge("br0")
        with open(f"/proc/{web.pid}/net/dev") as theirs, open("/proc/net/dev") as ours:
            assert "br0:" in theirs.read()
            assert "br0:" not in ours.read()
        assert "br0:" in web.run("cat /proc/net/dev").stdout


def test_net_10_sysfs_shows_the_devices_of_who_mounted_it() -> None:
    with nslab.Container(isolate="net mnt") as web, Network.of(web) as inside:
        inside.bridge("br-net-10")
        machine = os.listdir("/sys/class/net")
        assert sorted(web.run("ls /sys/class/net").lines) == sorted(machine)
        web.run("mount -t sysfs none /sys", check=True)
        assert set(web.run("ls /sys/class/net").lines) == {"lo", "br-net-10"}
        assert os.listdir("/sys/class/net") == machine


def test_net_11_sysctls_of_a_new_one_are_the_defaults() -> None:
    with nslab.Container(isolate="net", sysctls={"net.ipv4.ip_forward": 1, "net.ipv4.ip_default_ttl": 99}) as outer:
        files = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_default_ttl"
        assert outer.run(files).lines == ["1", "99"]
        if os.geteuid() == 0:
            assert outer.run(["unshare", "--net", "sh", "-c", files]).lines == ["0", "64"]
        with network.create() as new:
            assert new.run(files).lines == ["0", "64"]


def abstract_and_path(name: str, path: str) -> list[int]:
    found = []
    for address in ("\0" + name, path):
        with socket.socket(socket.AF_UNIX) as sock:
            found.append(sock.connect_ex(address))
    return found


def test_net_12_abstract_unix_sockets_are_isolated_and_paths_are_not(tmp_path) -> None:
    os.chmod(tmp_path, 0o755)
    name, path = f"nslab-{os.getpid()}", os.path.relpath(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other, network.create() as inside:
        one.bind("\0" + name)
        other.bind(path)
        for each in (one, other):
            each.listen()
        assert abstract_and_path(name, path) == [0, 0]
        assert inside.call(abstract_and_path, name, path) == [errno.ECONNREFUSED, 0]


def test_net_13_a_socket_stays_where_it_was_made_and_keeps_that_alive() -> None:
    siocgskns = 0x894C
    with network.create() as a:
        a.bridge("br0")
        known = a.namespace.id
        a.namespace.close()
        assert names(a) == ["lo", "br0"], "asked over the socket, which is all that holds it"
        with open(fcntl.ioctl(a.socket.fileno(), siocgskns)) as again:
            info = os.fstat(again.fileno())
        assert (info.st_dev, info.st_ino) == known


LISTENER = """
import socket, struct
RTMGRP_LINK, RTM_NEWLINK, IFLA_IFNAME = 1, 16, 3
events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
events.bind((0, RTMGRP_LINK))
print("ready", flush=True)
while True:
    data = events.recv(65536)
    length, kind = struct.unpack_from("=IH", data)
    at = 32
    while at < length:
        size, number = struct.unpack_from("=HH", data, at)
        if (kind, number) == (RTM_NEWLINK, IFLA_IFNAME):
            print(data[at + 4 : at + size].rstrip(b"\\0").decode(), flush=True)
        at += (size + 3) & ~3
"""


def test_net_14_link_events_come_to_listeners_in_the_namespace_where_they_happen() -> None:
    with network.create() as a, network.create() as b:
        listeners = [each.popen([sys.executable, "-I", "-S", "-c", LISTENER]) for each in (a, b)]
        lines = [listener.stdout for listener in listeners]
        for line in lines:
            assert line
            assert line.readline() == b"ready\n"
        b.bridge("of-b")
        a.bridge("of-a")
        assert [line.readline() for line in lines if line] == [b"of-a\n", b"of-b\n"]


def test_net_15_a_device_in_another_namespace_cannot_be_configured_from_here() -> None:
    with pair() as (a, b, _, _):
        b.interface("eth0").set(name="far")
        with pytest.raises(nslab.SpecError, match="no interface"):
            a.interface("far")
        with pytest.raises(nslab.SyscallError) as caught:
            Interface(a, "far", 4711).address("10.0.0.9/24")
        assert caught.value.name == "ENODEV"


def answers(address: str, source: str) -> bool:
    """Whether the address answers to somebody who speaks with this source."""
    with socket.socket() as sock:
        sock.settimeout(1)
        sock.bind((source, 0))
        return sock.connect_ex((address, 9)) == errno.ECONNREFUSED


def test_net_16_addresses_of_their_own_and_aliases_over_a_bridge() -> None:
    with bridged(3) as (hosts, ends, _):
        for number, end in enumerate(ends, 1):
            end.address(f"10.0.0.{100 + number}/24")
        for to in ("10.0.0.2", "10.0.0.102", "10.0.0.3", "10.0.0.103"):
            assert hosts[0].call(reaches, to)
        assert hosts[0].call(answers, "10.0.0.103", "10.0.0.101")
        assert not hosts[0].call(reaches, "10.0.0.104", 0.1)


def test_net_17_two_may_have_the_same_address() -> None:
    with network.create() as a, network.create() as b, network.create() as c:
        for host, there in ((a, c), (b, c)):
            host.veth("eth0", there, f"to-{'a' if host == a else 'b'}")[0].address("10.7.0.5/24")
        assert a.call(reaches, "10.7.0.5")
        assert b.call(reaches, "10.7.0.5")
        assert [each.interface("eth0").state.addresses[0] for each in (a, b)] == ["10.7.0.5/24"] * 2


def heard_by_a_third(ageing_time: float) -> tuple[int, int]:
    """Frames that the third on a bridge receives while the first two find each other, and then while they talk."""
    with bridged(3, ageing_time) as ((a, b, _), ends, _):
        counts = [ends[2].state.counters.rx_packets]
        for number in range(4):
            assert a.call(reaches, "10.0.0.2")
            assert b.call(reaches, "10.0.0.1")
            if number in (0, 3):
                counts.append(ends[2].state.counters.rx_packets)
        return counts[1] - counts[0], counts[2] - counts[1]


def test_net_18_a_third_on_a_bridge_does_not_see_what_two_others_say() -> None:
    broadcast, unicast = heard_by_a_third(300)
    assert broadcast > 0, "who has 10.0.0.2?"
    assert unicast == 0


def test_net_19_without_learning_the_third_sees_all_and_isolated_ports_reach_nobody() -> None:
    assert heard_by_a_third(0)[1] >= 12, "each of six exchanges is a SYN and a RST, at least"
    with bridged(3) as ((a, _, c), _, ports):
        ports[0].port(isolated=True)
        assert a.call(reaches, "10.0.0.2")
        ports[1].port(isolated=True)
        assert not a.call(reaches, "10.0.0.2", 0.2)
        assert c.call(reaches, "10.0.0.2")


@pytest.mark.requires("tool:nft")
def test_net_20_another_subnet_needs_one_that_forwards_and_nat_hides_the_source() -> None:
    a, b, router = made = network.create_many(3, sysctls=NO_IPV6)
    for number, host in enumerate((a, b)):
        end, port = host.veth("eth0", router, f"eth{number}")
        end.address(f"10.0.{number}.2/24")
        port.address(f"10.0.{number}.1/24")
    a.route("default", via="10.0.0.1")
    b.route("default", via="10.0.1.1")
    assert not a.call(reaches, "10.0.1.2", 0.2)
    router.forward()
    assert a.call(reaches, "10.0.1.2")
    b.remove_route("default")
    assert not a.call(reaches, "10.0.1.2", 0.2), "there is no way back to 10.0.0.2"
    rules = "table ip t { chain c { type nat hook postrouting priority 100; oifname eth1 masquerade; }; }"
    router.run(["nft", rules], check=True)
    assert a.call(reaches, "10.0.1.2"), "to 10.0.1.1, which b believes it came from, there is"
    for each in made:
        each.close()


@ip
@pytest.mark.requires("userns")
def test_net_21_an_ordinary_user_has_a_whole_network_but_cannot_reach_out_of_it() -> None:
    def bind_80() -> None:  # in here it goes over by value: whose files these are, that user need not be able to read
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 80))

    with nslab.process(as_="ordinary") as process:
        uid = process.call(os.getuid)
        assert uid != 0
        process.unshare("user net")
        process.write("/proc/self/uid_map", f"0 {uid} 1\n")
        process.call(bind_80)
        process.run("ip link set lo up && ip link add v0 type veth peer name v1 && ip address add 10.0.0.1/24 dev v0").check()
        assert link("net", process.pid) != link("net")
        out = process.run(f"ip link set v0 netns {os.getpid()}")
        assert out.returncode != 0
        assert "not permitted" in out.stderr
        assert "v0" in process.run("ip -br link").stdout


def test_net_22_neighbours_and_counters_are_private() -> None:
    with pair() as (a, b, near, far):
        before = near.state.counters.tx_packets
        assert a.call(reaches, "10.0.0.2")
        assert [each.address for each in a.neighbours()] == ["10.0.0.2"]
        assert [each.address for each in b.neighbours()] == ["10.0.0.1"]
        assert a.neighbours()[0].mac == far.state.mac
        assert near.state.counters.tx_packets > before
        with network.create() as c:
            assert c.neighbours() == []
            assert "10.0.0.2" not in c.run("cat /proc/net/arp").stdout
            assert c.interface("lo").state.counters.tx_packets == 0


def took(address: str, size: int) -> float:
    """Seconds until so many bytes have been taken in by the other end's kernel: a burst of datagrams that waits for room."""
    import time

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        begin = time.monotonic()
        for _ in range(size // 1000):
            with contextlib.suppress(ConnectionRefusedError):
                sock.sendto(bytes(1000), (address, 9))
        return time.monotonic() - begin


def test_net_23_shaping_delays_one_container_only() -> None:
    with bridged(3) as ((a, b, _), (slow, _, _), _):
        slow.shape(rate="1mbit", queue="1s")
        for host in (a, b):
            assert host.call(reaches, "10.0.0.3")
        assert a.call(took, "10.0.0.3", 40_000) > 0.2, "0.32 s at 1 Mbit/s, without what fits into the buffers"
        assert b.call(took, "10.0.0.3", 40_000) < 0.1
