"""What nslab made in an IPC namespace that is not its own, so that it is removed whoever dies.

System V objects and POSIX message queues belong to no process, so nothing ends them. Each is therefore noted in a memfd that
the notebook, the watchdog, the spawners and the processes that run functions share: before it is made, by its key or name,
and after, with its id. The spawner removes those of an owner (the PID of a container's init, or of the keeper of a steered
process) when that has ended; the watchdog the rest, the notebook's own (owner 0) among them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import NamedTuple

from nslab.errors import SyscallError
from nslab.syscalls import guard


class Entry(NamedTuple):
    """``sort`` is shm, sem, msg or mq, ``name`` the key as text or the name of the queue; ``id`` -1 as long as it is made."""

    owner: int
    sort: str
    name: str
    id: int


class Registry:
    """One writer's view of the memfd ``fd``; what it notes belongs to ``owner``."""

    def __init__(self, fd: int, owner: int = 0):
        self.fd = fd
        self.owner = owner

    def fileno(self) -> int:
        return self.fd

    @staticmethod
    def new() -> int:
        """A memfd to which each write is appended whole, whoever writes; the caller owns it."""
        fd = os.memfd_create("nslab-registry", os.MFD_CLOEXEC)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        return fd

    def note(self, sort: str, name: str, number: int = -1) -> None:
        """Say that it will be made, or with its id that it was."""
        self._write("+", self.owner, sort, name, number)

    def forget(self, sort: str, name: str) -> None:
        """Say that it is gone, or was not made."""
        self._write("-", self.owner, sort, name, -1)

    def _write(self, sign: str, owner: int, sort: str, name: str, number: int) -> None:
        os.write(self.fd, f"{sign} {owner} {sort} {name.encode().hex()} {number}\n".encode())

    def _text(self) -> bytes:
        size = os.fstat(self.fd).st_size
        return os.pread(self.fd, size, 0) if size else b""

    def entries(self) -> list[Entry]:
        """What there is, of all owners."""
        found: dict[tuple[str, str], Entry] = {}
        for line in self._text().decode().splitlines():
            sign, owner, sort, name, number = line.split()
            if sign == "+":
                found[sort, name] = Entry(int(owner), sort, bytes.fromhex(name).decode(), int(number))
            else:
                found.pop((sort, name), None)
        return list(found.values())

    def find(self, sort: str, name: str) -> Entry | None:
        return next((entry for entry in self.entries() if (entry.sort, entry.name) == (sort, name)), None)

    def remove(self, owner: int | None = None) -> None:
        """Remove what belongs to this owner (None: all of it); what somebody else has removed meanwhile is passed over."""
        if owner is not None and b" %d " % owner not in self._text():
            return  # as nearly always, and told at once
        for entry in self.entries():
            if owner in (None, entry.owner):
                with guard.registered(), contextlib.suppress(SyscallError):
                    _remove(entry)
                self.forget(entry.sort, entry.name)


def _remove(entry: Entry) -> None:
    """An id may have been given to another object by now: the key must still lead to it."""
    from nslab.syscalls import mqueue, sysv

    if entry.sort == "mq":
        mqueue.mq_unlink(entry.name)
        return
    key = int(entry.name)
    look_up = {"shm": lambda: sysv.shmget(key, 0, 0), "sem": lambda: sysv.semget(key, 0, 0), "msg": lambda: sysv.msgget(key, 0)}
    number = look_up[entry.sort]()
    if entry.id not in (-1, number):
        return
    if entry.sort == "shm":
        sysv.shmctl(number, sysv.IPC_RMID)
    elif entry.sort == "sem":
        sysv.semctl(number, sysv.IPC_RMID, [])
    else:
        sysv.msgctl(number, sysv.IPC_RMID)


here: Registry | None = None  # of this process, where it is one that runs functions of other people


def write_to(fd: int, owner: int) -> None:
    """From here on, in this process and its children, what is made belongs to ``owner``."""
    global here
    here = Registry(fd, owner)
