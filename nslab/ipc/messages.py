"""Message queues: those of System V (sysvipc(7)), and those of POSIX, which have names (mq_overview(7))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from nslab import procfs, syscalls
from nslab.errors import SpecError, SyscallError
from nslab.ipc.place import SystemV, make, unless, using
from nslab.ops import spec
from nslab.spawner import Descriptor
from nslab.syscalls import guard


@dataclass(frozen=True, repr=False)
class MessageQueue(SystemV):
    """A System V queue: messages, each with a type, are received in order, or by type."""

    sort: ClassVar[str] = "msg"

    @classmethod
    def create(cls, key: int | None = None, *, mode: int = 0o600) -> MessageQueue:
        """A new queue. EEXIST when the key is taken, ENOSPC at kernel.msgmni. msgget(2)"""
        return cls(*cls._make(key, syscalls.msgget, mode))

    @classmethod
    def open(cls, key: int) -> MessageQueue:
        """The queue with this key; ENOENT when this IPC namespace has none. msgget(2)"""
        return cls(key, cls._find(key, syscalls.msgget)[0])

    def send(self, data: bytes, type: int = 1, *, wait: bool = True) -> bool:
        """Send a message of a ``type`` above 0; without ``wait`` False when the queue is full. msgsnd(2)"""
        spec.number("type", type, 1, 2**63 - 1)
        with self._using(), unless("EAGAIN", wait):
            syscalls.msgsnd(self.id, type, data, 0 if wait else syscalls.IPC_NOWAIT)
            return True
        return False

    def receive(self, type: int = 0, *, wait: bool = True) -> bytes | None:
        """Take the first message, or the first of a ``type``; without ``wait`` None when there is none. msgrcv(2)"""
        spec.number("type", type, -(2**63) + 1, 2**63 - 1)
        flags = 0 if wait else syscalls.IPC_NOWAIT
        most = int(procfs.read("sys/kernel/msgmax"))
        with self._using(), unless("ENOMSG", wait):
            return syscalls.msgrcv(self.id, most, type, flags)
        return None

    def _remove(self) -> None:
        syscalls.msgctl(self.id, syscalls.IPC_RMID)


@dataclass(frozen=True)
class PosixQueue:
    """A POSIX queue by its ``name``: messages are received by priority, those of one priority in order."""

    name: str
    sort: ClassVar[str] = "mq"

    @classmethod
    def create(cls, name: str, *, max_messages: int = 10, max_size: int = 8192, mode: int = 0o600) -> PosixQueue:
        """A new queue for ``max_messages`` of ``max_size`` bytes each.

        EEXIST when there is one, EINVAL beyond fs.mqueue.msg_max or msgsize_max, ENOSPC at queues_max. mq_open(3)
        """
        _name(name)
        spec.number("max_messages", max_messages, 1, 2**31 - 1)
        spec.number("max_size", max_size, 1, 2**31 - 1)
        spec.number("mode", mode, 0, 0o777)

        def create() -> int:
            Descriptor(syscalls.mq_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode, max_messages, max_size)).close()
            return 0

        def exists() -> bool:
            try:
                Descriptor(syscalls.mq_open(name, os.O_RDONLY)).close()
            except SyscallError as error:
                return error.name != "ENOENT"
            return True

        make(cls.sort, name, create, exists)
        return cls(name)

    @classmethod
    def open(cls, name: str) -> PosixQueue:
        """The queue of this name; ENOENT when this IPC namespace has none. mq_open(3)"""
        with guard.registered():  # looking changes nothing, and says whether there is one at all
            Descriptor(syscalls.mq_open(_name(name), os.O_RDONLY)).close()
        with using(cls.sort, name):
            return cls(name)

    def send(self, data: bytes, priority: int = 0, *, wait: bool = True) -> bool:
        """Send a message; without ``wait`` False when the queue is full. mq_send(3)"""
        spec.number("priority", priority, 0, 32767)
        with self._opened(os.O_WRONLY, wait) as fd, unless("EAGAIN", wait):
            syscalls.mq_send(fd, data, priority)
            return True
        return False

    def receive(self, *, wait: bool = True) -> tuple[bytes, int] | None:
        """Take the first message, with its priority; without ``wait`` None when there is none. mq_receive(3)"""
        with self._opened(os.O_RDONLY, wait) as fd, unless("EAGAIN", wait):
            return syscalls.mq_receive(fd, syscalls.mq_getattr(fd)[1])
        return None

    def waiting(self) -> int:
        """How many messages wait. mq_getattr(3)"""
        with self._opened(os.O_RDONLY) as fd:
            return syscalls.mq_getattr(fd)[2]

    def remove(self) -> None:
        """Remove its name, and the queue once nobody has it open. mq_unlink(3)"""
        with using(self.sort, self.name) as place:
            syscalls.mq_unlink(self.name)
            if place:
                place.forget(self.sort, self.name)

    @contextmanager
    def _opened(self, flags: int, wait: bool = True) -> Iterator[int]:
        flags |= 0 if wait else os.O_NONBLOCK
        with using(self.sort, self.name), Descriptor(syscalls.mq_open(self.name, flags)) as queue:
            yield queue.fileno()

    def __enter__(self) -> PosixQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _name(name: str) -> str:
    """A slash and 1 to 254 bytes without another."""
    spec.text("name", name)
    if not re.fullmatch(r"/[^/]+", name) or len(os.fsencode(name)) > 255 or name in ("/.", "/.."):
        raise SpecError("name", f"{name!r} must be a slash and up to 254 bytes without another one. mq_overview(7)")
    return name
