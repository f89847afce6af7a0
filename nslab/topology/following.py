"""follow: one ping or connection, captured everywhere at once, as the steps of its packets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nslab.model.packets import Hop, Packet, Walk
from nslab.network import Network, capturing, decoding
from nslab.network.capturing import Filter
from nslab.topology import pinging
from nslab.trace import record

if TYPE_CHECKING:
    from nslab.topology.lab import Lab

NEVER = "nothing that was captured fits; without protocol=, host= and port= all of it is shown"


def follow(lab: Lab, action: Callable[[], Any], wanted: Filter, max_packets: int) -> Walk:
    """Do something while every interface of the lab is captured, switches included, and put what was seen in order."""
    places = {(network, name): (node, name) for (node, name), network in _interfaces(lab)}
    networks = list(dict.fromkeys(network for network, _ in places))
    names = {network: node for node, network in lab.networks.items()}

    def place(network: Network, seen: str) -> tuple[str, str] | None:
        """Not the bridge itself, at which a flood is seen once more."""
        return places.get((network, seen)) or ((names[network], seen) if network in names else None)

    with record(lab.trace):
        capture = capturing.start(dict.fromkeys(networks, ""), place, wanted, max_packets)
    with capture:
        value = action()
    lost = f"{capture.dropped} dropped by the kernel" if capture.dropped else ""
    more = f"{capture.omitted} more were not kept" if capture.omitted else ""
    packets = capture.packets
    note = ", ".join(filter(None, (lost, more))) or (NEVER if wanted and not packets else "")
    return Walk(tuple(_hops(packets)), dict(lab.layout.nodes), value, note)


def ping(lab: Lab, one: str, two: str, timeout: float = 2.0) -> float | None:
    """Ping a node once from another: the round-trip time in milliseconds, None where no answer came."""
    lab.node(two)
    return pinging.ping(lab.networks[one], lab.addresses[two][0], timeout)


def _interfaces(lab: Lab) -> Iterable[tuple[tuple[str, str], Network]]:
    for (node, name), interface in lab.interfaces.items():
        yield (node, name), interface.network


def _hops(packets: list[Packet]) -> Iterable[Hop]:
    """Each sighting, with the number of its packet: one that is seen twice at one place was sent twice."""
    known: dict[Any, list[tuple[int, dict[tuple[str, str, str], Packet]]]] = {}
    count = 0
    for packet in packets:
        where = (packet.node, packet.interface, packet.direction)
        alike = known.setdefault(decoding.identity(packet.data), [])
        number, before = next(((number, seen) for number, seen in alike if where not in seen), (0, {}))
        if not number:
            count += 1
            number = count
            alike.append((number, before))
        changes = _changes(list(before.values())[-1], packet) if before else ()
        before[where] = packet
        yield Hop(number, packet.time - packets[0].time, *where, packet, changes)


def _changes(before: Packet, after: Packet) -> tuple[str, ...]:
    ends = (("source", before.sender, after.sender), ("destination", before.receiver, after.receiver))
    return tuple(f"{what} {old} is now {new}" for what, old, new in ends if old != new)
