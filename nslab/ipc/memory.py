"""System V shared memory. sysvipc(7)"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from nslab import syscalls
from nslab.errors import SpecError
from nslab.ipc.place import SystemV
from nslab.ops import spec


@dataclass(frozen=True, repr=False)
class SharedMemory(SystemV):
    """A segment of ``size`` bytes, which every process of the IPC namespace can attach; it is zeroed at first."""

    size: int
    sort: ClassVar[str] = "shm"

    @classmethod
    def create(cls, key: int | None = None, *, size: int = 4096, mode: int = 0o600) -> SharedMemory:
        """A new segment. EEXIST when the key is taken, EINVAL above kernel.shmmax, ENOSPC at shmmni or shmall. shmget(2)"""
        spec.number("size", size, 1, 2**63 - 1)
        return cls(*cls._make(key, lambda key, flags: syscalls.shmget(key, size if flags else 0, flags), mode), size)

    @classmethod
    def open(cls, key: int) -> SharedMemory:
        """The segment with this key; ENOENT when this IPC namespace has none. shmget(2)"""
        number, size = cls._find(key, lambda key, flags: syscalls.shmget(key, 0, flags))
        return cls(key, number, size)

    def attach(self) -> Attachment:
        """Attach it to this process, until detach(): what is attached stays, whatever becomes of the namespace. shmat(2)"""
        with self._using():
            return Attachment(self, syscalls.shmat(self.id, 0))

    def read(self, count: int | None = None, offset: int = 0) -> bytes:
        """``count`` bytes from ``offset`` on (None: all up to the end)."""
        with self._attached() as attachment:
            return attachment.read(count, offset)

    def write(self, data: bytes, offset: int = 0) -> None:
        """Write ``data`` at ``offset``; it must fit."""
        with self._attached() as attachment:
            attachment.write(data, offset)

    @contextmanager
    def _attached(self) -> Iterator[Attachment]:
        with self._using():
            attachment = self.attach()
            try:
                yield attachment
            finally:
                attachment.detach()

    def _remove(self) -> None:
        syscalls.shmctl(self.id, syscalls.IPC_RMID)


class Attachment:
    """A segment as this one process has it attached."""

    def __init__(self, segment: SharedMemory, address: int):
        self._segment = segment
        self._address = address

    def read(self, count: int | None = None, offset: int = 0) -> bytes:
        size = self._segment.size
        spec.number("offset", offset, 0, size)
        end = size if count is None else offset + spec.number("count", count, 0, size - offset)
        return bytes(self._memory()[offset:end])

    def write(self, data: bytes, offset: int = 0) -> None:
        spec.number("offset", offset, 0, self._segment.size)
        if offset + len(data) > self._segment.size:
            raise SpecError("data", f"{len(data)} bytes at {offset} do not fit into {self._segment.size}")
        self._memory()[offset : offset + len(data)] = data

    def _memory(self) -> memoryview:
        if not self._address:
            raise SpecError("attachment", "it was detached")
        return syscalls.memory_at(self._address, self._segment.size)

    def detach(self) -> None:
        """Detach it. shmdt(2)"""
        address, self._address = self._address, 0
        if address:
            syscalls.shmdt(address)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an attachment belongs to the process that made it, and cannot be sent to another")
