"""Topologies that are deployed: who reaches whom, what is seen inside, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import networkx
import pytest

import nslab
from nslab import Topology, network
from nslab.topology import Node
from tests import uml
from tests.helpers import ROOT, eventually, has_ended, in_python, link, pidfd_of
from tests.test_topology import two_subnets

PING = pytest.mark.requires("tool:ping")
IP = pytest.mark.requires("tool:ip")
ORDINARY = os.getuid() != 0


@PING
def test_the_two_subnets() -> None:
    lab = nslab.Topology("two subnets")
    a, b, r = lab.host("a"), lab.host("b"), lab.router("r")
    lab.link(a, r, subnet="10.0.1.0/24")
    lab.link(b, r, subnet="10.0.2.0/24", rate="10mbit")
    with lab.deploy():
        assert "ttl=63" in a.run("ping -c1 b").check().stdout, "one router lies between them"
        assert lab.ping_all().lost == []
        assert lab["b"] is b
        r.run("ip link set eth1 down", check=True)
        assert lab.ping_all(timeout=0.05).lost == [("a", "b"), ("b", "a")]


@PING
def test_without_forwarding_the_router_would_not_do() -> None:
    lab = two_subnets()
    with lab.deploy():
        lab["r"].network.sysctls({"net.ipv4.ip_forward": 0})
        assert lab["a"].run("ping -c1 -W0.05 b").returncode != 0
        assert lab["a"].run("ping -c1 -W1 r").returncode == 0


@IP
def test_what_is_seen_inside() -> None:
    lab = Topology("seen")
    a, s = lab.host("a"), lab.switch("s")
    lab.link(a, s, addresses={a: ["10.7.0.5/24", "10.7.0.6"]})
    lab.link(lab.host("b"), s)
    lab.link(lab.router("r"), s, names={"r": "inner"})
    with lab.deploy() as running:
        assert a.run("hostname").stdout == "a\n"
        assert sorted(a.run("ls /sys/class/net").lines) == ["eth0", "lo"]
        assert a.run("getent hosts b r").lines == ["10.7.0.1        b", "10.7.0.254      r"]
        shown = {each["ifname"]: each for each in json.loads(a.run("ip -j -4 addr").check().stdout)}
        assert [each["local"] for each in shown["eth0"]["addr_info"]] == ["10.7.0.5", "10.7.0.6"]
        (route,) = json.loads(a.run("ip -j route show default").check().stdout)
        assert (route["gateway"], route["dev"]) == ("10.7.0.254", "eth0")
        assert "inner" in lab["r"].run("ls /sys/class/net").lines
        assert running.fabric
        ports = json.loads(running.fabric.run("ip -j -d link show master s").check().stdout)
        assert sorted(port["ifname"] for port in ports) == ["s-1", "s-2", "s-3"]
        assert all(port["linkinfo"]["info_slave_data"]["state"] == "forwarding" for port in ports)
        assert a.call(socket.gethostbyname, "b") == "10.7.0.1"
        assert a.addresses == ("10.7.0.5",)
        process = a.popen("exec sleep 1000")
        assert link("net", process.pid) == str(a.network.namespace)
    assert process.wait(1) == -signal.SIGKILL


def test_its_mounts_are_implied_and_gone_with_the_command() -> None:
    with two_subnets().deploy() as lab:
        before = Path("/proc/self/mountinfo").read_text()
        with nslab.record() as trace:
            inside = lab["a"].run("cat /etc/hosts; readlink /proc/self/ns/mnt").lines
        assert "10.0.2.1 b" in inside
        assert inside[-1] != link("mnt")
        mounts = [step for step in trace if step.call in ("mount", "umount2", "unshare")]
        assert len(mounts) >= 5
        assert all(step.implied for step in mounts)
        assert Path("/proc/self/mountinfo").read_text() == before
        assert "10.0.2.1 b" not in Path("/etc/hosts").read_text()


def test_the_script_of_a_command_in_a_node_sees_the_same() -> None:
    probe = "hostname; cat /etc/hosts /etc/resolv.conf; ls /sys/class/net; stat -c %a /etc/hosts; readlink /proc/self/ns/[nu]*s"
    with two_subnets().deploy() as lab:
        with nslab.record() as trace:
            inside = lab["a"].run(probe).check().stdout
        done = subprocess.run(["sh", "-c", trace.shell()], capture_output=True, text=True, timeout=20)
        assert (done.stdout, done.stderr) == (inside, "")


def test_a_node_holds_no_process() -> None:
    with Topology.ring(4).deploy() as lab:
        made = [*lab.networks.values(), lab.networks["h1"]]
        assert all(each.namespace.members() == [] for each in made)
        assert all(each.members() == [] for each in lab.hostnames.values())
        assert len({each.id for each in lab.hostnames.values()}) == 8


SHAPES = {
    "ring": lambda: Topology.ring(6),
    "tree": lambda: Topology.tree(depth=2, fanout=4),
    "star": lambda: Topology.star(5),
    "linear": lambda: Topology.linear(4),
    "single": lambda: Topology.single(20),
    "mesh": lambda: _with_hosts(networkx.petersen_graph()),
}


def _with_hosts(graph: networkx.Graph) -> Topology:
    lab = Topology.from_graph(graph, name="mesh")
    for number in range(0, len(graph), 3):
        lab.link(lab.host(f"h{number}"), f"n{number}")
    return lab


@pytest.mark.parametrize("shape", SHAPES)
def test_every_host_reaches_every_other(shape: str) -> None:
    lab = SHAPES[shape]()
    hosts = [node.name for node in lab if node.role == "host"]
    with lab.deploy():
        matrix = lab.ping_all(timeout=3)
        assert matrix.lost == []
        assert len(matrix.times) == len(hosts) * (len(hosts) - 1)
        assert all(0 < time < 3000 for time in matrix.times.values() if time is not None)
        assert f"{len(matrix.times)} of {len(matrix.times)} pings answered" in matrix._repr_mimebundle_()["text/plain"]


def test_B11_ping_all_stays_below_the_table_of_neighbours_that_the_machine_shares() -> None:
    lab = Topology.single(34)
    with lab.deploy() as running:
        assert lab.ping_all(timeout=3).lost == [], "2,244 neighbours, of which the table holds 1,024"
        assert sum(len(each.neighbours()) for each in running.networks.values()) <= 512


@PING
def test_ipv6_too() -> None:
    lab = Topology.ring(4)
    with lab.deploy():
        assert "ttl=" in lab["h1"].run("ping -6 -c1 h3").check().stdout
        assert "ttl=61" in lab["h1"].run("ping -4 -c1 h3").check().stdout, "three routers: r1, one of two, r3"


@pytest.mark.requires("tool:tc")
def test_a_rate_is_held_in_both_directions() -> None:
    lab = two_subnets()
    with lab.deploy():
        for node, interface in (("b", "eth0"), ("r", "eth1")):
            (bucket,) = json.loads(lab[node].run(f"tc -j qdisc show dev {interface}").check().stdout)
            assert (bucket["kind"], bucket["options"]["rate"]) == ("tbf", 10_000_000 // 8)
            assert bucket["options"]["burst"] >= 1514, "a full frame must fit"
        assert "tbf" not in lab["a"].run("tc qdisc show dev eth0").stdout
        for sender, receiver in (("a", "b"), ("b", "a")):
            assert 6e6 < throughput(lab[sender], lab[receiver], 300_000) < 10.6e6, "bits a second, less the headers"
        assert throughput(lab["a"], lab["r"], 3_000_000) > 20e6


def throughput(sender: Node, receiver: Node, size: int) -> float:
    """Bits a second of one TCP connection, without what the bucket lets pass at once."""
    code = "import socket, sys, time\n"
    serve = (
        "listening = socket.create_server(('', 5001))\nprint('up', flush=True)\nsock, _ = listening.accept()\n"
        "first = len(sock.recv(20000, socket.MSG_WAITALL))\nstart, count = time.monotonic(), 0\n"
        "while data := sock.recv(65536): count += len(data)\nprint(count * 8 / (time.monotonic() - start))"
    )
    send = f"socket.create_connection(({receiver.addresses[0]!r}, 5001)).sendall(bytes({size}))"
    server = receiver.popen([sys.executable, "-I", "-S", "-c", code + serve])
    assert server.stdout
    assert server.stdout.readline() == b"up\n"
    sender.run([sys.executable, "-I", "-S", "-c", code + send], check=True, timeout=10)
    return float(server.stdout.readline())


def test_delay_and_loss_need_netem_before_anything_is_made() -> None:
    lab = Topology()
    lab.link(lab.host("a"), lab.host("b"), delay="5ms", loss="1%")
    if network.has("netem"):
        pytest.skip("this kernel has netem; what it does is tested in a user-mode Linux")
    with nslab.record() as trace, pytest.raises(nslab.Unavailable, match="netem"):
        lab.deploy()
    assert not trace


@pytest.mark.requires("root", "tool:linux.uml", "tool:ping")
def test_delay_and_loss_on_a_kernel_that_has_netem() -> None:
    """By many pings: a delay of 50 ms at either end is 100 there and back; of a loss of 30 % at either end come back 49 %."""
    script = f"""
