"""What the kernel says is there: interfaces, addresses, routes, neighbours."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Mapping
from typing import NamedTuple

from nslab import netlink
from nslab.model import Counters, InterfaceState, Neighbour, Route
from nslab.model.tables import Table
from nslab.netlink import Socket, attribute, attributes
from nslab.network.messages import AF_INET, AF_INET6, AF_UNSPEC, IFF_UP, ifinfomsg

IFF_LOWER_UP = 0x10000
_MAIN = 254
_LINK_NETNSID, _NSID_FD = 37, 3
_ROUTE_KINDS = {1: "unicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_NEIGHBOUR_STATES = {
    0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed", 0x40: "noarp",
    0x80: "permanent",
}  # fmt: skip


class Located(NamedTuple):
    """An interface, the number by which its network namespace knows that of the peer (-1: its own), and its queue: "tbf"."""

    state: InterfaceState
    peer: int
    queue: str


def links(socket: Socket) -> list[InterfaceState]:
    """Every interface, with its addresses, by index."""
    found = located(socket.dump(netlink.GETADDR, bytes(8)), socket.dump(netlink.GETLINK, ifinfomsg()))
    return [each.state for each in found]


def located(addresses: list[bytes], links: list[bytes]) -> list[Located]:
    """The same, each with where its peer is, and which queue it has, from what netlink.inventory() got."""
    at: dict[int, list[str]] = {}
    for body in addresses:
        family, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
        found = attributes(body[8:])
        if family in (AF_INET, AF_INET6):
            at.setdefault(index, []).append(f"{_text(found.get(2) or found[1])}/{prefix}")
    return sorted((_located(body, at) for body in links), key=lambda each: each.state.index)


def interfaces(states: list[InterfaceState]) -> Table[InterfaceState]:
    """A table of them."""
    names = {each.index: each.name for each in states}

    def row(each: InterfaceState) -> tuple[str, ...]:
        state = "down" if not each.up else "up" if each.carrier else "no carrier"
        bridge = names.get(each.master, "")
        return (each.name, each.kind, bridge, state, each.mac, str(each.mtu), " ".join(each.addresses))

    return Table(states, ("interface", "kind", "bridge", "state", "MAC", "MTU", "addresses"), row)


def counters(states: list[InterfaceState]) -> Table[InterfaceState]:
    """A table of what each has carried."""
    head = ("packets", "bytes", "errors", "dropped")

    def row(each: InterfaceState) -> tuple[str, ...]:
        found = [getattr(each.counters, f"{way}_{what}") for way in ("rx", "tx") for what in head]
        return (each.name, *map(str, found))

    return Table(states, ("interface", *(f"{what} {way}" for way in ("in", "out") for what in head)), row)


def link(socket: Socket, index: int) -> InterfaceState:
    """One of them; SyscallError ENODEV when there is none of this index."""
    found = next((each for each in links(socket) if each.index == index), None)
    if found is None:
        request = netlink.Request(netlink.GETLINK, b"", (f"index {index}",))
        raise request.error(netlink.Answer(errno.ENODEV, ""))
    return found


def _located(body: bytes, addresses: Mapping[int, list[str]]) -> Located:
    found = attributes(body[16:])
    peer = struct.unpack("=i", found[_LINK_NETNSID])[0] if _LINK_NETNSID in found else -1
    return Located(_state(body, found, addresses), peer, found.get(6, b"").rstrip(b"\0").decode())


def _state(body: bytes, found: Mapping[int, bytes], addresses: Mapping[int, list[str]]) -> InterfaceState:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
    info = attributes(found.get(18, b""))
    kind = info[1].rstrip(b"\0").decode() if 1 in info else ("loopback" if flags & 0x8 else "")
    return InterfaceState(
        name=found[3].rstrip(b"\0").decode(errors="surrogateescape"), index=index, kind=kind,
        mac=found.get(1, b"").hex(":"), mtu=_number(found, 4), up=bool(flags & IFF_UP), carrier=bool(flags & IFF_LOWER_UP),
        master=_number(found, 10), peer=_number(found, 5), addresses=tuple(addresses.get(index, ())),
        counters=Counters(*struct.unpack_from("=8Q", found[23])) if 23 in found else Counters(),
    )  # fmt: skip


def is_shaped(socket: Socket, index: int) -> bool:
    """Whether an interface has a queue that somebody gave it: those of the kernel have no handle."""
    for body in socket.dump(netlink.GETQDISC, struct.pack("=BxxxiIII", 0, 0, 0, 0, 0)):
        _, its_index, handle, parent, _ = struct.unpack_from("=BxxxiIII", body)
        if its_index == index and handle and parent == 0xFFFFFFFF:
            return True
    return False


def limits(socket: Socket, index: int) -> tuple[int, int, float]:
    """How what leaves by an interface is slowed down by tbf, htb and netem: bits a second, microseconds, percent; 0: not."""
    rate, delay, loss = 0, 0, 0.0
    for number in (netlink.GETQDISC, netlink.GETTCLASS):
        for body in socket.dump(number, struct.pack("=BxxxiIII", 0, index, 0, 0, 0)):
            held = attributes(body[20:])
            kind, options = held.get(1, b"").rstrip(b"\0"), held.get(2, b"")
            if struct.unpack_from("=i", body, 4)[0] != index or not options:
                continue
            if kind == b"netem":
                delay = struct.unpack("=q", attributes(options[24:]).get(10, bytes(8)))[0] // 1000
                loss = round(struct.unpack_from("=I", options, 8)[0] / 2**32 * 100, 4)
            elif kind in (b"tbf", b"htb") and 1 in (inner := attributes(options)):
                wide = inner.get(4 if kind == b"tbf" else 6)
                speed = struct.unpack("=Q", wide)[0] if wide else struct.unpack_from("=I", inner[1], 8)[0]
                rate = speed * 8
    return rate, delay, loss


def number_of(socket: Socket, other: int) -> int:
    """The number by which the network namespace of ``socket`` knows that behind the descriptor ``other``; -1: by none."""
    request = netlink.Request(netlink.GETNSID, struct.pack("=Bxxx", AF_UNSPEC) + attribute(_NSID_FD, other))
    return next((struct.unpack("=i", attributes(body[4:])[1])[0] for body in socket.ask(request)), -1)


def routes(socket: Socket) -> Table[Route]:
    """Those of the main table."""

    def row(each: Route) -> tuple[str, ...]:
        metric = str(each.metric) if each.metric else ""
        return (each.to, str(each.version), each.via, _name(socket, each.index), each.source, metric, each.kind)

    found = routed(socket.dump(netlink.GETROUTE, bytes(12)))
    return Table(found, ("to", "IP", "via", "interface", "source", "metric", "kind"), row)


def routed(bodies: list[bytes]) -> list[Route]:
    """The same from what netlink.inventory() got."""
    found = []
    for body in bodies:
        family, prefix, _, _, table, _, _, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
        if table != _MAIN or family not in (AF_INET, AF_INET6) or flags & 0x200:  # a copy for one destination
            continue
        held = attributes(body[12:])
        zero = bytes(4 if family == AF_INET else 16)
        found.append(
            Route(
                to=f"{_text(held.get(1, zero))}/{prefix}" if prefix else "default",
                version=4 if family == AF_INET else 6,
                via=_text(held[5]) if 5 in held else "",
                index=_number(held, 4),
                source=_text(held[7]) if 7 in held else "",
                metric=_number(held, 6),
                kind=_ROUTE_KINDS.get(kind, str(kind)),
            )
        )
    return found


def neighbours(socket: Socket) -> Table[Neighbour]:
    """Those of IPv4 and IPv6 that are more than a broadcast or multicast address."""
    found = []
    for body in socket.dump(netlink.GETNEIGH, struct.pack("=BxHiHBB", AF_UNSPEC, 0, 0, 0, 0, 0)):
        family, _, index, state, _, _ = struct.unpack_from("=BxHiHBB", body)
        held = attributes(body[12:])
        if family in (AF_INET, AF_INET6) and 1 in held and state != 0x40:
            found.append(Neighbour(_text(held[1]), held.get(2, b"").hex(":"), index, _NEIGHBOUR_STATES.get(state, hex(state))))

    def row(each: Neighbour) -> tuple[str, ...]:
        return (each.address, each.mac, _name(socket, each.index), each.state)

    return Table(found, ("address", "MAC", "interface", "state"), row)


def _name(socket: Socket, index: int) -> str:
    """The name of an interface, or its index when it or its network is gone; "" for none."""
    if not index:
        return ""
    try:
        return link(socket, index).name
    except (OSError, ValueError):
        return str(index)


def _text(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))


def _number(found: Mapping[int, bytes], key: int) -> int:
    return int(struct.unpack_from("=I", found[key])[0]) if key in found else 0
