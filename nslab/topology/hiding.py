"""nat: rules of nft(8) by which a node hides what is behind it, from which only answers come back."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nslab.errors import Unavailable
from nslab.topology.resolving import WAY_OUT

if TYPE_CHECKING:
    from nslab.model.layout import Layout
    from nslab.network import Network

TABLE = {"family": "inet", "name": "nslab"}
CHAIN = {"family": "inet", "table": "nslab", "name": "hide"}


def outsides(layout: Layout) -> dict[str, tuple[str, ...]]:
    """The interfaces by which each nat hides what is behind it, in order; none for one without a link to the outside."""
    found: dict[str, list[str]] = {name: [] for name, role in layout.nodes.items() if role == "nat"}
    for link in layout.links:
        if link.outside:
            found[link.outside] += [end.interface for end in link.ends if end.node == link.outside]
    for name in layout.internet:
        found[name].append(WAY_OUT)
    return {name: tuple(interfaces) for name, interfaces in found.items() if interfaces}


def check(layout: Layout) -> None:
    """Unavailable where the program is missing that a nat needs."""
    if outsides(layout) and not shutil.which("nft"):
        raise Unavailable("a nat needs the program nft", "apt-get install nftables")


def hide(network: Network, interfaces: Iterable[str]) -> None:
    """Let what leaves by these have their address, in place of all rules of before; what is under way goes on."""
    chain: Mapping[str, Any] = {**CHAIN, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    rules = [{**CHAIN, "chain": CHAIN["name"], "expr": [_leaves(name), {"masquerade": None}]} for name in interfaces]
    network.nft(
        {"add": {"table": TABLE}}, {"delete": {"table": TABLE}}, {"add": {"table": TABLE}}, {"add": {"chain": chain}},
        *({"add": {"rule": {key: value for key, value in rule.items() if key != "name"}}} for rule in rules),
    )  # fmt: skip


def _leaves(name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": name}}
