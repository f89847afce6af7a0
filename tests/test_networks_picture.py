"""The picture of networks: interfaces, bridges and veth pairs, as they are in a snapshot; ip(8) is the oracle of a live one."""

from __future__ import annotations

import json
from dataclasses import replace

import nslab
from nslab.model import Counters, InterfaceState, NamespaceId, Route
from nslab.model.snapshot import NetContent, SeenInterface, SeenNamespace, Snapshot
from nslab.render import Picture
from tests.test_views import MACHINE, shown, snapshot


def interface(index: int, name: str, kind: str = "veth", *addresses: str, **more) -> SeenInterface:
    state = {"up": True, "master": 0, "peer": 0} | {key: more.pop(key) for key in ("up", "master", "peer") if key in more}
    state |= {"mac": "02:00:00:00:00:01", "mtu": 1500, "carrier": state["up"], "addresses": addresses, "counters": Counters(0)}
    return SeenInterface(InterfaceState(name=name, index=index, kind=kind, **state), **more)


def wired(hosts: int, name: str = "") -> Snapshot:
    """As many networks as hosts, each with one end of a veth pair, the others in the machine's, on a bridge; one has but lo."""
    one = snapshot()
    ends = [(number, NamespaceId(4, 7000 + number)) for number in range(hosts)]
    ports = [interface(100 + i, f"port{i}", master=2, peer=2, peer_network=net) for i, net in ends]
    home = NetContent((interface(1, "lo", "loopback", "127.0.0.1/8"), interface(2, f"br0{name}", "bridge"), *ports), (), ())
    route = Route("default", 4, "10.0.0.254", 2, "", 0, "unicast")
    made = [
        SeenNamespace("net", net, 0, "", MACHINE["user"], 0, None, (), 0, (), "lab x", NetContent((
            interface(1, "lo", "loopback"),
            interface(2, f"eth0{name}", "veth", f"10.0.0.{i}/24", "fe80::1/64", peer=100 + i, peer_network=MACHINE["net"],
                      rate=0 if i else 10_000_000, up=i != 1),
        ), (route,), ())) for i, net in ends
    ]  # fmt: skip
    lone = NetContent((interface(1, "lo", "loopback"),), (), ())
    old = [replace(each, content=home if each.id == MACHINE["net"] else lone) if each.kind == "net" else each
           for each in one.namespaces]  # fmt: skip
    return replace(one, namespaces=(*old, *made))


def lines(picture: Picture) -> int:
    return picture.dot.count(" -- ")


def test_networks_are_joined_by_veth_pairs_and_bridges() -> None:
    picture = nslab.draw(wired(3), view="networks")
    texts = shown(picture)
    assert {"br0", "eth0", "port0", "10.0.0.2/24", "default via 10.0.0.254 on eth0", "rate 10mbit", "down"} <= set(texts)
    assert not {"lo", "fe80::1/64"} & set(texts), "every network has them; the tooltip says the address"
    assert "nothing but lo" in texts
    assert lines(picture) == 6, "three ports, three pairs, each once"
    row = next(row for row in picture.rows if row[2] == "port1")
    assert row[3:] == ("veth", "up", "", "port of br0, eth0 of net:[7001]", "")
    assert next(row for row in picture.rows if row[2] == "eth0")[-1] == "rate 10mbit"
    assert any("fe80::1/64" in title for title in shown(picture, "title"))
    assert "net:[7000] lab x: default via 10.0.0.254 on eth0" in picture.text


def test_many_networks_are_folded_with_the_ports_that_lead_to_them(tmp_path) -> None:
    large = wired(100, name="<&>\n\udcff")
    picture = nslab.draw(large, view="networks")
    picture.save(tmp_path / "a.txt")
    assert r"via 10.0.0.254 on eth0<&>\n\xff" in (tmp_path / "a.txt").read_text()
    texts = shown(picture)
    (count,) = {text for text in texts if text.endswith(" more veth")}
    assert int(count.split()[0]) == next(int(text.split()[0]) for text in texts if text.endswith(" more like this"))
    assert len(picture.rows) == 1 + 102 + 200 + 1
    assert lines(nslab.draw(large, view="networks", most=None)) == 200
    assert not [text for text in shown(nslab.draw(large, view="networks", most=None)) if " more" in text]
    for most in (40, 5, 1):  # few enough that what is not alike has to be together
        assert "<svg" in nslab.draw(large, view="networks", most=most).svg


def test_networks_that_are_not_alike_are_one_node_when_there_are_too_many() -> None:
    """A ring: each has two neighbours, and no two have the same."""
    nets = [NamespaceId(4, 7000 + number) for number in range(50)]
    ring = [SeenNamespace("net", net, 0, "", None, 0, None, (), 0, (), "", NetContent((
                interface(2, "left", peer=3, peer_network=nets[i - 1]),
                interface(3, "right", peer=2, peer_network=nets[(i + 1) % 50])), (), ()))
            for i, net in enumerate(nets)]  # fmt: skip
    picture = nslab.draw(replace(snapshot(), namespaces=tuple(ring)), view="networks")
    assert "31 more" in " ".join(shown(picture))
    assert lines(picture) == 20


def test_networks_of_a_live_lab_are_those_that_ip_shows() -> None:
    lab = nslab.Topology("home")
    lab.link(lab.host("a"), lab.switch("s"))
    lab.link(lab.host("b"), "s", rate="5mbit")
    with lab.deploy() as up, nslab.Container("web", isolate="user net") as web:
        web.run("ip link add v0 type veth peer name v1").check()
        picture = nslab.draw(nslab.discover(up), view="networks")
        for node in ("a", "b"):
            (address,) = [each for each in json.loads(lab[node].run("ip -j -4 address show eth0").stdout)[0]["addr_info"]]
            assert f"{address['local']}/{address['prefixlen']}" in shown(picture)
        assert "rate 5mbit" in shown(picture)
        assert lines(picture) == 4
        assert lines(nslab.draw(nslab.discover(web), view="networks")) == 1
