"""Filters and address translation, by nft(8) and its JSON; the rules belong to one network namespace. libnftables-json(5)"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nslab.errors import CommandError, SpecError, Unavailable
from nslab.network import batching
from nslab.trace import record

if TYPE_CHECKING:
    from nslab.network.interface import Interface
    from nslab.network.space import Network

TABLE = {"family": "inet", "table": "nslab"}


def nft(network: Network, commands: list[Mapping[str, Any]]) -> None:
    """Carry out commands of nft, all or none: CommandError with its words when one is refused."""
    try:
        text = json.dumps({"nftables": commands})
    except (TypeError, ValueError) as error:
        raise SpecError("commands", f"must be what JSON can hold: {error}") from None
    _run(network, text)


def ruleset(network: Network) -> list[dict[str, Any]]:
    """All tables, chains and rules, as nft lists them."""
    found = json.loads(_run(network, "list", "ruleset") or '{"nftables": []}')["nftables"]
    return [each for each in found if "metainfo" not in each]


def masquerade(network: Network, out: Interface) -> None:
    """What leaves by ``out`` gets the address of that interface for its source, IPv4 and IPv6."""
    if out.network != network:
        raise SpecError("out", f"{out.name} is in another network")
    name = {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": out.name}}
    chain = {"name": "hide", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    nft(
        network,
        [
            {"add": {"table": {"family": TABLE["family"], "name": TABLE["table"]}}},
            {"add": {"chain": TABLE | chain}},
            {"add": {"rule": TABLE | {"chain": chain["name"], "expr": [name, {"masquerade": None}]}}},
        ],
    )


def _run(network: Network, *words: str) -> str:
    batching.flush()
    if not shutil.which("nft"):
        raise Unavailable("filters and NAT need the program nft", "apt-get install nftables")
    with record(network.trace):
        result = network.run(["nft", "-j", *words])
    if result.returncode:
        raise CommandError(f"nft refused it:\n{result.stderr.strip()}", result)
    return str(result.stdout)
