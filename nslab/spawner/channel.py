"""Messages between processes: one object and any descriptors, in one datagram of a SOCK_SEQPACKET pair.

Requests are pickled; answers are plain values in marshal's format where they can be. What does not fit (a datagram holds
at most 212,920 bytes) travels as a sealed memfd. The two ends belong to the same user and trust each other; nothing here
is ever reachable from elsewhere.
"""

from __future__ import annotations

import array
import fcntl
import marshal
import os
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

LIMIT = 30_000
MOST_DESCRIPTORS = 250


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Any, fds: Sequence[int] = (), mark: bytes = b".") -> None:
    """Send a message and copies of ``fds``. BrokenPipeError or ConnectionResetError when nobody is at the other end.

    ``mark`` is the byte in front of a small message, by which one who passes messages on knows them.
    """
    payload = encoded(message, mark)
    if len(payload) <= LIMIT:
        pass_on(sock, payload, fds)
        return
    with sealed(payload) as memory:
        pass_on(sock, b"m", (*fds, memory.fileno()))


def send_by_memory(fd: int, payload: bytes) -> None:
    """Send an encoded message that is too large for a datagram, on a bare descriptor."""
    with sealed(payload) as memory, socket.socket(fileno=os.dup(fd)) as sock:
        pass_on(sock, b"m", (memory.fileno(),))


def pass_on(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send what take() got, or any encoded message."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Any, list[int]]:
    """The next message and its descriptors, which the caller owns from now on; EOFError when the other end is gone."""
    return decoded(*take(sock))


def encoded(message: Any, mark: bytes = b".") -> bytes:
    """As send() would send a small message."""
    return mark + pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def decoded(data: bytes, fds: list[int]) -> tuple[Any, list[int]]:
    """The message that take() got, and its descriptors."""
    if data[:1] == b"m":
        with os.fdopen(fds.pop(), "rb") as memory:
            memory.seek(0)
            data = memory.read()
    return (marshal.loads(data[1:]) if data[:1] == b"p" else pickle.loads(data[1:])), fds


def name_senders(sock: socket.socket) -> None:
    """Have the kernel say with each message who sent it, see received(). Source: unix(7), SO_PASSCRED."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def received(sock: socket.socket) -> tuple[Any, list[int], int]:
    """As receive(), and the PID of the sender as the receiver numbers it; 0 where that is not known."""
    data, ancillary = _next(sock)
    pids = [struct.unpack("iII", block)[0] for _, kind, block in ancillary if kind == socket.SCM_CREDENTIALS]
    return *decoded(data, _descriptors(ancillary)), pids[0] if pids else 0


def take(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next message as it came, and its descriptors; EOFError as for receive."""
    data, ancillary = _next(sock)
    return data, _descriptors(ancillary)


_ROOM = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize) + socket.CMSG_SPACE(struct.calcsize("iII"))


def _next(sock: socket.socket) -> tuple[bytes, list[Any]]:
    room = (LIMIT + 4096, _ROOM, socket.MSG_CMSG_CLOEXEC)
    try:
        data, ancillary, _, _ = sock.recvmsg(*room)
    except ConnectionResetError:  # it left without reading all that it got; said once, before what it had sent itself
        data, ancillary, _, _ = sock.recvmsg(*room)
    if not data:
        raise EOFError("the other end is gone")
    return data, ancillary


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, block in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(block[: len(block) - len(block) % fds.itemsize])
    return list(fds)


def sealed(payload: bytes) -> Any:
    """A file object over a memfd with this content, which nobody can change any more."""
    fd = os.memfd_create("nslab", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    file = os.fdopen(fd, "r+b")
    file.write(payload)
    file.flush()
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return file
