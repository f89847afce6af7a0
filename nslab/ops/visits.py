"""A process that looks for others: at a part of /proc, and into namespaces, which it enters one after the other.

It is there for nothing else, and changes none of them.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import resource
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from errno import ESRCH
from typing import Any, ClassVar, NamedTuple

from nslab import netlink, procfs, syscalls
from nslab.errors import SyscallError
from nslab.model import KINDS, IpcObject
from nslab.ops.base import Context, Op
from nslab.procfs import walk
from nslab.procfs.found import Walk, inode
from nslab.syscalls import mqueue, sysv

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
ORDER = (
    "net",
    "uts",
    "cgroup",
    "ipc",
    "time",
    "user",
    "mnt",
)  # net has most to be worked on; mnt last: other files are in sight
_FEW = 5  # mounts that may as well be taken away one by one
MOST = 100_000  # bytes in one message
AT_ONCE = 250  # namespaces that are looked into at a time, each of which may come with a descriptor
TRIED = 3  # ways to open a namespace that are tried before it counts as out of reach
_AHEAD = ("net", "uts", "ipc")  # what is isolated by most, and told by nobody in it
SOCKETS = ("tcp", "tcp6", "udp", "udp6")


class Place(NamedTuple):
    """A namespace to look into, by paths that lead to it as long as its inode is ``ino``; ``member`` is a PID, 0 for none."""

    kind: str
    paths: tuple[str, ...]
    ino: int
    member: int


class Inside(NamedTuple):
    """What a network is asked: the tables of sockets that are in use, and the bodies of what netlink.inventory() answers."""

    sockets: dict[str, str]
    addresses: list[bytes]
    links: list[bytes]
    routes: list[bytes]


def tell(sock: socket.socket, message: Any, fds: Sequence[int] = ()) -> None:
    """Send a message of whatever can be pickled; a table of mounts has no limit."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    if len(data) < MOST:
        socket.send_fds(sock, [b"v", data], fds)
        return
    memory = os.memfd_create("nslab-seen", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(data)
        socket.send_fds(sock, [b"m"], [*fds, memory])
    finally:
        os.close(memory)


@dataclass(frozen=True)
class Visit(Op):
    """Do what is asked over the socket named ``fd`` until that ends, and answer each: (method, arguments), with descriptors.

    ``look`` at pieces of a walk over /proc, ``enter`` places, or ``follow`` what was found on that walk, which tells them too.
    What may not be entered, or is gone, is told as an OSError.
    """

    fd: str
    enters: ClassVar[bool] = True

    def perform(self, context: Context) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        visit = _Visit(os.open("/proc", os.O_PATH | os.O_CLOEXEC))
        with socket.socket(fileno=os.dup(context.fds[self.fd])) as way:
            while True:
                message, fds, _, _ = socket.recv_fds(way, MOST + 1, 4)
                if not message:
                    return
                method, *given = pickle.loads(_content(message, fds))
                answer, sent = getattr(visit, method)(fds, *given)
                tell(way, answer, sent)
                for fd in (*fds, *sent):
                    os.close(fd)

    def describe(self) -> str:
        return "look at processes and into namespaces, without changing them"

    def shell(self) -> str:
        return "# no standard tool: one process that looks into namespaces, one after the other"


def _content(message: bytes, fds: list[int]) -> bytes:
    if message[:1] == b"v":
        return message[1:]
    with os.fdopen(fds.pop(), "rb") as memory:
        memory.seek(0)
        return memory.read()


class _Visit:
    """The methods that may be asked for. Each gets the descriptors that came with the question, and returns those to send."""

    def __init__(self, proc: int):
        self._proc = proc
        self._ahead: Sequence[Place] = ()
        self._mounts = -1  # the root of a mount namespace of its own, where mounts may be left

    def look(self, fds: Sequence[int], names: tuple[str, ...], commands: bool) -> tuple[bytes, Sequence[int]]:
        """Its PID, the part of a walk that it gets to do, and where it would go on; marshal is much faster than pickle."""
        found = walk.look(walk.Pieces(names, fds[0]).taken(), commands=commands)
        self._ahead = _ahead(found)
        me = int(os.readlink("self", dir_fd=self._proc))
        return marshal.dumps((me, found.values(), [tuple(each) for each in self._ahead])), ()

    def follow(self, _: Sequence[int]) -> tuple[Any, Sequence[int]]:
        """Enter those places, while the one who asked puts together what both have found."""
        return self.enter((), self._ahead, "")

    def enter(
        self, _: Sequence[int], places: Sequence[Place], user: str
    ) -> tuple[tuple[dict[int, Any], list[int]], Sequence[int]]:
        """Enter each of ``places``, by way of the user namespace behind the path ``user`` ("": it takes none).

        What was read there, by the number of the place; and the numbers of those networks of which more has to be asked, whose
        netlink sockets come with it.
        """
        doors = [_door(self._proc, place) for place in places]  # before it may not look at them any more
        if user:
            opened = syscalls.open_namespace(user)
            syscalls.setns(opened, KINDS["user"].flag, f"fd of {user}")
            syscalls.unshare(KINDS["mnt"].flag)  # it may mount nothing in that of the machine: not even a look at queues
        if self._mounts < 0 and sum(each.kind == "ipc" for each in places) > _FEW:
            self._mounts = _own_mounts()
        said: dict[int, Any] = {}
        more: dict[int, int] = {}
        for number in sorted(range(len(doors)), key=lambda index: ORDER.index(places[index].kind)):
            place, door = places[number], doors[number]
            try:
                if isinstance(door, OSError):
                    raise door
                if place.kind == "user":
                    said[number] = _maps(door, place)
                else:
                    syscalls.setns(door, KINDS[place.kind].flag, f"fd of {place.paths[0]}")
                    if place.kind == "mnt" and self._mounts >= 0:  # which ended when it left them
                        os.close(self._mounts)
                        self._mounts = -1
                    said[number] = self._read(place) if place.kind != "net" else _network(number, self._proc, more)
            except OSError as error:
                said[number] = OSError(error.errno, os.strerror(error.errno or 0))
            if not isinstance(door, OSError):
                os.close(door)
        return (said, [*more]), [*more.values()]

    def _read(self, place: Place) -> Any:
        """What is to be read where this process now is."""
        match place.kind:
            case "uts":
                return syscalls.uname().nodename, _text(self._proc, "sys/kernel/domainname").strip()
            case "cgroup":
                return _text(self._proc, f"{place.member}/cgroup" if place.member else "self/cgroup")
            case "ipc":
                there = [sort for sort, count in sysv.counts().items() if count]
                return (*procfs.system_v(f"/proc/self/fd/{self._proc}", there), *_queues(self._mounts))
            case "time":
                return _text(self._proc, "self/timens_offsets")
            case _:
                return 0, os.fsencode(_text(self._proc, "self/mountinfo"))


def _ahead(found: Walk) -> list[Place]:
    """Other namespaces than one's own that processes of this part of the walk are in."""
    own, places = found.told(found.own), {}
    for links, pids in found.groups().items():
        for kind, link, mine in zip(KINDS, links, own, strict=True):
            if kind in _AHEAD and link and link != mine and link not in places:
                paths = tuple(f"/proc/{pid}/ns/{kind}" for pid in pids[:TRIED])
                places[link] = Place(kind, paths, inode(link), pids[0])
    return [*places.values()][:AT_ONCE]


def _door(proc: int, place: Place) -> int | OSError:
    """The namespace, opened by the first path that still leads there."""
    failed: OSError = ProcessLookupError(ESRCH, os.strerror(ESRCH))
    for path in place.paths:
        try:
            door = os.open(path.removeprefix("/proc/"), _READ, dir_fd=proc)
        except OSError as error:
            failed = error
            continue
        if os.fstat(door).st_ino == place.ino:
            return door
        os.close(door)
    return failed


def _network(number: int, proc: int, more: dict[int, int]) -> Inside:
    """What this network is asked; a netlink socket is left in ``more``, by its number, where more has to be asked."""
    sockets = {table: _text(proc, f"self/net/{table}") for table in in_use(proc)}
    with contextlib.closing(netlink.Socket(syscalls.netlink_socket())) as opened:
        inside = Inside(sockets, *netlink.inventory(opened))
        if any(kind in body for body in inside.links for kind in netlink.MORE_TO_ASK):
            more[number] = os.dup(opened.fileno())
        return inside


def _own_mounts() -> int:
    """Have a mount namespace for mounts of one's own, which end with it, all at once; its root, or -1 if that may not be."""
    try:
        syscalls.unshare(KINDS["mnt"].flag)
        syscalls.mount("none", "/", None, syscalls.MOUNT_FLAGS["MS_REC"] | syscalls.MOUNT_FLAGS["MS_PRIVATE"])
    except SyscallError:
        return -1
    return os.open("/", os.O_PATH | os.O_CLOEXEC)


def in_use(proc: int) -> Iterator[str]:
    """The tables that have sockets in them: to print one the kernel goes through those of all networks, which takes it long."""
    text = _text(proc, "self/net/sockstat")
    if not text.startswith("sockets: used 0\n"):
        lines = (text + _text(proc, "self/net/sockstat6")).splitlines()
        counts = {words[0].rstrip(":").lower(): words[2] for words in map(str.split, lines) if words[1:2] == ["inuse"]}
        yield from (table for table in SOCKETS if counts.get(table, "0") != "0")


def _text(proc: int, name: str) -> str:
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:  # no IPv6 here
        return ""
    try:
        found = os.read(file, 1 << 16)
        while more := os.read(file, 1 << 16):
            found += more
        return os.fsdecode(found)
    finally:
        os.close(file)


def _maps(door: int, place: Place) -> tuple[str, str, str]:
    """The maps of a user namespace in which nobody is: a fork enters it, since who has entered cannot come back."""
    told, tells = os.pipe2(os.O_CLOEXEC)
    pid = syscalls.fork()
    if not pid:
        try:
            syscalls.setns(door, KINDS["user"].flag, f"fd of {place.paths[0]}")
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


def _queues(root: int) -> tuple[IpcObject, ...]:
    try:
        return tuple(queues(root))
    except SyscallError:
        return ()


def queues(root: int = -1) -> Iterator[IpcObject]:
    """The POSIX message queues here, by a mount that is mounted nowhere: one that is somewhere may show another namespace.

    At ``root``, a descriptor, it is left, to go with many: for each that goes alone the kernel waits until all processors have
    seen that, close to a millisecond.
    """
    mount = mqueue.detached("mqueue")
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
        if root >= 0:
            syscalls.move_mount(mount, root)
    finally:
        os.close(mount)
