"""The voice of a process of the spawner: sends what it did, and why it failed, back to the notebook."""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import socket
from typing import Any

from nslab.errors import NslabError, SpawnerError, SyscallError
from nslab.spawner import channel
from nslab.syscalls import guard

PLAIN = b"p"  # marshal is a third of pickle's work, and knows tuples, numbers and text: all that is needed when all is well


def tell(fd: int, *message: Any) -> None:
    """Send a message of plain values, or of anything else that can be pickled; silence when nobody listens."""
    try:
        payload = PLAIN + marshal.dumps(message)
    except ValueError:
        payload = b"." + pickle.dumps(message)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if len(payload) > channel.LIMIT:
            channel.send_by_memory(fd, payload)
        else:
            os.write(fd, payload)


class Report:
    """Sends messages on the channel of a request, each with the calls made since the last one in front."""

    def __init__(self, fd: int):
        self.fd = fd
        self.calls = guard.collect()
        guard.known_as(guard.SENDER)
        self.pid = 0  # that of the process that speaks, as the notebook knows it; 0 when the spawner is to tell it

    def send(self, *message: Any) -> None:
        tell(self.fd, self.calls, *message)
        self.calls.clear()

    def hand_over(self, word: str, fd: int) -> None:
        """Send a word and a copy of a descriptor; OSError when nobody listens."""
        with socket.socket(fileno=os.dup(self.fd)) as sock:
            channel.pass_on(sock, PLAIN + marshal.dumps((self.calls, word, 0)), (fd,))
        self.calls.clear()

    def failed(self, error: BaseException) -> None:
        self.send("failed", portable(error))

    def wait(self) -> None:
        """Block until the other side says a word; end when it is gone."""
        if not os.read(self.fd, 4096):
            os._exit(0)


def portable(error: BaseException) -> BaseException:
    """The error itself when it can be pickled, else one that says the same in words.

    A pipe that nobody reads is none of the kernel's answers: it is the spawner that has ended.
    """
    if isinstance(error, BrokenPipeError | ConnectionResetError) and not isinstance(error, NslabError):
        return SpawnerError("the spawner ended while this was made; the next call has a new one.")
    if not isinstance(error, NslabError) and isinstance(error, OSError) and error.errno:
        error = SyscallError("open" if error.filename else "a system call", (repr(error.filename or ""),), error.errno)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return NslabError(f"{type(error).__name__}: {error}")
    return error
