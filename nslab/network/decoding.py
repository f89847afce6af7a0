"""Frames in words: who sent what to whom. The headers are read by dpkt, which is imported when the first frame is."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, NamedTuple

from nslab.model.packets import Packet

# From the kernel beside each frame: struct tpacket_auxdata, of packet(7)
AUXDATA = struct.Struct("=IIIHHHH")
CSUM_NOT_READY, VLAN_VALID, CSUM_VALID, VLAN_TPID_VALID = 0x08, 0x10, 0x80, 0x40
_ICMP = {(0, 0): "echo reply", (8, 0): "echo request", (11, 0): "time exceeded in transit", (3, 0): "network unreachable",
         (3, 1): "host unreachable", (3, 3): "port unreachable", (3, 4): "fragmentation needed"}  # fmt: skip
_ICMP6 = {1: "unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request", 129: "echo reply",
          130: "listener query", 133: "router solicitation", 134: "router advertisement",
          135: "neighbour solicitation: who has", 136: "neighbour advertisement:", 143: "listener report"}  # fmt: skip
_ECHOES = {8, 0, 128, 129}
_FLAGS = ((0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"))
_OTHER = {2: "IGMP", 47: "GRE", 50: "ESP", 89: "OSPF", 132: "SCTP"}
_NAMED = {53: "DNS", 67: "DHCP", 68: "DHCP", 5353: "mDNS"}


class Raw(NamedTuple):
    """A frame as the socket gave it; ``time`` is in nanoseconds, ``stamped`` that the kernel took it; ``status`` has the
    flags of its auxdata, ``length`` is that on the wire.
    """

    time: int
    node: str
    interface: str
    direction: str
    status: int
    length: int
    data: bytes
    stamped: bool = True


class _Words(NamedTuple):
    source: str
    destination: str
    protocol: str
    what: str
    ports: tuple[int, int] = (0, 0)
    ttl: int = 0
    checksum: str = ""


def with_vlan(data: bytes, status: int, tag: int, protocol: int) -> bytes:
    """The frame as it was on the wire: the kernel takes the tag of a VLAN out and tells it beside."""
    if not status & VLAN_VALID:
        return data
    return data[:12] + struct.pack("!HH", protocol if status & VLAN_TPID_VALID else 0x8100, tag) + data[12:]


def decode(raw: Raw) -> Packet:
    """A frame in words; whatever is in it, there is an answer."""
    destination, source = (raw.data[at : at + 6].hex(":") for at in (0, 6))
    try:
        words = _frame(raw, source, destination)
    except Exception as error:  # bytes that anybody may have sent, in a decoder that was made for good ones
        words = _Words(source, destination, "?", f"cannot be decoded ({type(error).__name__})")
    return Packet(
        raw.time / 1e9, raw.node, raw.interface, raw.direction, words.source, words.destination, *words.ports, words.protocol,
        words.what, words.ttl, source, destination, words.checksum, raw.length, raw.data,
    )  # fmt: skip


def identity(data: bytes) -> tuple[Any, ...]:
    """What stays the same of a frame on its way, through bridges, routers and NAT: others are told apart by it."""
    import dpkt

    try:
        frame = dpkt.ethernet.Ethernet(data)
        packet = frame.data
        if not isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6):
            return (frame.type, bytes(packet))
        inner = packet.data
        rest: tuple[Any, ...]
        number = packet.id if isinstance(packet, dpkt.ip.IP) else packet.flow
        if isinstance(inner, dpkt.tcp.TCP):
            rest = (inner.seq, inner.ack, inner.flags, bytes(inner.data))
        elif isinstance(inner, dpkt.udp.UDP):
            rest = (bytes(inner.data),)
        elif isinstance(inner, dpkt.icmp.ICMP | dpkt.icmp6.ICMP6):
            echo = inner.type in _ECHOES
            rest = (inner.type, inner.code, bytes(inner)[6:] if echo else b"")
        else:
            rest = (bytes(inner),)
        return (frame.type, number, packet.p, *rest)
    except Exception:  # as in decode()
        return (data,)


def _frame(raw: Raw, source: str, destination: str) -> _Words:
    import dpkt

    frame = dpkt.ethernet.Ethernet(raw.data)
    inner = frame.data
    if isinstance(inner, dpkt.arp.ARP):
        sender, target = _text(inner.spa), _text(inner.tpa)
        if inner.op == 1:
            return _Words(sender, target, "ARP", f"who has {target}? tell {sender}")
        return _Words(sender, target, "ARP", f"{sender} is at {inner.sha.hex(':')}")
    if isinstance(inner, dpkt.ip.IP | dpkt.ip6.IP6):
        return _packet(inner, raw)
    return _Words(source, destination, f"0x{frame.type:04x}", f"{len(raw.data) - 14} bytes")


def _packet(packet: Any, raw: Raw) -> _Words:
    import dpkt

    ends = (_text(packet.src), _text(packet.dst))
    old = isinstance(packet, dpkt.ip.IP)
    ttl, number, inner = (packet.ttl if old else packet.hlim), packet.p, packet.data
    checksum = _checksum(packet, raw, old)
    if isinstance(inner, dpkt.tcp.TCP):
        flags = " ".join(name for bit, name in _FLAGS if inner.flags & bit)
        what = f"{flags}, {_bytes(inner.data)}" if inner.data else flags
        return _Words(*ends, "TCP", what, (inner.sport, inner.dport), ttl, checksum)
    if isinstance(inner, dpkt.udp.UDP):
        named = _NAMED.get(inner.dport) or _NAMED.get(inner.sport)
        what = f"{named}, {_bytes(inner.data)}" if named else _bytes(inner.data)
        return _Words(*ends, "UDP", what, (inner.sport, inner.dport), ttl, checksum)
    if isinstance(inner, dpkt.icmp.ICMP | dpkt.icmp6.ICMP6):
        names = _ICMP.get((inner.type, inner.code)) if old else _ICMP6.get(inner.type)
        what = names or f"type {inner.type} code {inner.code}"
        body = bytes(inner)[4:]
        if inner.type in _ECHOES and (old or inner.type >= 128):
            what += " id {} seq {}".format(*struct.unpack_from("!HH", body))
        elif not old and inner.type in (135, 136):
            what += f" {_text(body[4:20])}" + ("?" if inner.type == 135 else " is here")
        return _Words(*ends, "ICMP" if old else "ICMPv6", what, (0, 0), ttl, checksum)
    more = f"fragment at {packet.offset}, " if old and packet.offset else ""
    return _Words(*ends, _OTHER.get(number, f"IP {number}"), f"{more}{_bytes(bytes(inner))}", (0, 0), ttl)


def _checksum(packet: Any, raw: Raw, old: bool) -> str:
    """That of TCP, UDP or ICMP. RFC 1071"""
    number = packet.p
    cut = len(raw.data) < raw.length or (
        packet.mf or packet.offset if old else packet.nxt != number
    )  # or other headers between
    if number not in (1, 6, 17, 58) or cut:
        return ""
    if raw.status & CSUM_NOT_READY:
        return "partial"
    if raw.status & CSUM_VALID:
        return "good"
    start = raw.data.find(packet.src) - (12 if old else 8)  # of the IP header
    begin = start + (packet.hl * 4 if old else 40)
    body = raw.data[begin : start + (packet.len if old else 40 + packet.plen)]
    if number == 17 and body[6:8] == b"\0\0":
        return ""  # there is none
    if number != 1:
        body = packet.src + packet.dst + struct.pack("!II", len(body), number) + body
    body += bytes(len(body) % 2)
    total: int = sum(struct.unpack(f"!{len(body) // 2}H", body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return "good" if total == 0xFFFF else "bad"


def _text(raw: bytes) -> str:
    return str(ipaddress.ip_address(bytes(raw)))


def _bytes(data: bytes) -> str:
    return f"{len(data)} byte{'' if len(data) == 1 else 's'}"