import re, sys
sys.path.insert(0, {str(ROOT)!r})
import nslab
lab = nslab.Topology(ipv6=False)
a = lab.host("a")
lab.link(a, lab.host("b"), delay="50ms", rate="10mbit")
lab.link(a, lab.host("c"), loss="30%")
lab.link(a, lab.host("d"))
lab.link(a, lab.host("e"), loss="100%")
def ping(where, count):
    said = a.run(f"ping -q -i 0.002 -W 1 -c {{count}} {{where}}").stdout
    shortest = re.search("min/avg/max/mdev = ([0-9.]+)", said)
    return int(re.search("([0-9]+) received", said)[1]), float(shortest[1]) if shortest else None
with lab.deploy():
    (delayed, slow), (straight, fast) = ping("b", 20), ping("d", 20)
    print(delayed, straight, 99 < slow < 150, fast < slow / 2)
    print(150 < ping("c", 400)[0] < 245, ping("e", 20))
    print(lab.ping_all(timeout=0.4).times["a", "e"])
"""
    wanted = "20 20 True True\nTrue (0, None)\nNone\n"
    assert uml.output(uml.modules("sch_netem", "sch_tbf", "veth") + script) == wanted


@pytest.mark.requires("root", "tool:linux.uml")
def test_vlans_keep_hosts_of_one_bridge_apart() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from nslab import network
from tests.helpers import reaches
*hosts, switch = network.create_many(4)
bridge = switch.bridge("br0", vlan_filtering=True)
for number, (host, vlan) in enumerate(zip(hosts, (10, 10, 20)), 1):
    near, port = host.veth("eth0", switch, f"p{{number}}", other_master=bridge)
    near.address(f"10.0.0.{{number}}/24")
    port.join_vlan(vlan, tagged=False), port.leave_vlan(1)
print(hosts[0].call(reaches, "10.0.0.2"), hosts[0].call(reaches, "10.0.0.3", 0.3))
port.join_vlan(10, tagged=False), port.leave_vlan(20)
print(hosts[0].call(reaches, "10.0.0.3"))
"""
    assert uml.output(uml.modules("veth", "bridge") + script) == "True False\nTrue\n"


