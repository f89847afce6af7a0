"""Packets, as they were seen on their way."""

from __future__ import annotations

from dataclasses import dataclass, field


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
