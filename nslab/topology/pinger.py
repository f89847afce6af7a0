"""What ping_all runs in each node, as a program of its own: no module of nslab is loaded.

It is told lines of a timeout in seconds and addresses, sends an echo request to each of them at once, waits for the answers,
and prints a line of the round-trip times in milliseconds in the same order, "-" for those that did not come in time. Who has
not answered is asked again after each fourth of that time, for on a busy machine a frame may be lost to a full queue.
"""

import errno
import os
import select
import socket
import struct
import sys
import time

ECHO: dict[int, tuple[int, int]] = {
    socket.AF_INET: (8, 0),
    socket.AF_INET6: (128, 129),
}  # types of request and reply. icmp(7), RFC 4443
IDENTIFIER = os.getpid() & 0xFFFF
TURNS = 4  # in which who is missing is asked again


def checksum(data: bytes) -> int:
    """RFC 1071; for IPv6 the kernel does it."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def request(family: int, number: int) -> bytes:
    head = struct.pack("!BBHHH", ECHO[family][0], 0, 0, IDENTIFIER, number)
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


def answered(family: int, data: bytes) -> int:
    """The number of the request that this packet answers, or -1."""
    if family == socket.AF_INET:  # a raw socket gets the IP header too
        data = data[(data[0] & 15) * 4 :]
    kind, _, _, identifier, number = struct.unpack_from("!BBHHH", data)
    return int(number) if (kind, identifier) == (ECHO[family][1], IDENTIFIER) else -1


def ping(sockets: dict[int, socket.socket], addresses: "list[str]", first: int, timeout: float) -> "list[float | None]":
    """The round-trip time to each address in seconds, None where no answer came. Requests are numbered from ``first`` on."""
    sent: dict[int, tuple[int, float]] = {}
    times: list[float | None] = [None] * len(addresses)
    waiting = set(range(len(addresses)))
    start = time.monotonic()
    for turn in range(TURNS):
        for index in sorted(waiting):
            family = socket.AF_INET6 if ":" in addresses[index] else socket.AF_INET
            number = first + turn * len(addresses) + index & 0xFFFF
            sent[number] = index, time.monotonic()
            try:
                sockets[family].sendto(request(family, number), (addresses[index], 0))
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # the machine's table of neighbours is full at this moment
                    waiting.discard(index)  # no way there
        deadline = start + timeout * (turn + 1) / TURNS
        while waiting and (left := deadline - time.monotonic()) > 0:
            for ready in select.select(list(sockets.values()), [], [], left)[0]:
                index, begin = sent.get(answered(ready.family, ready.recv(2048)), (-1, 0.0))
                if index in waiting:
                    waiting.discard(index)
                    times[index] = time.monotonic() - begin
    return times


def main() -> None:
    first = 0
    sockets: dict[int, socket.socket] = {socket.AF_INET: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)}
    if os.path.exists("/proc/sys/net/ipv6"):
        sockets[socket.AF_INET6] = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    for line in sys.stdin:
        timeout, *addresses = line.split()
        times = ping(sockets, addresses, first, float(timeout))
        print(*("-" if each is None else f"{each * 1000:.3f}" for each in times), flush=True)
        first += TURNS * len(addresses)


if __name__ == "__main__":
    main()
