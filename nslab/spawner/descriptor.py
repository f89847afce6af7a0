"""Descriptor: a descriptor that somebody owns."""

from __future__ import annotations

import os
import select
import socket
import struct


class Descriptor:
    """A descriptor that is owned: closed by close(), at the end of a ``with``, or when nobody holds the object any more."""

    def __init__(self, fd: int):
        self._fd = fd

    @classmethod
    def received(cls, sock: socket.socket, most: int) -> list[Descriptor]:
        """Up to ``most`` that come with one byte; none when the other end is gone.

        It is awaited before it is taken: Ctrl-C ends the waiting, and hardly ever comes between a descriptor and its owner.
        """
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.poll()
        _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(most * 4), socket.MSG_CMSG_CLOEXEC)
        return [cls(fd) for _, _, block in ancillary for (fd,) in struct.iter_unpack("i", block)]

    def fileno(self) -> int:
        if self._fd < 0:
            raise ValueError("the descriptor is closed")
        return self._fd

    def detach(self) -> int:
        """Its number, for somebody else to own."""
        fd, self._fd = self._fd, -1
        return fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        if (fd := self.detach()) >= 0:
            os.close(fd)

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def readable(self, timeout: float = 0) -> bool:
        """Whether there is something to read within ``timeout`` seconds; for a pidfd, whether the process has ended."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(timeout * 1000))
