"""The walk over /proc: every process, and every namespace that one of its links, threads, descriptors or mounts names.

A machine has thousands of processes, so this is what costs, and two thirds of that are the kernel's: each file is opened
relative to its folder, links are read and not followed, and what can be told from what was read already is not asked for.
Several processes may share one walk: each takes a piece of the work when it has done the one before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from fcntl import ioctl
from os import close, readlink
from os import open as open_at
from typing import NamedTuple

from nslab.model import KINDS
from nslab.procfs.found import RawLinks, Reference, Said, Table, Walk, inode, plain

_LINKS = (*KINDS, "time_for_children")
_NAMES = tuple(map(os.fsencode, _LINKS))
_OF_THREADS = ("mnt", "uts", "ipc", "net", "cgroup")  # a thread cannot be in another one of the other kinds
_PID, _TIME = _LINKS.index("pid"), _LINKS.index("time")
_SOCKET = b"socket:["
_CLAIM, _GONE_FILE = b"/memfd:nslab-claim:", b" (deleted)"  # see namespaces.claims
_PREFIXES = (_SOCKET, _CLAIM, *(os.fsencode(f"{kind}:[") for kind in KINDS))
_DESCRIPTORS = tuple(b"%d" % number for number in range(256))
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_CLOEXEC
_NS_GET_USERNS, _NS_GET_ID, _NUMBER = 0xB701, 0x8008B70D, bytes(8)  # see syscalls.nsfs
_PF_KTHREAD = 0x00200000
_GONE = (errno.ENOENT, errno.ESRCH)
_PIECES = 250  # at most, so that the number of one is a byte
REFUSED: RawLinks = (None,) * len(_LINKS)  # told from the links of a process that is just ending by identity


class Pieces(NamedTuple):
    """The names of processes in pieces. Whoever reads a byte from the pipe ``queue`` has the piece of that number to do."""

    names: tuple[str, ...]
    queue: int

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Pieces:
        """All are to be done. The caller closes ``queue``."""
        queue, tells = os.pipe2(os.O_CLOEXEC)
        os.write(tells, bytes(range(min(_PIECES, len(names)))))
        close(tells)
        return cls(names, queue)

    def taken(self) -> Iterator[str]:
        """The names that this process gets."""
        size = -(-len(self.names) // _PIECES)
        while number := os.read(self.queue, 1):
            yield from self.names[number[0] * size : (number[0] + 1) * size]


def count(root: str = "/proc") -> int:
    """About how many processes the machine has: /proc has a link for each."""
    return os.stat(root).st_nlink


def names(root: str = "/proc") -> tuple[str, ...]:
    """The folders of all processes."""
    return tuple(name for name in os.listdir(root) if name.isdigit())


def walk(folders: Iterable[str], root: str = "/proc", *, commands: bool = True) -> Walk:
    """Look at all these processes, and at what their mounts hold."""
    found = look(folders, root, commands=commands)
    found.finish(root)
    return found


def look(folders: Iterable[str], root: str = "/proc", *, commands: bool = True) -> Walk:
    """Look at these processes, without what their mounts hold. Those that end meanwhile are counted, no more.

    Without ``commands`` what a process executes is read only where it is in other namespaces than the reader, or one of ours.
    """
    top = open_at(root, _FOLDER)
    try:
        found = Walk(_own(top), commands)
        for name in folders:
            try:
                _look(top, name, root, found)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                found.vanished += 1
    finally:
        close(top)
    return found


def _own(top: int) -> RawLinks:
    """The links of whoever looks."""
    space = open_at("self/ns", _FOLDER, dir_fd=top)
    try:
        return _links(space)
    finally:
        close(space)


def _look(top: int, name: str, root: str, found: Walk) -> None:
    folder = open_at(name, _FOLDER, dir_fd=top)
    try:
        text = _read(b"stat", folder, 1024)
        end = text.rindex(b")")
        fields = text[end + 2 :].split(maxsplit=20)
        kernel = int(fields[6]) & _PF_KTHREAD != 0
        pid, state, threads, start = int(name), fields[0].decode(), int(fields[17]), int(fields[19])
        pids: tuple[int, ...] = (pid,)
        space = open_at(b"ns", _FOLDER, dir_fd=folder)
        try:
            links, cgroup = _links(space), ""
            if not (texts := found.texts.get(links)):
                texts = found.told(links)
                _ask(space, pid, texts, found)
        finally:
            close(space)
        away = links != found.own and not kernel
        if away:
            pids, cgroup = _elsewhere(folder, pid, links, found)
        told = away or (not kernel and (found.commands or b"(nslab-" in text[:24]))
        command, exe, deleted = (_words(_read(b"cmdline", folder)), *_program(folder)) if told else ((), "", False)
        found.rows.append((
            pid, int(fields[1]), plain(text[text.index(b"(") + 1 : end]), state, start, os.fstat(folder).st_uid, threads,
            kernel, command, exe, deleted, texts, pids, cgroup,
        ))  # fmt: skip
        if links is REFUSED:
            found.refused += 1
        if kernel or state == "Z" or links is REFUSED:
            return
        if links[-1] != links[_TIME] and links[-1]:
            found.references.append(Reference(plain(links[-1]), "children", pid, "", f"{root}/{pid}/ns/time_for_children"))
        _descriptors(folder, pid, root, found)
        if threads > 1:
            _threads(folder, pid, links, root, found)
        if texts[0] and (texts[0] not in found.mounts or (start, pid) < found.mounts[texts[0]][:2]):
            with contextlib.suppress(OSError):
                found.mounts[texts[0]] = Table(start, pid, _read(b"mountinfo", folder, 1 << 16, lines=True))
    finally:
        close(folder)


def _elsewhere(folder: int, pid: int, links: RawLinks, found: Walk) -> tuple[tuple[int, ...], str]:
    """The PIDs and the cgroup of a process that is not where the reader is."""
    pids: tuple[int, ...] = (pid,)
    if links[_PID] != found.own[_PID]:
        status = _read(b"status", folder)
        with contextlib.suppress(ValueError):  # Linux before 4.1
            start = status.index(b"\nNSpid:") + 7
            pids = tuple(map(int, status[start : status.index(b"\n", start)].split()))
    lines = plain(_read(b"cgroup", folder)).splitlines()
    paths = {number: path for number, _, path in (line.split(":", 2) for line in lines)}
    return pids, paths.get("0") or next(iter(paths.values()), "")


def _links(space: int) -> RawLinks:
    """The links of all kinds; the first that is refused stands for all, since the kernel asks the same each time."""
    try:
        return tuple([readlink(name, dir_fd=space) for name in _NAMES])
    except FileNotFoundError:  # a zombie has left most of them; an older kernel lacks some
        return tuple([_link_or_none(name, space) for name in _NAMES])
    except PermissionError:
        return REFUSED


def _ask(space: int, pid: int, texts: tuple[str | None, ...], found: Walk) -> None:
    """Ask those of its namespaces that are new; ioctl_ns(2)."""
    for kind, link in zip(KINDS.values(), texts, strict=True):
        if link and link not in found.said and not kind.hierarchical:
            with contextlib.suppress(OSError):
                opened = open_at(kind.name, _FILE, dir_fd=space)
                try:
                    if os.fstat(opened).st_ino == inode(link):
                        found.said[link] = Said(pid, _number(opened), _owner(opened))
                finally:
                    close(opened)


def _number(namespace: int) -> int:
    with contextlib.suppress(OSError):
        return int.from_bytes(ioctl(namespace, _NS_GET_ID, _NUMBER), sys.byteorder)
    return 0


def _owner(namespace: int) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        owner = ioctl(namespace, _NS_GET_USERNS)
        info = os.fstat(owner)
        close(owner)
        return info.st_dev, info.st_ino
    return None


def _link_or_none(path: bytes, folder: int) -> bytes | None:
    try:
        return readlink(path, dir_fd=folder)
    except OSError:
        return None


def _descriptors(folder: int, pid: int, root: str, found: Walk) -> None:
    """Those that are namespaces. The size of the folder is their number (Linux 6.2); as long as there is no gap they are
    asked for one by one, without listing them.
    """
    number, there = 0, open_at(b"fd", _FOLDER, dir_fd=folder)
    try:
        count = os.fstat(there).st_size
        try:
            for name in _DESCRIPTORS[:count]:
                if (link := readlink(name, dir_fd=there)).startswith(_PREFIXES):
                    _descriptor(link, pid, number, root, found)
                number += 1
        except FileNotFoundError:
            pass
        if number < count or not count:
            for entry in os.listdir(f"{root}/{pid}/fd"):
                if int(entry) >= number:
                    with contextlib.suppress(FileNotFoundError):
                        if (link := readlink(entry.encode(), dir_fd=there)).startswith(_PREFIXES):
                            _descriptor(link, pid, int(entry), root, found)
    except PermissionError:
        found.closed += 1
    finally:
        close(there)


def _descriptor(link: bytes, pid: int, number: int, root: str, found: Walk) -> None:
    if link.startswith(_SOCKET):
        found.sockets.setdefault(link, (pid, number))
    elif link.startswith(_CLAIM):
        found.claims.append((pid, number, plain(link[len(_CLAIM) :].removesuffix(_GONE_FILE))))
    else:
        path = f"{root}/{pid}/fd/{number}"
        found.references.append(Reference(plain(link), "descriptor", pid, str(number), path))


def _threads(folder: int, pid: int, links: RawLinks, root: str, found: Walk) -> None:
    own = dict(zip(_LINKS, links, strict=True))
    for thread in os.listdir(f"{root}/{pid}/task"):
        if thread == str(pid):
            continue
        for kind in _OF_THREADS:
            with contextlib.suppress(OSError):  # it has ended
                link = readlink(os.fsencode(f"task/{thread}/ns/{kind}"), dir_fd=folder)
                if link != own[kind]:
                    path = f"{root}/{pid}/task/{thread}/ns/{kind}"
                    found.references.append(Reference(plain(link), "thread", pid, thread, path))


def _program(folder: int) -> tuple[str, bool]:
    """The path of its program, and whether that is gone. The kernel's note "(deleted)" may as well be a part of the name."""
    try:
        path = plain(readlink(b"exe", dir_fd=folder))
    except OSError:
        return "", False
    if not path.endswith(" (deleted)"):
        return path, False
    with contextlib.suppress(OSError):
        here = os.stat(f"root{path}", dir_fd=folder)
        if os.path.samestat(here, os.stat("exe", dir_fd=folder)):
            return path, False
    return path.removesuffix(" (deleted)"), True


def _words(text: bytes) -> tuple[str, ...]:
    return tuple(plain(text.removesuffix(b"\0")).split("\0")) if text else ()


def _read(name: bytes, folder: int, room: int = 4096, *, lines: bool = False) -> bytes:
    """A whole file; of one with many ``lines`` the kernel may give as few as it likes at a time."""
    file = open_at(name, _FILE, dir_fd=folder)
    try:
        text = os.read(file, room)
        if lines or len(text) == room:
            while more := os.read(file, 1 << 16):
                text += more
        return text
    finally:
        close(file)
