"""nslab.network: what is made there, seen by ip(8); how it is asked for, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import threading

import pytest

import nslab
from nslab import network
from nslab.network import Network
from tests.helpers import in_python, reaches

ip = pytest.mark.requires("tool:ip")


def by_ip(where: Network, *words: str):
    """What ip(8) says inside, decoded."""
    return json.loads(where.run(["ip", "-j", *words], check=True).stdout or "[]")


@ip
def test_a_veth_pair_with_addresses_carries_traffic_both_ways() -> None:
    with network.create() as a, network.create() as b:
        near, far = a.veth("eth0", b, "eth1", mac="02:00:00:00:00:01", mtu=1400)
        assert not a.call(reaches, "10.0.0.2", 0.1)
        near.address("10.0.0.1/24", "fd00::1/64")
        far.address("10.0.0.2/24", "10.0.0.3/24", "fd00::2/64")
        assert [a.call(reaches, address) for address in ("10.0.0.2", "10.0.0.3", "fd00::2")] == [True] * 3
        assert b.call(reaches, "10.0.0.1")
        (shown,) = [each for each in by_ip(a, "addr") if each["ifname"] == "eth0"]
        assert (shown["mtu"], shown["address"], shown["operstate"]) == (1400, "02:00:00:00:00:01", "UP")
        assert {each["local"] for each in shown["addr_info"]} >= {"10.0.0.1", "fd00::1"}
        state = near.state
        assert (state.index, state.name, state.kind, state.mtu) == (shown["ifindex"], "eth0", "veth", 1400)
        assert {"10.0.0.1/24", "fd00::1/64"} <= set(state.addresses)
        assert state.carrier
        assert min(state.counters.rx_packets, state.counters.tx_packets) > 0
        near.remove_address("10.0.0.1/24")
        assert "10.0.0.1/24" not in near.state.addresses
        far.delete()
        assert [each.name for each in a.links()] == ["lo"]


@ip
def test_what_an_interface_has_can_be_changed() -> None:
    with network.create() as a:
        one, two = a.veth("one", a, "two", up=False)
        assert not one.state.up
        one.set(name="uno", mtu=9000, mac="02:00:00:00:00:09")
        one.up()
        (shown,) = by_ip(a, "link", "show", "uno")
        assert (shown["mtu"], shown["address"], shown["ifindex"]) == (9000, "02:00:00:00:00:09", one.index)
        assert "UP" in shown["flags"]
        assert not one.state.carrier
        two.up()
        assert one.state.carrier
        two.down()
        assert not one.state.carrier
        assert a.interface("uno") == one
        with pytest.raises(nslab.SpecError, match="one"):
            a.interface("one")


@ip
def test_a_router_forwards_between_two_subnets() -> None:
    a, b, router = made = network.create_many(3)
    try:
        for number, host in enumerate((a, b)):
            eth0, port = host.veth("eth0", router, f"eth{number}")
            eth0.address(f"10.0.{number}.2/24")
            port.address(f"10.0.{number}.1/24")
            host.route("default", via=f"10.0.{number}.1")
        assert not a.call(reaches, "10.0.1.2", 0.1)
        router.forward()
        assert router.sysctl("net.ipv4.ip_forward") == "1"
        assert a.call(reaches, "10.0.1.2")
        assert [(each["dst"], each.get("gateway")) for each in by_ip(a, "route")] == [
            ("default", "10.0.0.1"), ("10.0.0.0/24", None),
        ]  # fmt: skip
        assert [(each.to, each.via) for each in a.routes() if each.version == 4] == [
            ("default", "10.0.0.1"), ("10.0.0.0/24", ""),
        ]  # fmt: skip
        with pytest.raises(nslab.SyscallError, match="replace=True") as caught:
            a.route("default", via="10.0.0.1")
        assert caught.value.name == "EEXIST"
        a.route("default", via="10.0.0.9", replace=True)
        a.remove_route("default", via="10.0.0.9")
        with pytest.raises(nslab.SyscallError, match="in no subnet"):
            a.route("10.9.0.0/16", via="10.8.0.1")
        assert len([each for each in a.routes() if each.version == 4]) == 1
    finally:
        for each in made:
            each.close()


@ip
def test_permanent_neighbours_are_not_looked_for() -> None:
    with network.create() as a, network.create() as b:
        near, _ = a.veth("eth0", b, "eth0")
        near.address("10.0.0.1/24")
        near.neighbour("10.0.0.2", "02:00:00:00:00:02")
        (shown,) = by_ip(a, "neigh")
        assert (shown["dst"], shown["lladdr"], shown["state"]) == ("10.0.0.2", "02:00:00:00:00:02", ["PERMANENT"])
        (known,) = [each for each in a.neighbours() if "." in each.address]
        assert (known.address, known.mac, known.state) == ("10.0.0.2", "02:00:00:00:00:02", "permanent")
        near.remove_neighbour("10.0.0.2")
        assert by_ip(a, "neigh") == []


@ip
def test_a_macvlan_has_an_address_of_its_own_on_the_wire_of_another() -> None:
    with network.create() as a, network.create() as b, network.create() as c:
        uplink, far = a.veth("eth0", b, "eth0")
        far.address("10.0.0.1/24")
        own = c.macvlan("eth0", uplink)
        own.address("10.0.0.2/24")
        assert c.call(reaches, "10.0.0.1")
        (shown,) = by_ip(c, "-d", "link", "show", "eth0")
        assert shown["linkinfo"] == {"info_kind": "macvlan", "info_data": shown["linkinfo"]["info_data"]}
        assert shown["linkinfo"]["info_data"]["mode"] == "bridge"


@ip
def test_the_network_of_a_container() -> None:
    with nslab.Container("web", isolate="net uts") as web, network.create() as outside:
        with Network.of(web) as inside:
            inside.interface("lo").up()
            inside.veth("eth0", outside, "web")[0].address("10.0.0.2/24")
        outside.interface("web").address("10.0.0.1/24")
        assert web.call(reaches, "10.0.0.1")
        with Network.of(web.pid) as again:  # indexes go on where the first handle ended
            assert again.bridge("br0").index > again.interface("eth0").index


def test_the_machines_own_network_is_out_of_reach() -> None:
    before = os.listdir("/sys/class/net")
    for own in (os.getpid(), nslab.Namespace.of("self", "net")):
        with pytest.raises(nslab.Refused, match="machine's own network"):
            Network.of(own)
    assert os.listdir("/sys/class/net") == before


def test_it_works_in_a_thread_and_where_an_event_loop_runs() -> None:
    found: list[str] = []

    def work() -> None:
        with network.create() as a:
            a.bridge("br0")
            found.append(a.links()[-1].name)

    async def cell() -> None:
        work()

    asyncio.run(cell())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["br0", "br0"]


def test_each_request_is_a_step_also_one_that_fails() -> None:
    with nslab.record() as trace, network.create(sysctls={"net.ipv4.ip_forward": 1}) as a:
        assert a.sysctl("net.ipv4.ip_forward") == "1"
        begin = len(a.trace)
        a.bridge("br0", up=False)
        with pytest.raises(nslab.SyscallError, match="of this name"):
            a.bridge("br0")
        assert [(each.call, each.errno) for each in a.trace[begin:]] == [("RTM_NEWLINK", 0), ("RTM_NEWLINK", 17)]
        assert [each.call for each in a.trace[:begin]].count("unshare") == 1
        assert "name br0" in str(a.trace[begin])
    assert {"unshare", "write", "ioctl", "socket", "RTM_NEWLINK"} <= {each.call for each in trace}
    assert next(each for each in trace if each.call == "ioctl").implied


@ip
def test_a_batch_of_requests_is_sent_at_its_end() -> None:
    fabric, *hosts = made = network.create_many(21)
    try:
        with network.batch():
            bridge = fabric.bridge("br0")
            for number, host in enumerate(hosts, 1):
                eth0, _ = host.veth("eth0", fabric, f"p{number}", other_master=bridge)
                eth0.address(f"10.0.0.{number}/24")
            assert not any(each.trace[-1].call.startswith("RTM_") for each in made)
        assert len(by_ip(fabric, "link", "show", "master", "br0")) == 20
        assert hosts[0].call(reaches, "10.0.0.20")
        with pytest.raises(ZeroDivisionError), network.batch():
            fabric.bridge("br1")
            1 / 0
        assert "br1" not in {each.name for each in fabric.links()}
        with pytest.raises(nslab.SyscallError, match="of this name"), network.batch():
            fabric.bridge("br0")
        with network.batch():
            fabric.bridge("br2")
            assert fabric.interface("br2").state.up
    finally:
        for each in made:
            each.close()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda a: a.veth("one", a, "one"), "only one"),
        (lambda a: a.veth("one", a, "two", mac="01:00:00:00:00:01"), "group"),
        (lambda a: a.veth("one", a, "two", mtu=10), "68"),
        (lambda a: a.bridge("br0", ageing_time=-1), "seconds"),
        (lambda a: a.interface("lo").address("10.0.0.1"), "prefix"),
        (lambda a: a.interface("lo").address("10.0.0.0/24"), "network address"),
        (lambda a: a.interface("lo").address("here"), "not an address"),
        (lambda a: a.route("10.0.0.1/24", via="10.0.0.1"), "host bits"),
        (lambda a: a.route("10.0.0.0/24"), "router"),
        (lambda a: a.route("10.0.0.0/24", via="fd00::1"), "version"),
        (lambda a: a.vlan("v", a.interface("lo"), 4095), "4094"),
        (lambda a: a.sysctls({"kernel.hostname": "x"}), "uts"),
        (lambda a: a.interface("lo").set(), "nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(wrong, why) -> None:
    with network.create() as a:
        before = len(a.trace)
        with pytest.raises(nslab.SpecError, match=why):
            wrong(a)
        assert len(a.trace) == before
        assert len(a.links()) == 1


@pytest.mark.requires("tool:nft")
def test_filters_and_address_translation() -> None:
    a, b, router = made = network.create_many(3)
    try:
        ends = []
        for number, host in enumerate((a, b)):
            eth0, port = host.veth("eth0", router, f"eth{number}")
            eth0.address(f"10.0.{number}.2/24", f"fd00:{number}::2/64")
            port.address(f"10.0.{number}.1/24", f"fd00:{number}::1/64")
            ends.append(port)
        a.route("default", via="10.0.0.1")
        a.route("default", via="fd00::1")
        router.forward()
        assert not a.call(reaches, "10.0.1.2", 0.1), "b has no way back"
        router.masquerade(ends[1])
        assert [a.call(reaches, address) for address in ("10.0.1.2", "fd00:1::2")] == [True, True]
        table = {"family": "inet", "table": "t"}
        chain = {"name": "c", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}
        router.nft({"add": {"table": {"family": "inet", "name": "t"}}}, {"add": {"chain": table | chain}})
        assert not a.call(reaches, "10.0.1.2", 0.1)
        assert [each["chain"]["policy"] for each in router.ruleset() if "chain" in each] == ["accept", "drop"]
        assert a.ruleset() == []
        assert "nft -j" in router.trace.shell()
        with pytest.raises(nslab.CommandError, match="nft refused"):
            router.nft({"add": {"rule": {"family": "inet", "table": "none", "chain": "c", "expr": [{"drop": None}]}}})
        with pytest.raises(nslab.SpecError, match="another network"):
            router.masquerade(a.interface("eth0"))
    finally:
        for each in made:
            each.close()


def test_it_is_shown_as_a_table_of_its_interfaces_also_when_closed() -> None:
    with network.create() as a:
        a.veth("eth0", a, "a&b", other_master=a.bridge("br0"))[0].address("10.0.0.1/24")
        shown = a._repr_mimebundle_()
        assert all(word in shown["text/plain"] for word in ("eth0", "veth", "br0", "a&b", "10.0.0.1/24", "1500", "up"))
        assert "a&amp;b" in shown["text/html"]
    assert a._repr_mimebundle_() == {"text/plain": f"<Network {a.namespace}, closed>"}


def test_a_network_that_is_dropped_is_closed() -> None:
    a = network.create()
    a.bridge("br0")
    path = a.place
    assert os.path.exists(path)
    del a
    assert not os.path.exists(path)


def test_a_closed_network_is_dead_and_all_of_it_is_gone() -> None:
    with network.create() as a, network.create() as b:
        a.veth("eth0", b, "eth0")
        b.close()
        with pytest.raises(nslab.DeadNamespace):
            b.bridge("br0")
        with pytest.raises(nslab.DeadNamespace):
            a.veth("eth1", b, "eth1")


@ip
@pytest.mark.requires("tool:nsenter", "tool:tc", "tool:nft")
def test_the_commands_of_a_trace_leave_the_same_network() -> None:
    """Pasted into a shell, with two namespaces that are as new as those were."""
    made, again = network.create_many(2), network.create_many(2)
    try:
        with nslab.record() as trace:
            build(*made)
        script = trace.shell()
        for old, new in zip(made, again, strict=True):
            script = re.sub(rf"{old.place}\b", new.place, script)
        done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stderr) == (0, ""), script
        for one, other in zip(made, again, strict=True):
            assert seen(one) == seen(other)
            assert "10.0.0." in seen(one)
    finally:
        for each in (*made, *again):
            each.close()


def build(a: Network, b: Network) -> None:
    """A bit of everything."""
    bridge = b.bridge("br0", mac="02:00:00:00:00:07", ageing_time=5, mtu=1450)
    eth0, port = a.veth("eth0", b, "p0", mac="02:00:00:00:00:01", other_mac="02:00:00:00:00:02", other_master=bridge)
    port.port(isolated=True, learning=False)
    eth0.address("10.0.0.1/24", "10.0.0.5/24", "fd00::1/64")
    bridge.address("10.0.0.2/32")
    eth0.neighbour("10.0.0.9", "02:00:00:00:00:09")
    a.route("default", via="10.0.0.2", source="10.0.0.5")
    a.route("10.7.0.0/16", interface=eth0, metric=5)
    b.macvlan("mv0", eth0, mac="02:00:00:00:00:03").down()
    eth0.set(mtu=1400)
    eth0.shape(rate="10mbit")
    port.shape(rate="20mbit", method="htb")
    b.bridge("br1", mac="02:00:00:00:00:08", stp=True, mcast_snooping=False)
    b.forward()
    b.masquerade(bridge)


def seen(where: Network) -> str:
    """What ip(8) shows, without what is counted, random or on the move."""
    looks = (
        "ip -d addr",
        "ip -4 route",
        "ip -6 route",
        "ip -d link",
        "ip neigh show nud permanent",
        "tc qdisc",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding",
        "nft list ruleset",
    )
    text = where.run("; ".join([*looks, "[ ! -e /proc/sys/net/ipv4/conf/p0 ] || tc class show dev p0"]), check=True).stdout
    moving = r"(\S*timer|link-netnsid) +\S+|state \S+|lowerlayerdown|,LOWER_UP|NO-CARRIER,|inet6 fe80\S+|usedbcqueuelen \d+"
    return re.sub(moving, "", text)


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be() -> None:
    done = in_python(
        "import resource as r, nslab\n"
        "from nslab import network\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, 400))\n"
        "made = network.create_many(40)\n"
        "print(len(made), made[-1].run('ulimit -n').stdout.strip())\n"
        "try: network.create_many(200)\n"
        "except nslab.Unavailable as error: print(error)\n"
    )
    first, second, _ = done.stdout.splitlines()
    assert first == "40 64", "what runs in it has the old limit"
    assert "400 open files" in second


def test_importing_it_loads_no_more_than_it_needs() -> None:
    done = in_python("import sys, nslab.network; print([name for name in ('pyroute2', 'asyncio') if name in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")
