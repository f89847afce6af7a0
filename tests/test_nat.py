"""A nat hides what is behind it: what leaves has its address, answers come back, and from outside nothing finds in."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

import nslab
from nslab import Topology
from nslab.topology import Node, internet
from tests.crash.oracle import descendants
from tests.helpers import has_ended, link, pidfd_of, reaches

pytestmark = pytest.mark.requires("tool:nft")
SERVE = (
    "import socket\nlistening = socket.create_server(('', 80))\nprint('up', flush=True)\n"
    "while True:\n sock, peer = listening.accept()\n sock.sendall(peer[0].encode())\n sock.close()"
)


def home() -> Topology:
    """Two hosts behind a nat, a router of the provider, and a server beyond it."""
    lab = Topology("home")
    inside, nat = lab.switch("inside"), lab.nat("nat")
    lab.link(lab.host("a"), inside, subnet="192.168.1.0/24")
    lab.link(lab.host("b"), inside)
    lab.link(nat, inside)
    lab.link(nat, lab.router("provider"), subnet="203.0.113.0/24", outside=nat)
    lab.link("provider", lab.host("server"), subnet="198.51.100.0/24")
    return lab


def asks(server: str) -> str:
    with socket.create_connection((server, 80), 2) as sock:
        return sock.recv(100).decode()


def serves(node: Node) -> None:
    server = node.popen(["python3", "-I", "-S", "-c", SERVE])
    assert server.stdout
    assert server.stdout.readline() == b"up\n"
    node.server = server  # type: ignore[attr-defined]  # as long as the lab


def test_net_20_the_server_sees_the_address_of_the_nat_and_does_not_find_who_is_behind() -> None:
    lab = home()
    with lab.deploy():
        serves(lab["server"])
        (outside,) = [text for text in lab["nat"].network.interface("eth1").state.addresses if text.startswith("203.")]
        assert lab["a"].call(asks, lab["server"].addresses[0]) == outside.split("/")[0]
        assert lab["b"].call(reaches, lab["server"].addresses[0], 3)
        assert lab["b"].call(reaches, lab["a"].addresses[0], 3)
        assert not lab["server"].call(reaches, lab["a"].addresses[0], 0.3)
        assert not lab["provider"].call(reaches, lab["a"].addresses[0], 0.3)
        assert lab["provider"].run("ip -j route show 192.168.1.0/24").stdout.strip() in ("", "[]", "[ ]")
        assert set(lab.ping_all(timeout=0.3).lost) == {("server", "a"), ("server", "b")}


@pytest.mark.requires("tool:ip")
def test_it_hides_by_the_links_that_are_outside_now() -> None:
    lab = home()
    with lab.deploy():
        serves(lab["server"])
        second = lab.link("nat", "server", subnet="198.18.0.0/24", outside="nat")
        assert lab["a"].call(asks, "198.18.0.1") == "198.18.0.254"
        rules = [each["rule"] for each in lab["nat"].network.ruleset() if "rule" in each]
        assert len(rules) == 2
        second.remove()
        assert len([each for each in lab["nat"].network.ruleset() if "rule" in each]) == 1
        assert lab["a"].call(asks, lab["server"].addresses[0]).startswith("203.0.113.")
        did = lab.apply(home())
        assert not did, json.loads(did.to_json())


def test_the_code_and_the_file_of_a_nat_make_it_again() -> None:
    lab = home()
    place: dict[str, Topology] = {}
    exec(lab.to_python(), place)
    assert place["lab"].resolve() == lab.resolve() == Topology.from_yaml(lab.to_yaml()).resolve()
    assert "outside of nat" in str(lab)


def test_only_a_nat_hides() -> None:
    lab = home()
    with pytest.raises(nslab.SpecError, match="provider is a router, and only a nat hides"):
        lab.link("provider", "server", outside="provider")
    with pytest.raises(nslab.SpecError, match=r"link a--inside.*not an end"):
        lab.link("a", "inside", outside="nat")


def test_without_nft_nothing_is_made(monkeypatch) -> None:
    monkeypatch.setattr("nslab.topology.hiding.shutil.which", lambda _: None)
    with nslab.record() as trace, pytest.raises(nslab.Unavailable, match="nft") as caught:
        home().deploy()
    assert "apt-get install nftables" in caught.value.how_to_get_it
    assert not trace


# -- out of the machine -------------------------------------------------------------------------------------------------

SLIRP = pytest.mark.requires("root", "tool:slirp4netns", "tool:ip")  # /dev/net/tun is root's, by default
LOOPBACK = "100.64.0.2"  # as which slirp4netns shows the machine's 127.0.0.1, unless it is told not to


def out() -> Topology:
    lab = Topology("out")
    nat, r = lab.nat("nat", internet=True), lab.router("r")
    lab.link(lab.host("a"), r)
    lab.link(r, nat)
    lab.link(nat, lab.host("b"))
    return lab


@SLIRP
def test_a_nat_leads_out_of_the_machine_if_asked_to(monkeypatch) -> None:
    """To a service on the machine's loopback: tests send nothing any further."""
    monkeypatch.setattr(internet, "OPTIONS", ("--disable-dns",))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        lab = out()
        with lab.deploy():
            assert lab.ping_all().lost == []
            for name in ("a", "b"):
                asking = lab[name].popen([sys.executable, "-I", "-S", "-c", ASK, LOOPBACK, str(port)])
                sock, peer = server.accept()
                with sock:
                    assert peer[0] == "127.0.0.1"
                    sock.sendall(b"out")
                assert asking.stdout
                assert asking.stdout.read() == b"out\n"
            assert "nameserver 100.64.0.3" in lab["a"].run("cat /etc/resolv.conf").stdout
            (program,) = children_named("slirp4netns")
            assert link("net", program) == link("net"), "it is in the machine's own network"
            with pidfd_of(program) as pidfd:
                lab["nat"].remove()
                assert has_ended(pidfd)
            lab.link("r", "b")
            assert lab.ping_all().lost == []
            assert "No name server" in lab["a"].run("cat /etc/resolv.conf").stdout


