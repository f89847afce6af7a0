"""A look into namespaces, one after the other, by a process that is there for nothing else; it changes none of them."""

from __future__ import annotations

import os
import pickle
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from nslab import procfs, syscalls
from nslab.errors import SyscallError
from nslab.model import KINDS, IpcObject
from nslab.ops.base import Context, Op

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_ORDER = ("uts", "cgroup", "net", "ipc", "time", "user", "mnt")  # mnt last: then other files are in sight
MOST = 100_000  # bytes in one message
SOCKETS = ("tcp", "tcp6", "udp", "udp6")


class Place(NamedTuple):
    """A namespace to look into, by a path that leads to it as long as its inode is ``ino``; ``member`` is a PID, 0 for none."""

    kind: str
    path: str
    ino: int
    member: int


@dataclass(frozen=True)
class Visit(Op):
    """Enter each of ``places``, by way of the user namespace behind the path ``user`` ("": it takes none), and tell over the
    socket named ``fd`` what is there: pickled (number of the place, what was read), of a network also a netlink socket.

    What may not be entered, or is gone, is told as an OSError.
    """

    places: tuple[Place, ...]
    fd: str
    user: str = ""
    enters: ClassVar[bool] = True

    def perform(self, context: Context) -> None:
        proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
        doors = [self._door(place) for place in self.places]  # before it may not look at them any more
        with socket.socket(fileno=os.dup(context.fds[self.fd])) as way:
            if self.user:
                opened = syscalls.open_namespace(self.user)
                syscalls.setns(opened, KINDS["user"].flag, f"fd of {self.user}")
                syscalls.unshare(KINDS["mnt"].flag)  # it may mount nothing in that of the machine: not even a look at queues
            for number in sorted(range(len(doors)), key=lambda index: _ORDER.index(self.places[index].kind)):
                _tell(way, number, self.places[number], doors[number], proc)

    @staticmethod
    def _door(place: Place) -> int | OSError:
        try:
            door = os.open(place.path, _READ)
        except OSError as error:
            return error
        if os.fstat(door).st_ino != place.ino:
            os.close(door)
            return ProcessLookupError(f"{place.path} leads elsewhere by now")
        return door

    def describe(self) -> str:
        return f"look into namespaces, without changing them: {len(self.places)}"

    def shell(self) -> str:
        return f"# no standard tool: one process that looks into {len(self.places)} namespaces"


def _tell(way: socket.socket, number: int, place: Place, door: int | OSError, proc: int) -> None:
    sent: list[int] = []
    try:
        if isinstance(door, OSError):
            raise door
        if place.kind == "user":
            said: Any = _maps(door, place)
        else:
            syscalls.setns(door, KINDS[place.kind].flag, f"fd of {place.path}")
            said = _read(place, proc)
        if place.kind == "net":
            with syscalls.netlink_socket() as opened:
                sent.append(os.dup(opened.fileno()))
    except OSError as error:
        said = OSError(error.errno, os.strerror(error.errno or 0))
    data = pickle.dumps((number, said))
    if len(data) < MOST:
        socket.send_fds(way, [b"v", data], sent)
    else:  # a table of mounts has no limit
        memory = os.memfd_create("nslab-seen", os.MFD_CLOEXEC)
        sent.insert(0, memory)
        while data:
            data = data[os.write(memory, data) :]
        socket.send_fds(way, [b"m"], sent)
    for each in sent if isinstance(door, OSError) else [*sent, door]:
        os.close(each)


def _read(place: Place, proc: int) -> Any:
    """What is to be read where this process now is."""
    match place.kind:
        case "uts":
            return syscalls.uname().nodename, _text(proc, "sys/kernel/domainname").strip()
        case "cgroup":
            return _text(proc, f"{place.member}/cgroup" if place.member else "self/cgroup")
        case "net":
            return {table: _text(proc, f"self/net/{table}") for table in _in_use(proc)}
        case "ipc":
            return (*procfs.system_v(), *_queues())
        case "time":
            return _text(proc, "self/timens_offsets")
        case _:
            return 0, os.fsencode(_text(proc, "self/mountinfo"))


def _in_use(proc: int) -> Iterator[str]:
    """The tables that have sockets in them: to print one the kernel goes through those of all networks, which takes it long."""
    lines = (_text(proc, "self/net/sockstat") + _text(proc, "self/net/sockstat6")).splitlines()
    counts = {words[0].rstrip(":").lower(): words[2] for words in map(str.split, lines) if words[1:2] == ["inuse"]}
    return (table for table in SOCKETS if counts.get(table, "0") != "0")


def _text(proc: int, name: str) -> str:
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:  # no IPv6 here
        return ""
    with open(file, "rb") as opened:
        return os.fsdecode(opened.read())


def _maps(door: int, place: Place) -> tuple[str, str, str]:
    """The maps of a user namespace in which nobody is: a fork enters it, since who has entered cannot come back."""
    told, tells = os.pipe2(os.O_CLOEXEC)
    pid = syscalls.fork()
    if not pid:
        try:
            syscalls.setns(door, KINDS["user"].flag, f"fd of {place.path}")
            os.write(tells, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tells)
    try:
        if not os.read(told, 1):
            raise PermissionError(1, "it may not be entered")
        uid, gid, setgroups = (procfs.read(f"{pid}/{name}").decode() for name in ("uid_map", "gid_map", "setgroups"))
        return uid, gid, setgroups
    finally:
        os.close(told)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _queues() -> tuple[IpcObject, ...]:
    try:
        return tuple(queues())
    except SyscallError:
        return ()


def queues() -> Iterator[IpcObject]:
    """The POSIX message queues here, by a mount that is mounted nowhere: one that is somewhere may show another namespace."""
    mount = syscalls.detached("mqueue")
    try:
        folder = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
        try:
            for name in sorted(os.listdir(folder)):
                with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
                    info = os.fstat(file.fileno())
                    size = int(file.read().split()[0].removeprefix(b"QSIZE:"))
                yield IpcObject("mq", 0, -1, f"/{name}", info.st_mode & 0o777, info.st_uid, size, -1)
        finally:
            os.close(folder)
    finally:
        os.close(mount)
