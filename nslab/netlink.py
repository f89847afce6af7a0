"""rtnetlink, the way in which Linux is told about interfaces, addresses, routes and queues. rtnetlink(7), netlink(7)

A Request is one message, encoded; a Socket sends many at once and reads what the kernel answers to each. The kernel does
the work inside of sendmsg(2), so nothing here waits, needs an event loop or a thread: it works in a cell, a thread, an async
cell and a widget callback. The socket was opened by a process inside the network namespace that it is about, and stays bound
to that.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nslab import trace
from nslab.errors import SyscallError
from nslab.hints import explain

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWQDISC, DELQDISC, GETQDISC, NEWTCLASS, GETTCLASS = 36, 37, 38, 40, 42
GETNSID = 90
NAMES = {value: f"RTM_{name}" for name, value in list(globals().items()) if isinstance(value, int)}

REQUEST, ACK, DUMP, REPLACE, EXCL, CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
NESTED = 0x8000

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3  # types of answers
_CAPPED, _ACK_TLVS, _DUMP_INTERRUPTED = 0x100, 0x200, 0x10  # flags of answers
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_AT_ONCE = 64  # requests in one datagram: so many answers fit into the smallest receive buffer
_ROOM = 1 << 18  # bytes for one datagram of answers
_buffers = threading.local()  # of that size, one a thread: to allocate one each time would take longer than a dump

Payload = bytes | int | str


class Answer(NamedTuple):
    """What the kernel said to one request: ``errno`` 0 or why not, ``message`` its own words, a warning when errno is 0."""

    errno: int
    message: str


@dataclass(frozen=True, slots=True)
class Request:
    """One message: its ``type`` and ``flags``, and the ``body`` after its header.

    ``said`` are the arguments in words, for the trace; ``shell`` is the command that does the same, without the namespace;
    ``needs`` the part of the kernel without which it is answered by the errno ``absent``; with an errno of ``fine`` it is as
    it was to be already.
    """

    type: int
    body: bytes
    said: tuple[str, ...] = ()
    shell: str = ""
    flags: int = 0
    needs: str = ""
    absent: int = 0
    fine: Container[int] = ()

    @property
    def name(self) -> str:
        return NAMES[self.type]

    def error(self, answer: Answer) -> SyscallError:
        """Its failure, explained."""
        hint = explain(self.name, answer.errno, message=answer.message)
        return SyscallError(self.name, self.said, answer.errno, hint)


def attribute(number: int, payload: Payload | Iterable[bytes]) -> bytes:
    """One attribute: an int as 32 bits, text with the 0 at its end, bytes as they are, and others nested."""
    if isinstance(payload, int):
        data = struct.pack("=I", payload)
    elif isinstance(payload, str):
        data = os.fsencode(payload) + b"\0"
    elif isinstance(payload, bytes):
        data = payload
    else:
        data, number = b"".join(payload), number | NESTED
    length = len(data) + 4
    return _ATTRIBUTE.pack(length, number) + data + b"\0" * (-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data``, by number; of those that come twice the last."""
    found, at, last, head = {}, 0, len(data) - 4, _ATTRIBUTE.unpack_from
    while at <= last:
        length, number = head(data, at)
        if length < 4:
            break
        found[number & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


class Socket:
    """A netlink socket, owned, and bound to the network namespace in which it was opened."""

    def __init__(self, sock: socket.socket):
        self._socket = sock
        self._lock = threading.Lock()
        self._number = 0
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            sock.setsockopt(_SOL_NETLINK, option, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        self.close()

    def send(self, requests: Sequence[Request]) -> list[Answer]:
        """Have them all done, in order, each recorded; the kernel goes on after one that it refuses."""
        answers: list[Answer] = []
        with self._lock:
            for first in range(0, len(requests), _AT_ONCE):
                some = requests[first : first + _AT_ONCE]
                start = time.time()
                numbers = self._put(some, ACK)
                got = self._acknowledged(set(numbers))
                each = (time.time() - start) / len(some)
                for index, (number, request) in enumerate(zip(numbers, some, strict=True)):
                    _record(request, got[number].errno, start + index * each, each)
                    answers.append(got[number])
        return answers

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All that there is of ``kind`` (GETLINK ...): the bodies of the answers. Not recorded, since it changes nothing."""
        with self._lock:
            while True:
                (number,) = self._put([Request(kind, body)], DUMP)
                found, whole = [], True
                for header, data in self._answers({number}):
                    whole = whole and not header[2] & _DUMP_INTERRUPTED
                    if header[1] == _ERROR:
                        raise Request(kind, body).error(_answer(header, data))
                    if header[1] != _DONE:
                        found.append(data)
                if whole:  # else it changed meanwhile
                    return found

    def ask(self, request: Request) -> list[bytes]:
        """What is answered to one question: the bodies. Not recorded, since it changes nothing."""
        with self._lock:
            found = []
            for header, data in self._answers(set(self._put([request], ACK))):
                if header[1] != _ERROR:
                    found.append(data)
                elif (answer := _answer(header, data)).errno:
                    raise request.error(answer)
            return found

    def _put(self, requests: Sequence[Request], flags: int) -> list[int]:
        numbers, parts = [], []
        for request in requests:
            self._number += 1
            numbers.append(self._number)
            flagged = request.flags | flags | REQUEST
            parts.append(_HEADER.pack(16 + len(request.body), request.type, flagged, self._number, 0))
            parts.append(request.body + b"\0" * (-len(request.body) % 4))
        self._socket.sendmsg([b"".join(parts)])
        return numbers

    def _acknowledged(self, numbers: set[int]) -> dict[int, Answer]:
        return {header[3]: _answer(header, data) for header, data in self._answers(numbers)}

    def _answers(self, numbers: set[int]) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """(header, body) of what is answered to these, up to the last of each; what an interrupt left over is passed by."""
        open_ones = set(numbers)
        while open_ones:
            data, at = self._received(), 0
            while at + 16 <= len(data):
                header = _HEADER.unpack_from(data, at)
                if header[3] in open_ones:
                    if header[1] in (_ERROR, _DONE):
                        open_ones.discard(header[3])
                    yield header, data[at + 16 : at + header[0]]
                at += header[0] + (-header[0] % 4)

    def _received(self) -> bytes:
        """The next datagram."""
        if not (buffer := getattr(_buffers, "one", None)):
            buffer = _buffers.one = bytearray(_ROOM)
        return bytes(memoryview(buffer)[: self._socket.recv_into(buffer)])


# What interfaces have in their messages of which more has to be asked: a peer elsewhere, a queue that slows down.
MORE_TO_ASK = (b"veth\0", b"tbf\0", b"htb\0", b"netem\0")


def inventory(sock: Socket) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The addresses, interfaces and routes of its network: bodies of answers, as dump() gives them."""
    return sock.dump(GETADDR, bytes(8)), sock.dump(GETLINK, bytes(16)), sock.dump(GETROUTE, bytes(12))


def _answer(header: tuple[int, ...], data: bytes) -> Answer:
    errno = -struct.unpack_from("=i", data)[0]
    message = ""
    if header[2] & _ACK_TLVS:
        length = struct.unpack_from("=I", data, 4)[0]
        skipped = 20 if header[2] & _CAPPED else 4 + length + (-length % 4)
        with contextlib.suppress(KeyError):
            message = attributes(data[skipped:])[1].rstrip(b"\0").decode(errors="replace")
    return Answer(errno, message)


def _record(request: Request, errno: int, start: float, duration: float) -> None:
    result = None if errno else 0
    trace.emit(trace.Step(request.name, request.said, result, errno, start, duration, os.getpid()))
