"""The walk over /proc: every process, and every namespace that one of its links, threads, descriptors or mounts names.

A machine has thousands of processes, so this is what costs: each file is opened relative to its folder, links are read and
not followed, and what can be told from what was read already is not asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from os import readlink
from typing import NamedTuple

from nslab import procfs
from nslab.model import KINDS

_LINKS = (*KINDS, "time_for_children")
_PATHS = tuple(f"ns/{entry}" for entry in _LINKS)
_OF_THREADS = ("mnt", "uts", "ipc", "net", "cgroup")  # a thread cannot be in another one of the other kinds
_PID, _TIME = _LINKS.index("pid"), _LINKS.index("time")
REFUSED: tuple[str | None, ...] = (None,) * len(_LINKS)  # told from the links of a process that is just ending by identity
_PREFIXES = tuple(f"{kind}:[" for kind in KINDS)
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_CLOEXEC
_PF_KTHREAD = 0x00200000
_GONE = (errno.ENOENT, errno.ESRCH)


class Raw(NamedTuple):
    """A process as it was read: ``links`` are the texts of its namespace links by kind, None for those that were refused.

    Its ``pids``, from those of the reader down, and its ``cgroup`` are read where it is in other namespaces than the reader.
    """

    pid: int
    ppid: int
    name: str
    state: str
    start: int
    uid: int
    threads: int
    kernel: bool
    command: tuple[str, ...]
    exe: str
    exe_deleted: bool
    links: tuple[str | None, ...]
    pids: tuple[int, ...]
    cgroup: str


class Reference(NamedTuple):
    """Something that names a namespace, by the text of its link: a Holder to be, and a path by which it can be opened."""

    link: str
    sort: str
    pid: int
    detail: str
    path: str


@dataclass
class Walk:
    """What was found. ``refused`` are the processes whose links, ``closed`` those whose descriptors may not be read."""

    own: tuple[str | None, ...]
    commands: bool
    processes: list[Raw] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    mounts: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # mountinfo by mount namespace, and whose it is
    refused: int = 0
    closed: int = 0
    vanished: int = 0

    def groups(self) -> dict[tuple[str | None, ...], list[int]]:
        """The PIDs of those that are in the same namespaces of all kinds."""
        found: dict[tuple[str | None, ...], list[int]] = {}
        for process in self.processes:
            found.setdefault(process.links, []).append(process.pid)
        return found


def walk(root: str = "/proc", *, commands: bool = True) -> Walk:
    """Look at every process that this /proc shows. Those that end meanwhile are counted, no more.

    Without ``commands`` what a process executes is read only where it is in other namespaces than the reader, or one of ours.
    """
    top = os.open(root, _FOLDER)
    try:
        found = Walk(_own(top), commands)
        for name in os.listdir(root):
            if name.isdigit():
                try:
                    _look(top, name, root, found)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise
                    found.vanished += 1
    finally:
        os.close(top)
    _mounts(found, root)
    return found


def _own(top: int) -> tuple[str | None, ...]:
    """The links of whoever looks."""
    folder = os.open("self", _FOLDER, dir_fd=top)
    try:
        return _links(folder)
    finally:
        os.close(folder)


def _look(top: int, name: str, root: str, found: Walk) -> None:
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        text = _read("stat", folder)
        fields = text[text.rindex(b")") + 2 :].split(maxsplit=20)
        kernel = bool(int(fields[6]) & _PF_KTHREAD)
        pid, state, threads = int(name), fields[0].decode(), int(fields[17])
        pids: tuple[int, ...] = (pid,)
        links, cgroup = _links(folder), ""
        away = links != found.own and not kernel
        if away:
            pids, cgroup = _elsewhere(folder, pid, links, found)
        told = away or (not kernel and (found.commands or b"(nslab-" in text[:24]))
        command, exe, deleted = (_words(_read("cmdline", folder)), *_program(folder)) if told else ((), "", False)
        found.processes.append(
            Raw(
                pid, int(fields[1]), os.fsdecode(text[text.index(b"(") + 1 : text.rindex(b")")]), state, int(fields[19]),
                os.fstat(folder).st_uid, threads, kernel, command, exe, deleted, links[: len(KINDS)], pids, cgroup,
            )
        )  # fmt: skip
        if links is REFUSED:
            found.refused += 1
        if kernel or state == "Z" or links is REFUSED:
            return
        if links[-1] != links[_TIME] and links[-1]:
            found.references.append(Reference(links[-1], "children", pid, "", f"{root}/{pid}/ns/time_for_children"))
        _descriptors(folder, pid, root, found)
        if threads > 1:
            _threads(folder, pid, links, root, found)
    finally:
        os.close(folder)


def _elsewhere(folder: int, pid: int, links: tuple[str | None, ...], found: Walk) -> tuple[tuple[int, ...], str]:
    """The PIDs and the cgroup of a process that is not where the reader is."""
    pids: tuple[int, ...] = (pid,)
    if links[_PID] != found.own[_PID]:
        status = _read("status", folder)
        with contextlib.suppress(ValueError):  # Linux before 4.1
            start = status.index(b"\nNSpid:") + 7
            pids = tuple(map(int, status[start : status.index(b"\n", start)].split()))
    lines = os.fsdecode(_read("cgroup", folder)).splitlines()
    paths = {number: path for number, _, path in (line.split(":", 2) for line in lines)}
    return pids, paths.get("0") or next(iter(paths.values()), "")


def _links(folder: int) -> tuple[str | None, ...]:
    """The links of all kinds; the first that is refused stands for all, since the kernel asks the same each time."""
    read = partial(readlink, dir_fd=folder)
    try:
        return tuple(map(read, _PATHS))
    except FileNotFoundError:  # a zombie has left most of them; an older kernel lacks some
        return tuple(map(partial(_link_or_none, read), _PATHS))
    except PermissionError:
        return REFUSED


def _link_or_none(read: Callable[[str], str], entry: str) -> str | None:
    try:
        return read(entry)
    except OSError:
        return None


def _descriptors(folder: int, pid: int, root: str, found: Walk) -> None:
    """Those that are namespaces. The size of the folder is their number (Linux 6.2); as long as there is no gap they are
    asked for one by one, without listing them.
    """
    number, seen = 0, found.references
    try:
        count = os.stat("fd", dir_fd=folder).st_size
        try:
            while number < count:
                if (link := readlink(f"fd/{number}", dir_fd=folder)).startswith(_PREFIXES):
                    seen.append(Reference(link, "descriptor", pid, str(number), f"{root}/{pid}/fd/{number}"))
                number += 1
        except FileNotFoundError:
            pass
        if number < count or not count:
            for entry in os.listdir(f"{root}/{pid}/fd"):
                if int(entry) >= number:
                    with contextlib.suppress(FileNotFoundError):
                        if (link := readlink(f"fd/{entry}", dir_fd=folder)).startswith(_PREFIXES):
                            seen.append(Reference(link, "descriptor", pid, entry, f"{root}/{pid}/fd/{entry}"))
    except PermissionError:
        found.closed += 1


def _threads(folder: int, pid: int, links: tuple[str | None, ...], root: str, found: Walk) -> None:
    own = dict(zip(_LINKS, links, strict=True))
    for thread in os.listdir(f"{root}/{pid}/task"):
        if thread == str(pid):
            continue
        for kind in _OF_THREADS:
            with contextlib.suppress(OSError):  # it has ended
                link = readlink(f"task/{thread}/ns/{kind}", dir_fd=folder)
                if link != own[kind]:
                    path = f"{root}/{pid}/task/{thread}/ns/{kind}"
                    found.references.append(Reference(link, "thread", pid, thread, path))


def _program(folder: int) -> tuple[str, bool]:
    """The path of its program, and whether that is gone. The kernel's note "(deleted)" may as well be a part of the name."""
    try:
        path = readlink("exe", dir_fd=folder)
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
    return tuple(os.fsdecode(text.removesuffix(b"\0")).split("\0")) if text else ()


def _read(name: str, folder: int) -> bytes:
    file = os.open(name, _FILE, dir_fd=folder)
    try:
        text = os.read(file, 1 << 16)
        if len(text) >= 4096:  # the kernel may give a page at a time
            while more := os.read(file, 1 << 16):
                text += more
        return text
    finally:
        os.close(file)


def _mounts(found: Walk, root: str) -> None:
    """The mounts of each mount namespace, as its oldest member that lets itself be read sees them; and what those hold."""
    for process in sorted(found.processes, key=lambda each: (each.start, each.pid)):
        link = process.links[0]
        if link is None or link in found.mounts or process.state == "Z":
            continue
        with contextlib.suppress(OSError):
            with open(f"{root}/{process.pid}/mountinfo", "rb") as file:
                text = file.read()
            found.mounts[link] = (process.pid, text)
            if b" - nsfs " in text:
                found.references += _held(process.pid, text, root)


def _held(pid: int, text: bytes, root: str) -> Iterator[Reference]:
    for line in text.split(b"\n"):
        if b" - nsfs " in line:
            mount = procfs.parse_mount(line)
            yield Reference(mount.root, "mount", pid, mount.target, f"{root}/{pid}/root{mount.target}")
