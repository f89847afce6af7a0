"""Pictures of topologies: all that is there, the same as text, and what is alike folded."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import networkx
import pytest

from nslab import Topology
from nslab.errors import SpecError
from nslab.render import layout as looks
from nslab.render import style
from nslab.render.layout_folding import depths, fold_layout
from tests.test_pictures import PAGES, over

SHAPES = {
    "single": Topology.single(4), "linear": Topology.linear(4), "ring": Topology.ring(5), "star": Topology.star(6),
    "tree": Topology.tree(depth=2, fanout=3), "mesh": Topology.from_graph(networkx.complete_graph(4)),
}  # fmt: skip
LARGE = {
    "single": Topology.single(300), "linear": Topology.linear(100), "ring": Topology.ring(100), "star": Topology.star(100),
    "tree": Topology.tree(depth=3, fanout=5), "mesh": Topology.from_graph(networkx.complete_graph(12)),
}  # fmt: skip


NASTY = '<b>&"\\N"|{'  # the kernel takes it


def two_subnets() -> Topology:
    lab = Topology("two subnets")
    a, b, r = lab.host("a"), lab.host("b"), lab.router("r")
    lab.link(a, r, subnet="10.0.1.0/24")
    lab.link(b, r, subnet="10.0.2.0/24", rate="10mbit", names={r: NASTY})
    return lab


def texts(svg: str) -> list[str]:
    return [(element.text or "").strip() for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_picture_has_every_node_link_and_address_and_a_table(shape: str) -> None:
    lab = SHAPES[shape]
    picture, layout = lab.draw(), lab.resolve()
    assert all(f"<b>{node}</b>" in picture.dot for node in lab)
    for number, link in enumerate(layout.links):
        assert picture.dot.count(f'port="l{number}"') == 2
        assert all(address in picture.dot for end in link.ends for address in end.addresses)
    assert picture.text == str(lab)


def test_the_svg_says_what_is_on_the_wires() -> None:
    said = texts(two_subnets().draw(routes=True).svg)
    assert {"a", "eth0", "10.0.1.1/24", "10.0.2.254/24", "10.0.1.0/24", "rate 10mbit", NASTY} <= set(said)
    assert "default via 10.0.1.254" in said
    root = ElementTree.fromstring(two_subnets().draw().svg)
    assert root[0].text == "Topology: two subnets"
    assert (root[1].text or "").startswith("Rounded boxes are hosts, ellipses routers; each")


def test_a_name_that_is_not_utf_8() -> None:
    lab = Topology()
    lab.link(lab.host("a"), lab.host("b"), names={"a": "eth\udcff"})
    assert "eth\\xff" in lab.draw()._repr_mimebundle_()["text/html"]


def test_the_routes_only_when_asked_for() -> None:
    lab = Topology.ring(3)
    assert " via " not in lab.draw().dot + lab.draw().text
    shown = lab.draw(routes=True)
    assert "default via 10.0.0.254" in shown.dot
    assert "h1: 0.0.0.0/0 via 10.0.0.254 by eth0" in shown.text


@pytest.mark.requires("userns")
def test_what_is_down_is_drawn_so() -> None:
    lab = two_subnets()
    lab.switch("s")
    lab.link("a", "s")
    with lab.deploy() as deployed:
        assert "down" not in lab.draw().text + lab.draw().dot
        deployed.interfaces["b", "eth0"].down()
        deployed.interfaces["s", "s-1"].delete()
        picture = lab.draw()
        assert re.search(r"b +eth0 \(down\) +10.0.2.1/24 +r", picture.text)
        assert re.search(r"a +eth1 \(down\).* s +s-1 \(down\)", picture.text)
        assert picture.dot.count("down</font>") == 3
        assert picture == deployed.draw()
    assert "down" not in lab.draw().text, "on paper again"


def test_a_nat_its_outside_and_a_link_that_is_taken_down_on_paper() -> None:
    lab = Topology("home")
    gate = lab.nat("gate")
    lab.link(gate, lab.host("web"), outside=gate)
    lab.link(gate, lab.host("a")).down()
    picture = lab.draw()
    assert "outside of gate" in picture.dot
    assert "diagonals" in picture.dot
    assert picture.dot.count("down</font>") == 2
    assert "cut corners" in picture.about


def test_a_node_that_is_a_container_has_a_double_outline() -> None:
    lab = Topology.single(6)
    lab.link(lab.host("web", isolate="pid mnt", hardened=True), "s1")
    picture = lab.draw()
    assert picture.dot.count("peripheries=2") == 1
    assert "web: a container with its own mnt pid, hardened" in picture.text
    assert "<div>web: a container with its own mnt pid, hardened</div>" in picture._repr_mimebundle_()["text/html"]
    assert "double outline" in picture.about
    folded = lab.draw(fold=True)
    assert "4 more hosts" in folded.text
    assert "<b>web</b>" in folded.dot
    assert "double" not in Topology.single(2).draw().about


@pytest.mark.parametrize("shape", LARGE)
def test_folding_loses_no_node(shape: str) -> None:
    layout = LARGE[shape].resolve()
    folded = fold_layout(layout)
    hidden = [name for more in folded.more for name in more.hidden]
    assert sorted([*folded.nodes, *hidden]) == sorted(layout.nodes)
    assert sum(count for more in folded.more for _, count in more.counts) == len(hidden)
    drawn = set(folded.nodes)
    assert all({end.node for end in link.ends} <= drawn for link in folded.links)
    assert all(more.beside in drawn and more.before in drawn | {""} for more in folded.more)
    if shape == "mesh":
        assert not hidden, "all are alike, but no two stand in the same place"
    else:
        assert len(drawn) < 45


def test_a_large_lab_is_folded_and_can_be_unfolded() -> None:
    lab = Topology.single(300)
    picture = lab.draw()
    assert "298 more hosts" in picture.dot
    assert "on s1: 298 more hosts (h3 … h300)" in picture.text
    assert len(picture.text.splitlines()) == 4
    assert "fold=False draws each, unfold='s1' those around that" in picture.about
    assert len(picture.rows) == 301, "the table has all of it"
    assert "10.0.1.44/23" in picture._repr_mimebundle_()["text/html"]
    assert lab.draw(fold=False).text == str(lab) == lab.draw(unfold="s1").text
    tree = Topology.tree(depth=2, fanout=10)
    assert "7 more switches, 70 more hosts" in tree.draw(unfold=[tree["s3"]]).text
    assert "<b>h20</b>" in tree.draw(unfold=[tree["s3"]]).dot
    assert "more" not in Topology.single(20).draw().dot + Topology.single(20).draw().about
    assert "18 more hosts" in Topology.single(20).draw(fold=True).dot
    with pytest.raises(SpecError, match="'s9' is not in this topology"):
        lab.draw(unfold=["s9"])


def test_what_differs_is_not_folded() -> None:
    lab = Topology()
    for number in range(10):
        lab.link(lab.host(f"h{number}"), "s" if "s" in lab else lab.switch("s"), rate="1mbit" if number == 7 else None)
    assert "7 more hosts" in lab.draw(fold=True).dot
    assert "<b>h7</b>" in lab.draw(fold=True).dot
    down = fold_layout(lab.resolve(), {("h5", "eth0")})
    assert {"h0", "h1", "h5", "h7"} <= set(down.nodes)
    assert len(down.nodes) == 5


def test_many_that_differ_are_drawn_by_name_only() -> None:
    lab = Topology.from_graph(networkx.connected_watts_strogatz_graph(80, 4, 0.3, seed=1))
    picture = lab.draw()
    assert all(f"<b>{node}</b>" in picture.dot for node in lab)
    assert "eth0" not in picture.dot.replace("tooltip", "")[:2000]
    assert picture.text == str(lab)


def test_on_top_is_the_middle() -> None:
    assert [name for name, depth in depths(Topology.linear(7).resolve()).items() if depth == 0] == ["s4"]
    lab = two_subnets()
    lab.link("a", lab.router("far"))
    lab.host("alone")
    found = depths(lab.resolve())
    assert (found["r"], found["a"], found["far"], found["alone"]) == (0, 1, 2, 0)
    assert max(depths(Topology.linear(100).resolve()).values()) == 51


def test_a_node_without_a_link_and_an_empty_topology() -> None:
    lab = Topology()
    assert lab.draw().text.startswith("node")
    lab.host("alone")
    assert "alone: a host without a link" in lab.draw().text


@pytest.mark.parametrize("page", PAGES)
def test_it_can_be_read_on_a_light_page_and_on_a_dark_one(page: str) -> None:
    """WCAG 2.2 AA: 4.5 for texts, 3 for lines."""
    paper, ink = PAGES[page]
    for fill in (fill.replace(style.INK, ink) for _, _, fill in looks.LOOKS.values()):
        assert style.contrast(ink, over(paper, fill[:7], int(fill[7:], 16) / 255)) > 4.5
    assert style.contrast(looks.WIRE, paper) > 3 < style.contrast(style.BAD, paper)
    assert (
        len({look[:2] for look in looks.LOOKS.values()}) == len({look[2] for look in looks.LOOKS.values()}) == len(looks.LOOKS)
    )
