"""Interfaces of a network namespace, by the ioctls that need no netlink (netdevice(7))."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from nslab.syscalls.guard import invoke, refuse_here

SIOCSIFFLAGS = 0x8914
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
