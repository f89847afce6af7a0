"""The requests themselves: from checked values to messages. rtnetlink(7), and the kernel's if_link.h, if_addr.h, rtnetlink.h"""

from __future__ import annotations

import errno
import shlex
import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface

from nslab import netlink
from nslab.netlink import CREATE, EXCL, REPLACE, Request, attribute
from nslab.network.names import Address, Interfaced, Subnet

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10
FAMILY = {4: AF_INET, 6: AF_INET6}
IFF_UP = 0x1
NODAD, PERMANENT = 0x02, 0x80
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 5, 10, 18, 28
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_GSO_MAX_SEGS, MOST_SEGMENTS = 40, 65535
VETH_INFO_PEER = 1
BRIDGE = {"ageing_time": (4, "=I"), "stp_state": (5, "=I"), "vlan_filtering": (7, "=B"), "mcast_snooping": (23, "=B")}
PORT = {"hairpin": 4, "learning": 8, "flood": 9, "isolated": 33}
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4}


def ifinfomsg(index: int = 0, flags: int = 0, change: int = 0, family: int = AF_UNSPEC) -> bytes:
    return struct.pack("=BxHiII", family, 0, index, flags, change)


def end_of_link(index: int, name: str, *, mac: bytes | None, mtu: int | None, into: int | None, up: bool = False) -> bytes:
    """What a new interface is: its index and name, with MAC and MTU from its first moment, in the namespace behind ``into``."""
    body = ifinfomsg(index, IFF_UP if up else 0, IFF_UP if up else 0) + attribute(IFLA_IFNAME, name)
    body += attribute(IFLA_ADDRESS, mac) if mac else b""
    body += attribute(IFLA_MTU, mtu) if mtu else b""
    return body + (attribute(IFLA_NET_NS_FD, into) if into is not None else b"")


def words(name: str, index: int, mac: bytes | None, mtu: int | None) -> str:
    """The same for ip(8)."""
    parts = ["name", shlex.quote(name), "index", str(index)]
    parts += ["address", mac.hex(":")] if mac else []
    return " ".join(parts + (["mtu", str(mtu)] if mtu else []))


def new_veth(near: bytes, far: bytes, *, master: int | None, said: Sequence[str], shell: str) -> Request:
    """A veth pair, each end where it belongs. veth(4)"""
    info = [attribute(INFO_KIND, "veth"), attribute(INFO_DATA, [attribute(VETH_INFO_PEER, far)])]
    body = near + (attribute(IFLA_MASTER, master) if master else b"") + attribute(IFLA_LINKINFO, info)
    return _new_link("veth", body, said, shell)


def new_link(
    kind: str,
    body: bytes,
    data: Sequence[bytes],
    *,
    parent: int | None = None,
    said: Sequence[str],
    shell: str,
    needs: str = "",
) -> Request:
    """Any other kind of interface; ``data`` are the attributes of that kind, ``parent`` the interface that it lies upon."""
    info = [attribute(INFO_KIND, kind)] + ([attribute(INFO_DATA, data)] if data else [])
    body += (attribute(IFLA_LINK, parent) if parent else b"") + attribute(IFLA_LINKINFO, info)
    return _new_link(kind, body, said, shell, needs)


def _new_link(kind: str, body: bytes, said: Sequence[str], shell: str, needs: str = "") -> Request:
    return Request(
        netlink.NEWLINK, body, (f"kind {kind}", *said), shell, CREATE | EXCL, needs=needs or kind, absent=errno.EOPNOTSUPP
    )


def bridge_data(options: Mapping[str, int]) -> list[bytes]:
    return [attribute(BRIDGE[name][0], struct.pack(BRIDGE[name][1], value)) for name, value in options.items()]


def set_link(index: int, name: str, words: str, body: bytes = b"", *, up: bool | None = None) -> Request:
    """Change an interface: the attributes ``body``, and whether it is up. ``words`` say it as ip(8) does."""
    head = ifinfomsg(index) if up is None else ifinfomsg(index, IFF_UP if up else 0, IFF_UP)
    return Request(netlink.NEWLINK, head + body, (f"index {index}", words), f"ip link set {shlex.quote(name)} {words}")


def set_port(index: int, name: str, options: Mapping[str, bool]) -> Request:
    """Change what a bridge does with this port of it."""
    data = [attribute(PORT[key], struct.pack("=B", value)) for key, value in options.items()]
    body = attribute(IFLA_LINKINFO, [attribute(INFO_SLAVE_KIND, "bridge"), attribute(INFO_SLAVE_DATA, data)])
    text = "type bridge_slave " + " ".join(f"{key} {'on' if value else 'off'}" for key, value in options.items())
    return set_link(index, name, text, body)


