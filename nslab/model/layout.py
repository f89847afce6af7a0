"""A topology that is worked out: every name, address, route and limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nslab.model.tables import table, text

RATES: Mapping[str, int] = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}  # bits a second. tc(8)
TIMES: Mapping[str, int] = {"us": 1, "ms": 10**3, "s": 10**6}  # microseconds


def in_units(value: int, units: Mapping[str, int]) -> str:
    """10_000_000 -> "10mbit": in the largest unit in which it is a whole number."""
    unit, size = next((unit, size) for unit, size in reversed(tuple(units.items())) if value % size == 0)
    return f"{value // size}{unit}"


def limits(rate: int, delay: int, loss: float) -> dict[str, str]:
    """Those of a link that are not 0, as they are asked for: {"rate": "10mbit"}."""
    texts = {"rate": in_units(rate, RATES), "delay": in_units(delay, TIMES), "loss": f"{loss:g}%"}
    return {key: texts[key] for key, value in (("rate", rate), ("delay", delay), ("loss", loss)) if value}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a link: an interface of ``node`` and its addresses, "10.0.1.1/24"; the port of a switch has none."""

    node: str
    interface: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkLayout:
    """A link, with all that was left open worked out. ``subnets`` are those of its segment.

    ``rate`` is in bits a second, ``delay`` in microseconds, ``loss`` a percentage, each for either direction; 0: no limit.
    ``up`` is False when it was taken down; ``outside`` names the nat that hides, by this link, what is behind it.
    """

    ends: tuple[Endpoint, Endpoint]
    subnets: tuple[str, ...]
    rate: int = 0
    delay: int = 0
    loss: float = 0.0
    up: bool = True
    outside: str = ""

    def limits(self) -> dict[str, str]:
        """What slows it down, as it is asked for."""
        return limits(self.rate, self.delay, self.loss)


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """To ``target`` ("10.0.2.0/24", or "0.0.0.0/0" and "::/0" for all the rest) by way of the address ``via``."""

    target: str
    via: str
    interface: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A topology, worked out: ``nodes`` are roles by name (host, router, nat, switch), ``routes`` those of each node.

    ``internet`` are the nats that lead out of the machine.
    """

    name: str
    nodes: Mapping[str, str]
    links: tuple[LinkLayout, ...]
    routes: Mapping[str, tuple[StaticRoute, ...]]
    internet: tuple[str, ...] = ()

    def endpoints(self, node: str) -> tuple[Endpoint, ...]:
        """The interfaces of a node, in the order in which its links were named."""
        return tuple(end for link in self.links for end in link.ends if end.node == node)

    def rows(self) -> list[tuple[str, ...]]:
        """A table of its links: each end with interface and addresses, the subnets, and what slows it down."""
        rows: list[tuple[str, ...]] = [("node", "interface", "addresses", "node", "interface", "addresses", "subnet", "limits")]
        for link in self.links:
            one, two = ((end.node, end.interface, " ".join(end.addresses)) for end in link.ends)
            notes = [f"{key} {text}" for key, text in link.limits().items()]
            notes += [f"outside of {link.outside}"] * bool(link.outside) + ["down"] * (not link.up)
            rows.append((*one, *two, " ".join(link.subnets), ", ".join(notes)))
        return rows

    def __str__(self) -> str:
        return text(self.rows())

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return table(self.rows())
