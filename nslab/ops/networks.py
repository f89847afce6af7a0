"""Network namespaces that are handed back as descriptors, each with a netlink socket that was opened inside."""

from __future__ import annotations

import os
import shlex
import socket
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.model import KINDS
from nslab.ops.base import Context, Op
from nslab.ops.interfaces import SetUp
from nslab.ops.spaces import WriteFile


@dataclass(frozen=True)
class NewNetworks(Op):
    """``count`` new network namespaces, one unshare(2) after the other, handed back over the socket named ``fd``.

    Each gets what ``inside`` does; what the first had already is not written to the others, which are born the same. A
    namespace that the process has left lives on by its descriptors.
    """

    count: int
    fd: str
    inside: tuple[SetUp | WriteFile, ...] = ()

    def perform(self, context: Context) -> None:
        needed = self.inside
        for number in range(self.count):
            syscalls.unshare(KINDS["net"].flag)
            if number == 0:
                needed = tuple(op for op in self.inside if not (isinstance(op, WriteFile) and _says(op.path, op.text)))
                for op in self.inside:
                    op.execute(context)
            else:
                for op in needed:  # known to be safe, since the first was
                    op.repeat(context)
            _hand_back(context.fds[self.fd])

    def describe(self) -> str:
        return f"make network namespaces, and hand back a descriptor and a netlink socket of each: {self.count}"

    def shell(self) -> str:
        return f"# no standard tool: {self.count} network namespaces that only descriptors hold"

    def wrap(self, inner: str) -> str:
        if self.count > 1:
            return f"{self.shell()}\n{inner}"
        lines = [op.shell() for op in self.inside]
        return f"unshare --net sh -c {shlex.quote(chr(10).join([*lines, inner]))}"


@dataclass(frozen=True)
class HandBackNetwork(Op):
    """Hand back, over the socket named ``fd``, the network namespace that the process is in, and a netlink socket."""

    fd: str
    changes: ClassVar[str] = "net"  # with the socket one can

    def perform(self, context: Context) -> None:
        _hand_back(context.fds[self.fd])

    def describe(self) -> str:
        return "hand back a descriptor of this network namespace, and a netlink socket"

    def shell(self) -> str:
        return ": # each command below opens its own netlink socket"


@dataclass(frozen=True)
class HandBackPacketSocket(Op):
    """Hand back, over the socket named ``fd``, a packet socket of the network namespace that the process is in."""

    fd: str
    changes: ClassVar[str] = "net"  # one can send with it too

    def perform(self, context: Context) -> None:
        with syscalls.packet_socket() as opened, socket.socket(fileno=os.dup(context.fds[self.fd])) as way:
            socket.send_fds(way, [b"p"], [opened.fileno()])

    def describe(self) -> str:
        return "hand back a packet socket of this network namespace"

    def shell(self) -> str:
        return "# no standard tool: a packet socket for another process; tcpdump here sees the same"


def _hand_back(channel: int) -> None:
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with syscalls.netlink_socket() as opened, socket.socket(fileno=os.dup(channel)) as way:
            socket.send_fds(way, [b"n"], [namespace, opened.fileno()])
    finally:
        os.close(namespace)


def _says(path: str, text: str) -> bool:
    """Whether a sysctl has this value."""
    try:
        with open(path) as file:
            return file.read().split() == text.split()
    except OSError:  # writing it tells why
        return False