def change_vlan(adding: bool, index: int, name: str, number: int, tagged: bool) -> Request:
    """Membership of a port of a bridge in a VLAN. bridge(8)"""
    info = struct.pack("=HH", 0 if tagged else 2 | 4, number)  # BRIDGE_VLAN_INFO_PVID, _UNTAGGED
    body = ifinfomsg(index, family=AF_BRIDGE) + attribute(26, [attribute(2, info)])  # IFLA_AF_SPEC, IFLA_BRIDGE_VLAN_INFO
    words = f"vid {number}" + ("" if tagged else " pvid untagged")
    shell = f"bridge vlan {'add' if adding else 'del'} dev {shlex.quote(name)} {words}"
    kind = netlink.SETLINK if adding else netlink.DELLINK
    return Request(kind, body, (f"index {index}", words), shell, needs="vlan filtering", absent=errno.EOPNOTSUPP)


def delete_link(index: int, name: str) -> Request:
    return Request(netlink.DELLINK, ifinfomsg(index), (f"index {index}",), f"ip link delete {shlex.quote(name)}")


def change_address(adding: bool, index: int, name: str, address: Interfaced) -> Request:
    """An address of an interface, which can be used at once: IPv6 does not look for duplicates first. ip-address(8)"""
    v4 = isinstance(address, IPv4Interface)
    packed = address.ip.packed
    body = struct.pack("=BBBBI", FAMILY[address.version], address.network.prefixlen, 0 if v4 else NODAD, 0, index)
    body += attribute(2, packed) + attribute(1, packed)  # IFA_LOCAL, IFA_ADDRESS
    text = f"{address}"
    if isinstance(address, IPv4Interface) and address.network.prefixlen < 31:
        body += attribute(4, address.network.broadcast_address.packed)
        text += " brd +"
    doing = "add" if adding else "del"
    shell = f"ip address {doing} {text if adding else address} dev {shlex.quote(name)}{'' if v4 or not adding else ' nodad'}"
    kind = netlink.NEWADDR if adding else netlink.DELADDR
    return Request(kind, body, (f"index {index}", text), shell, CREATE | EXCL if adding else 0)


def change_neighbour(adding: bool, index: int, name: str, address: Address, mac: bytes | None) -> Request:
    """A permanent entry of the neighbour table. ip-neighbour(8)"""
    body = struct.pack("=BxHiHBB", FAMILY[address.version], 0, index, PERMANENT, 0, 0) + attribute(1, address.packed)
    body += attribute(2, mac) if mac else b""
    text = f"{address}" + (f" lladdr {mac.hex(':')}" if mac else "")
    shell = f"ip neighbour {'replace' if adding else 'del'} {text} dev {shlex.quote(name)}"
    kind = netlink.NEWNEIGH if adding else netlink.DELNEIGH
    return Request(kind, body, (f"index {index}", text), shell, CREATE | REPLACE if adding else 0)


def change_route(
    adding: bool, to: Subnet, *, via: Address | None, index: int | None, name: str, source: Address | None, metric: int | None,
    replace: bool,
) -> Request:  # fmt: skip
    """A route of the main table. ip-route(8)"""
    scope = 253 if via is None and index is not None and to.version == 4 else 0  # link; to all the world
    if not adding:
        scope = 255  # whichever it has
    body = struct.pack(
        "=BBBBBBBBI", FAMILY[to.version], to.prefixlen, 0, 0, 254, 3 if adding else 0, scope, 1 if adding else 0, 0
    )
    body += attribute(1, to.network_address.packed) if to.prefixlen else b""
    text = [str(to) if to.prefixlen else "default"]
    for number, word, value, shown in (
        (5, "via", via.packed if via else None, via), (4, "dev", index, shlex.quote(name)),
        (7, "src", source.packed if source else None, source), (6, "metric", metric, metric),
    ):  # fmt: skip
        if value is not None:
            body += attribute(number, value)
            text += [word, str(shown)]
    version = "ip -6" if to.version == 6 else "ip"
    shell = f"{version} route {'replace' if replace else 'add' if adding else 'del'} {' '.join(text)}"
    flags = CREATE | (REPLACE if replace else EXCL) if adding else 0
    kind = netlink.NEWROUTE if adding else netlink.DELROUTE
    return Request(kind, body, (" ".join(text),), shell, flags)
