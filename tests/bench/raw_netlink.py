"""So many hosts on one bridge by Python that does nothing else: unshare(2) by ctypes, netlink messages packed by hand.

    unshare --net python -m tests.bench.raw_netlink COUNT

It prints the seconds that it took until all were addressed and up.
"""

import ctypes
import os
import socket
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
NEWLINK, NEWADDR, CREATE = 16, 20, 0x600
libc = ctypes.CDLL(None, use_errno=True)


def unshare() -> "tuple[int, socket.socket]":
    """A new network namespace: a descriptor of it, and a netlink socket there."""
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    return namespace, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)


def attribute(number: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, number) + data + bytes(-len(data) % 4)


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 5 | flags, 1, 0) + body  # NLM_F_REQUEST | NLM_F_ACK


def link(index: int, *attributes: bytes, up: bool = False) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, up, up) + b"".join(attributes)


def name(text: str) -> bytes:
    return attribute(3, text.encode() + b"\0")


def ask(sock: socket.socket, *messages: bytes) -> None:
    sock.send(b"".join(messages))
    for _ in messages:
        if errno := -struct.unpack_from("=i", sock.recv(4096), 16)[0]:
            raise OSError(errno, os.strerror(errno))


def build(count: int) -> "list[tuple[int, socket.socket]]":
    fabric = unshare()
    bridge = attribute(18, attribute(1, b"bridge"))
    ask(fabric[1], message(NEWLINK, link(2, name("s1"), bridge, up=True), CREATE))
    made = [fabric]
    for number in range(1, count + 1):
        namespace, sock = unshare()
        peer = attribute(1, link(2, name("eth0"), attribute(28, struct.pack("=i", namespace))))
        pair = attribute(18, attribute(1, b"veth") + attribute(2, peer))
        port = link(number + 2, name(f"s1-{number}"), attribute(10, struct.pack("=i", 2)), pair, up=True)
        ask(fabric[1], message(NEWLINK, port, CREATE))
        address = bytes((10, 0, number >> 8, number & 255))
        given = attribute(2, address) + attribute(1, address) + attribute(4, bytes((10, 0, 255, 255)))
        up = [message(NEWLINK, link(index, up=True)) for index in (1, 2)]
        ask(sock, *up, message(NEWADDR, struct.pack("=BBBBI", socket.AF_INET, 16, 0, 0, 2) + given, CREATE))
        made.append((namespace, sock))
    return made


if __name__ == "__main__":
    begin = time.perf_counter()
    held = build(int(sys.argv[1]))
    print(time.perf_counter() - begin)
