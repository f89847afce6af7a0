"""Interfaces of a network namespace, by the ioctls that need no netlink (netdevice(7))."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from nslab.syscalls.guard import invoke, refuse_here

SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


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
