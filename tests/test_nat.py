"""A nat hides what is behind it: what leaves has its address, answers come back, and from outside nothing finds in."""

from __future__ import annotations

import json

import pytest

import nslab
from nslab import Topology
from nslab.topology import Node
from tests.helpers import reaches

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
    import socket

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
        assert lab["b"].call(reaches, lab["server"].addresses[0])
        assert lab["b"].call(reaches, lab["a"].addresses[0])
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
