"""Interfaces of a network namespace, by the ioctls that need no netlink (netdevice(7))."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from nslab.syscalls.guard import invoke, refuse_here

SIOCADDRT, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8914, 0x8916, 0x891C
IFF_UP = 0x1
ETH_P_ALL = 0x0003


def set_interface_flags(name: str, flags: int) -> None:
    """Set the flags of an interface (IFF_UP turns it on; the kernel then gives "lo" its addresses), by one ioctl.

    ENODEV when there is none of that name, EPERM without CAP_NET_ADMIN in the owner of the network namespace.
    """
    refuse_here("set_interface_flags", "net")

    def once() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", os.fsencode(name), flags))
        return 0

    invoke("ioctl", ("socket", SIOCSIFFLAGS, name, flags), once)


def set_interface_address(name: str, address: str, prefix: int) -> None:
    """Give an interface its one IPv4 address and the length of its prefix, by two ioctls; as set_interface_flags."""
    refuse_here("set_interface_address", "net")
    mask = socket.inet_ntoa(struct.pack("!I", (1 << 32) - (1 << 32 - prefix)))
    for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, mask)):
        _inet_ioctl(request, struct.pack("16s16s8x", os.fsencode(name), _sockaddr(value)), f"{name} {value}")


def add_default_route(gateway: str) -> None:
    """Send what is for no network at hand to ``gateway``, by one ioctl. ENETUNREACH when that is not at hand either."""
    refuse_here("add_default_route", "net")
    up, by_gateway = 1, 2  # RTF_UP, RTF_GATEWAY
    entry = struct.pack("8x16s16s16sH70x", _sockaddr("0.0.0.0"), _sockaddr(gateway), _sockaddr("0.0.0.0"), up | by_gateway)
    _inet_ioctl(SIOCADDRT, entry, gateway)


def _sockaddr(address: str) -> bytes:
    """A struct sockaddr_in of 16 bytes."""
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def _inet_ioctl(request: int, argument: bytes, said: str) -> None:
    def once() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            fcntl.ioctl(sock, request, argument)
        return 0

    invoke("ioctl", ("socket", request, said), once)


def netlink_socket() -> socket.socket:
    """A socket(2) of AF_NETLINK for rtnetlink(7), bound for good to the network namespace that the caller is in."""
    made: list[socket.socket] = []

    def once() -> int:
        made.append(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE))
        return 0

    invoke("socket", ("AF_NETLINK", "SOCK_DGRAM", "NETLINK_ROUTE"), once)
    return made[0]


def packet_socket() -> socket.socket:
    """A socket(2) of AF_PACKET, which gets whole frames, bound for good to the network namespace that the caller is in.

    It hears all interfaces at once, from now on; whoever has it may bind it to one of them. EPERM without CAP_NET_RAW in the
    owner of the network namespace. packet(7)
    """
    made: list[socket.socket] = []

    def once() -> int:
        made.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ETH_P_ALL)))
        return 0

    invoke("socket", ("AF_PACKET", "SOCK_RAW", "ETH_P_ALL"), once)
    return made[0]