def test_what_fails_is_undone(monkeypatch) -> None:
    lab = Topology.single(5)
    before = sorted(map(_fd, os.listdir("/proc/self/fd")))

    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(network.Interface, "address", fails)
        with pytest.raises(KeyboardInterrupt):
            lab.deploy()
    assert sorted(map(_fd, os.listdir("/proc/self/fd"))) == before
    with pytest.raises(nslab.DeadNamespace, match="deploy"):
        lab["h1"].run("true")
    with lab.deploy():
        assert lab.ping_all().lost == []


def _fd(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}").split(":[")[0]
    except OSError:
        return ""


def test_what_cannot_be_makes_nothing() -> None:
    lab = Topology()
    lab.link(lab.host("a"), lab.host("b"), subnet="10.0.0.0/30", addresses={"a": "10.0.1.1"})
    with nslab.record() as trace, pytest.raises(nslab.SpecError, match="link a--b, node 'a'"):
        lab.deploy()
    assert not trace


def test_B05_deploy_and_destroy_again_and_again() -> None:
    lab = two_subnets()
    for _ in range(10):
        lab.deploy()
        with pytest.raises(nslab.SpecError, match="running already"):
            lab.deploy()
        lab.destroy()
        lab.destroy()
    with pytest.raises(nslab.DeadNamespace, match="on paper only"):
        lab["a"].run("true")


@IP
def test_B17_nobody_asks_for_what_is_given() -> None:
    """Each of many hosts would ask all others; then neighbours could not be found for seconds."""
    lab = Topology.single(4)
    with lab.deploy() as running:
        assert running.fabric
        assert running.fabric.run("ip -6 -o addr | grep -v ' lo '").stdout == "", "bridges and ports have no address"
        names = ("router_solicitations", "accept_ra", "accept_dad")
        assert [lab["h1"].network.sysctl(f"net.ipv6.conf.eth0.{name}") for name in names] == ["0"] * 3
        assert lab["h1"].run("ip -6 -o addr | grep -c tentative").stdout == "0\n"


def test_B09_descriptors_for_a_large_lab_are_there_or_it_is_refused() -> None:
    done = in_python(
        "import nslab, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 500))\n"
        "nslab.Topology.single(50).deploy()\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 150)\n"
        "with nslab.record() as trace:\n    try: nslab.Topology.single(110).deploy()\n"
        "    except nslab.Unavailable as error: print(error, len(trace))"
    )
    assert done.stdout.startswith("True\nthis process may have 500 open files"), done.stderr
    assert done.stdout.endswith(" 0\n"), "nothing was made"


def test_where_nothing_runs() -> None:
    lab = Topology.single(2)
    with pytest.raises(nslab.DeadNamespace, match="on paper only"):
        lab["h1"].run("true")
    with lab.deploy():
        assert lab["h1"].alive
        with pytest.raises(nslab.SpecError, match=r"node 's1'.*bridge in which nothing runs"):
            lab["s1"].run("true")


def test_two_labs_with_the_same_names_and_addresses() -> None:
    one, two = two_subnets(), two_subnets()
    with one.deploy(), two.deploy():
        assert one["a"].run("readlink /proc/self/ns/net").stdout != two["a"].run("readlink /proc/self/ns/net").stdout
        two["r"].run("ip link set eth0 down", check=True)
        assert one.ping_all().lost == []
        assert len(two.ping_all(timeout=0.05).lost) == 2


def test_from_a_thread() -> None:
    found: list[object] = []

    def work() -> None:
        with Topology.star(3).deploy() as lab:
            found.append(lab.ping_all().lost)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert found == [[]]


def test_nothing_outlives_a_killed_notebook() -> None:
    script = """
import nslab, signal
lab = nslab.Topology.tree(depth=2, fanout=3)
lab.deploy()
sleeper = lab["h1"].popen("exec sleep 1000")
print(sleeper.pid, flush=True)
signal.pause()
"""
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env) as notebook:
        assert notebook.stdout
        sleeper = int(notebook.stdout.readline())
        net = link("net", sleeper)
        with pidfd_of(sleeper) as pidfd:
            notebook.send_signal(signal.SIGKILL)
            assert has_ended(pidfd)
    lsns = ["lsns", "-n", "-t", "net", "-o", "NS"]
    assert eventually(lambda: net[5:-1] not in subprocess.run(lsns, capture_output=True, text=True).stdout)
