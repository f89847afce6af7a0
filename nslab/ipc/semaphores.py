"""System V semaphores. sysvipc(7)"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.errors import SpecError
from nslab.ipc.place import SystemV, unless
from nslab.ops import spec

MAX_VALUE = 32767


@dataclass(frozen=True, repr=False)
class Semaphores(SystemV):
    """A set of ``count`` semaphores, each a number that never gets below 0: who would take too much waits."""

    count: int
    sort: ClassVar[str] = "sem"

    @classmethod
    def create(cls, key: int | None = None, *, values: Iterable[int] = (1,), mode: int = 0o600) -> Semaphores:
        """A new set with these values. EEXIST when the key is taken, EINVAL or ENOSPC at the limits of kernel.sem. semget(2)"""
        numbers = [spec.number("values", value, 0, MAX_VALUE) for value in values]
        if not numbers:
            raise SpecError("values", "must have at least one number")
        count = len(numbers)
        made = cls(*cls._make(key, lambda key, flags: syscalls.semget(key, count if flags else 0, flags), mode), count)
        with made._using():
            syscalls.semctl(made.id, syscalls.SETALL, numbers)
        return made

    @classmethod
    def open(cls, key: int) -> Semaphores:
        """The set with this key; ENOENT when this IPC namespace has none. semget(2)"""
        number, count = cls._find(key, lambda key, flags: syscalls.semget(key, 0, flags))
        return cls(key, number, count)

    def acquire(self, number: int = 0, *, wait: bool = True, undo: bool = False) -> bool:
        """Take one; without ``wait`` False when there is none. ``undo`` gives it back when this process ends. semop(2)"""
        return self._change(number, -1, wait, undo)

    def release(self, number: int = 0, *, undo: bool = False) -> None:
        """Give one back. semop(2)"""
        self._change(number, 1, True, undo)

    def values(self) -> list[int]:
        """The values now. semctl(2)"""
        with self._using():
            return syscalls.semctl(self.id, syscalls.GETALL, [0] * self.count)

    def _change(self, number: int, change: int, wait: bool, undo: bool) -> bool:
        spec.number("number", number, 0, self.count - 1)
        flags = (0 if wait else syscalls.IPC_NOWAIT) | (syscalls.SEM_UNDO if undo else 0)
        with self._using(), unless("EAGAIN", wait):
            syscalls.semop(self.id, [(number, change, flags)])
            return True
        return False

    def _remove(self) -> None:
        syscalls.semctl(self.id, syscalls.IPC_RMID, [])
