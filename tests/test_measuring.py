"""Throughput, and what an interface has carried, beside what ip(8) says."""

from __future__ import annotations

import json

import pytest
from IPython.core.formatters import DisplayFormatter

import nslab
from nslab import Topology
from nslab.topology.metering import Throughput


def shaped(rate: str | None = None) -> Topology:
    lab = Topology("shaped")
    r = lab.router("r")
    lab.link(lab.host("a"), r)
    lab.link(lab.host("b"), r, rate=rate)
    return lab


def test_what_a_link_lets_through_as_its_counters_say() -> None:
    lab = shaped("10mbit")
    with lab.deploy() as running:
        counted = running.interfaces["b", "eth0"]
        before = counted.state.counters.rx_bytes
        found = running.throughput("a", lab["b"], seconds=0.5)
        carried = counted.state.counters.rx_bytes - before
    assert 8e6 <= found.bits <= 10.5e6, found
    assert 0.5 <= found.seconds < 1
    assert found.bytes < carried < 1.1 * found.bytes + 100_000, "with headers, and what came after the end"


def test_a_link_without_a_rate_is_faster_and_the_other_way_too() -> None:
    lab = shaped()
    with lab.deploy():
        for ends in (("a", "b"), ("b", "a")):
            assert lab.throughput(*ends, seconds=0.1).bits > 50e6


def test_how_it_reads() -> None:
    found = Throughput("a", "b", 1_250_000, 1.0)
    assert str(found) == repr(found) == "10 Mbit/s from a to b (1,250,000 bytes in 1.00 s)"
    assert json.loads(found.to_json())["bits"] == 10_000_000
    assert str(Throughput("a", "b", 0, 0.0)).startswith("0 bit/s")


def test_where_there_is_no_way_it_says_so() -> None:
    lab = shaped()
    with lab.deploy() as running:
        lab["r"].network.interface("eth1").down()
        with pytest.raises(nslab.NslabError, match=r"there is no connection from a to b: .*unreachable"):
            lab.throughput("a", "b", seconds=0.1)
        for wrong in (("a", "nobody"), ("nobody", "a")):
            with pytest.raises(nslab.SpecError):
                running.throughput(*wrong)
        for seconds in (0, -1, 1000, "1", True):
            with pytest.raises(nslab.SpecError, match="seconds"):
                lab.throughput("a", "b", seconds=seconds)  # type: ignore[arg-type]


@pytest.mark.requires("tool:ip")
def test_tables_of_a_node_say_what_ip_says() -> None:
    lab = shaped()
    with lab.deploy():
        lab.ping_all()
        where = lab["r"].network
        tables = {
            "links": where.links(),
            "routes": where.routes(),
            "neighbours": where.neighbours(),
            "counters": where.counters(),
        }
        links = {each["ifname"]: each for each in json.loads(where.run("ip -j -s address", check=True).stdout)}
        routes = json.loads(where.run("ip -j -4 route", check=True).stdout)
        neighbours = json.loads(where.run("ip -j -4 neighbour", check=True).stdout)
        assert [row[0] for row in tables["links"].rows()] == ["interface", *links]
        for row in tables["links"].rows()[1:]:
            assert row[-1].split() == [f"{at['local']}/{at['prefixlen']}" for at in links[row[0]]["addr_info"]]
        assert {(row[0], row[3]) for row in tables["routes"].rows()[1:] if row[1] == "4"} == {
            (each["dst"], each["dev"]) for each in routes
        }
        assert {row[:3] for row in tables["neighbours"].rows()[1:] if "." in row[0]} == {
            (each["dst"], each["lladdr"], each["dev"]) for each in neighbours
        }
        assert "fd00" in str(tables["links"])
        assert "<th" in tables["counters"]._repr_mimebundle_()["text/html"]
        shown, _ = DisplayFormatter().format(tables["counters"])  # which has a way of its own to write lists
        assert shown["text/plain"] == str(tables["counters"])
        assert json.loads(tables["counters"].to_json())[1]["counters"]["rx_packets"] > 0
    assert next(row[2] for row in tables["neighbours"].rows()[1:]).isdecimal(), "its interface is gone: the index is left"