@SLIRP
def test_what_listens_on_the_loopback_of_the_machine_is_not_reached_by_default() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        lab = out()
        with lab.deploy():
            (program,) = children_named("slirp4netns")
            assert not lab["b"].call(connects, LOOPBACK, server.getsockname()[1])
            with pidfd_of(program) as pidfd:
                lab.destroy()
                assert has_ended(pidfd)


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 0.3).close()
    except OSError:
        return False
    return True


ASK = "import socket, sys\nprint(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(9).decode())"


def children_named(name: str) -> list[int]:
    found = descendants(os.getpid())
    return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().strip() == name]


@pytest.mark.requires("tool:slirp4netns")
def test_what_the_way_out_needs_is_said_before_anything_is_made(monkeypatch) -> None:
    lab = out()
    monkeypatch.setattr(internet, "DEVICE", "/nowhere")
    with nslab.record() as trace, pytest.raises(nslab.Unavailable, match="cannot open"):
        lab.deploy()
    monkeypatch.setattr(internet, "PROGRAM", "nothing-of-this-name")
    with nslab.record() as trace, pytest.raises(nslab.Unavailable, match="needs the program") as caught:
        lab.deploy()
    assert "apt-get install" in caught.value.how_to_get_it
    assert not trace


def test_the_subnet_of_the_way_out_and_its_name_are_taken() -> None:
    lab = out()
    lab.link("a", "b", subnet="100.64.0.0/16")
    with pytest.raises(nslab.SpecError, match=r"link a--b.*overlaps 100\.64\.0\.0/24"):
        lab.resolve()
    lab.links[-1].remove()
    lab.link("a", "nat", names={"nat": "internet"})
    with pytest.raises(nslab.SpecError, match="its way out of the machine"):
        lab.resolve()


def test_nobody_leads_out_unless_asked_to() -> None:
    assert home().resolve().internet == ()
    assert "internet=True" in out().to_python()
    assert Topology.from_yaml(out().to_yaml()).resolve() == out().resolve()
    routes = {name: [route.target for route in found] for name, found in out().resolve().routes.items()}
    assert routes["r"].count("0.0.0.0/0") == 1
    assert "0.0.0.0/0" not in routes["nat"], "its own is made by the program"
