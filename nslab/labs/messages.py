"""Messages between a holder and its clients: JSON, with descriptors; the sender's user is asked of the kernel."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from nslab.errors import DeadNamespace, NslabError
from nslab.spawner import Descriptor, channel

PATIENCE = 10.0  # seconds that an answer may take
AT_ONCE = 200  # descriptors in one answer; channel.MOST_DESCRIPTORS are the most


def send(sock: socket.socket, message: Any, fds: Sequence[int] = ()) -> None:
    """Send a message and copies of ``fds``, at most channel.MOST_DESCRIPTORS less one."""
    payload = b"j" + json.dumps(message).encode()
    if len(payload) <= channel.LIMIT:
        channel.pass_on(sock, payload, fds)
    else:
        with channel.sealed(payload) as memory:
            channel.pass_on(sock, b"m", (*fds, memory.fileno()))


def receive(sock: socket.socket) -> tuple[Any, list[Descriptor]]:
    """The next message with its descriptors; EOFError when the other end is gone, TimeoutError as the socket is set."""
    data, numbers = channel.take(sock)
    fds = list(map(Descriptor, numbers))
    if data[:1] == b"m":
        with fds.pop() as memory:
            data = os.pread(memory.fileno(), os.fstat(memory.fileno()).st_size, 0)
    return json.loads(data[1:]), fds


def peer(sock: socket.socket) -> tuple[int, int]:
    """The PID and the uid of who is at the other end, as they were when it connected or listened. unix(7), SO_PEERCRED"""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    return pid, uid


def ask(sock: socket.socket, what: str, **more: Any) -> tuple[Any, list[Descriptor]]:
    """Ask a holder; NslabError with its words when it refuses, or does not answer, DeadNamespace when it has ended."""
    try:
        send(sock, {"ask": what, **more})
        answer, fds = receive(sock)
    except TimeoutError:
        raise NslabError(
            f"the holder of a lab (PID {peer(sock)[0]}) has not answered for {PATIENCE:g} s: it is stopped, or very busy.\n"
            f"  what to do: kill -CONT {peer(sock)[0]} lets it go on; nslab down ends the lab whatever it does."
        ) from None
    except (OSError, EOFError):
        raise DeadNamespace("the holder of the lab has just ended, and with it the lab.") from None
    if "refused" in answer:
        raise NslabError(answer["refused"])
    return answer, fds
