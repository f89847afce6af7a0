"""Packets, as they were seen on their way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from nslab.model.tables import table


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame as it was seen at an ``interface`` of ``node``, coming "in" or going "out" there, at ``time`` (seconds, epoch).

    ``source`` and ``destination`` are addresses of IP or ARP, else MACs, and the ports those of TCP and UDP (else 0).
    ``protocol`` is in capitals ("ICMP"), ``what`` says what it is about, ``ttl`` is that of IPv4 or the hop limit of IPv6.
    ``checksum`` is "good", "bad", "partial" (left to the hardware, which no frame between namespaces ever meets) or "".
    ``length`` is that on the wire in bytes, ``data`` the frame itself, which may have been cut.
    """

    time: float
    node: str
    interface: str
    direction: str
    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: str
    what: str
    ttl: int
    source_mac: str
    destination_mac: str
    checksum: str
    length: int
    data: bytes = field(repr=False)

    @property
    def sender(self) -> str:
        """ "10.0.0.1:80", or the address alone."""
        return _with_port(self.source, self.source_port)

    @property
    def receiver(self) -> str:
        """The same of whom it is for."""
        return _with_port(self.destination, self.destination_port)


def _with_port(address: str, port: int) -> str:
    return address if not port else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class Hop:
    """One step on the way of a packet: seen at an ``interface`` of ``node``, coming "in" or going "out" there.

    ``number`` says which packet of the walk it is, in the order of their first steps: 1, 2, ... ``time`` is in seconds since
    the first step of all; ``changes`` are the addresses that are others than one step before, where NAT has been at work.
    """

    number: int
    time: float
    node: str
    interface: str
    direction: str
    packet: Packet
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Walk:
    """What was followed through a lab: the ``hops`` of all its packets in order of time; ``nodes`` are roles by name.

    ``value`` is what the action returned, ``note`` what is to be known of the whole.
    """

    hops: tuple[Hop, ...]
    nodes: Mapping[str, str]
    value: object = None
    note: str = ""

    def of(self, number: int) -> tuple[Hop, ...]:
        """The steps of one packet."""
        return tuple(hop for hop in self.hops if hop.number == number)

    def rows(self) -> list[tuple[str, ...]]:
        """A table: which packet, milliseconds, where, direction, from, to, TTL, MACs, what, and what NAT has changed."""
        rows: list[tuple[str, ...]] = [("packet", "ms", "node", "interface", "", "from", "to", "TTL", "MACs", "what", "NAT")]
        for hop in self.hops:
            seen = hop.packet
            macs = f"{seen.source_mac} → {seen.destination_mac}"
            ends = (seen.sender, seen.receiver, str(seen.ttl or ""), macs, f"{seen.protocol} {seen.what}")
            where = (hop.node, hop.interface, hop.direction)
            rows.append((str(hop.number), f"{hop.time * 1000:.3f}", *where, *ends, ", ".join(hop.changes)))
        return rows

    def to_json(self) -> str:
        """A list of objects, one a hop, without the bytes of the frames."""
        names = [name for name in Packet.__slots__ if name not in ("data", "time", "node", "interface", "direction")]
        own = ("number", "time", "node", "interface", "direction", "changes")
        return json.dumps(
            [{key: getattr(hop, key) for key in own} | {key: getattr(hop.packet, key) for key in names} for hop in self.hops]
        )

    def summary(self) -> str:
        """ "2 packets, 12 hops"."""
        packets = len({hop.number for hop in self.hops})
        return f"{packets} packet{'' if packets == 1 else 's'}, {len(self.hops)} hops" + f"; {self.note}" * bool(self.note)

    def __str__(self) -> str:
        return table(self.rows(), self.summary())["text/plain"]

    def __repr__(self) -> str:
        return f"<Walk: {self.summary()}>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return table(self.rows(), self.summary())
