"""Readers of /proc. Each takes ``root``, so that a test can pass a tree of its own.

A process that vanished raises FileNotFoundError or ProcessLookupError, as the kernel does; one that may not be looked
at raises PermissionError. Source: proc(5).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from typing import Any

from nslab.model import (
    CAPABILITIES,
    CAPABILITY_SETS,
    KINDS,
    Capabilities,
    IdRange,
    IpcObject,
    Kind,
    Mount,
    NamespaceId,
    ProcessStat,
)  # fmt: skip

Pid = int | str

_ROOM = 1 << 16
_OCTAL = re.compile(rb"\\([0-7]{3})")


def read(path: str, root: str = "/proc") -> bytes:
    """The bytes of ``root``/``path``."""
    file = os.open(os.path.join(root, path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(file, _ROOM)
        while more := os.read(file, _ROOM):
            text += more
        return text
    finally:
        os.close(file)


def stat(pid: Pid = "self", root: str = "/proc") -> ProcessStat:
    """/proc/PID/stat. The name may hold spaces, parentheses and newlines: it ends at the last parenthesis."""
    text = read(f"{pid}/stat", root)
    opening, closing = text.index(b"("), text.rindex(b")")
    rest = text[closing + 2 :].split()
    return ProcessStat(
        pid=int(text[:opening]),
        name=os.fsdecode(text[opening + 1 : closing]),
        state=rest[0].decode(),
        ppid=int(rest[1]),
        pgrp=int(rest[2]),
        session=int(rest[3]),
        start=int(rest[19]),
    )


def status(pid: Pid = "self", root: str = "/proc") -> dict[str, str]:
    """/proc/PID/status as a dict of str: "Threads", "CapEff", "NSpid", "Seccomp", ..."""
    lines = os.fsdecode(read(f"{pid}/status", root)).splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def threads(pid: Pid = "self", root: str = "/proc") -> int:
    """How many threads the process has."""
    return int(status(pid, root)["Threads"])


def capabilities(pid: Pid = "self", root: str = "/proc") -> int:
    """The effective capabilities, one bit each (bit 21 is CAP_SYS_ADMIN)."""
    return int(status(pid, root)["CapEff"], 16)


def capability_sets(pid: Pid = "self", root: str = "/proc") -> Capabilities:
    """All five sets by name, with the user namespace in which they count."""
    lines = status(pid, root)
    user = namespace(pid, "user", root)
    bits = {name: int(lines[line], 16) for name, line in CAPABILITY_SETS.items()}
    sets = {name: frozenset(cap for bit, cap in enumerate(CAPABILITIES) if held >> bit & 1) for name, held in bits.items()}
    return Capabilities(**sets, user=user, own=user != namespace("self", "user", root))


def numbers(pid: Pid = "self", root: str = "/proc") -> tuple[int, ...]:
    """The PIDs of the process, one a level: from the PID namespace of this /proc down to its own."""
    return tuple(map(int, status(pid, root)["NSpid"].split()))


def id_map(pid: Pid = "self", which: str = "uid", root: str = "/proc") -> tuple[IdRange, ...]:
    """/proc/PID/uid_map or gid_map (``which`` is "uid" or "gid"); empty as long as nothing has been written."""
    lines = read(f"{pid}/{which}_map", root).splitlines()
    return tuple(IdRange(*(int(field) for field in line.split())) for line in lines)


def setgroups(pid: Pid = "self", root: str = "/proc") -> str:
    """ "allow" or "deny": whether setgroups(2) may be called in the user namespace of the process."""
    return read(f"{pid}/setgroups", root).decode().strip()


def namespace(pid: Pid, kind: str, root: str = "/proc") -> NamespaceId:
    """The id of the namespace of this kind that the process is in."""
    info = os.stat(f"{root}/{pid}/ns/{kind}")
    return NamespaceId(info.st_dev, info.st_ino)


@cache
def kinds(root: str = "/proc") -> dict[str, Kind]:
    """The rows of KINDS that this kernel was built with: user-mode Linux, for one, has no time namespaces. namespaces(7)"""
    try:
        there = os.listdir(f"{root}/self/ns")
    except OSError:
        return dict(KINDS)
    return {name: kind for name, kind in KINDS.items() if name in there}


def namespaces(pid: Pid = "self", root: str = "/proc") -> dict[str, NamespaceId]:
    """The ids of all namespaces of the process; a kind that this kernel lacks is left out."""
    found = {}
    for kind in KINDS:
        try:
            found[kind] = namespace(pid, kind, root)
        except FileNotFoundError:
            if not os.path.exists(f"{root}/{pid}/ns"):
                raise
    return found


def children(pid: Pid = "self", root: str = "/proc") -> list[int]:
    """The PIDs of the children of all threads of the process, zombies included."""
    found: list[int] = []
    for thread in os.listdir(f"{root}/{pid}/task"):
        found += map(int, read(f"{pid}/task/{thread}/children", root).split())
    return found


def descendants(pid: Pid, root: str = "/proc") -> list[int]:
    """The PIDs of all processes below ``pid``, parents first, as they were found one after the other."""
    found: dict[int, None] = {}
    todo: list[Pid] = [pid]
    while todo:
        try:
            new = [child for child in children(todo.pop(0), root) if child not in found]
        except OSError:  # it has ended
            continue
        found |= dict.fromkeys(new)
        todo += new
    return list(found)


def pids(root: str = "/proc") -> Iterator[int]:
    """Every PID that this /proc shows."""
    return (int(name) for name in os.listdir(root) if name.isdigit())


def pid_behind(pidfd: int, root: str = "/proc") -> int:
    """The PID, as this /proc numbers it, of the process that a pidfd stands for; -1 once it is gone."""
    for line in read(f"self/fdinfo/{pidfd}", root).splitlines():
        if line.startswith(b"Pid:"):
            return int(line[4:])
    raise ValueError(f"descriptor {pidfd} is not a pidfd")


def mountinfo(pid: Pid = "self", root: str = "/proc") -> tuple[Mount, ...]:
    """/proc/PID/mountinfo. Fields are split at single spaces, since a source may be empty."""
    return tuple(Mounts(read(f"{pid}/mountinfo", root)))


class Mounts(Sequence[Mount]):
    """The mounts in the text of a mountinfo, as a tuple has them. Taken apart when somebody looks: of a hundred tables few
    are looked at, and their text is a tenth of the work.
    """

    def __init__(self, text: bytes):
        self._text = text

    @cached_property
    def _mounts(self) -> tuple[Mount, ...]:
        return tuple(parse_mount(line) for line in self._text.split(b"\n") if line)

    def __len__(self) -> int:
        return len(self._mounts)

    def __getitem__(self, index: Any) -> Any:
        return self._mounts[index]

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._mounts)

    def __eq__(self, other: object) -> bool:
        return self._mounts == (other._mounts if isinstance(other, Mounts) else other)

    def __hash__(self) -> int:
        return hash(self._mounts)

    def __repr__(self) -> str:
        return repr(self._mounts)


def parse_mount(line: bytes) -> Mount:
    """One line of it."""
    number, parent, rest = line.split(b" ", 2)
    device, origin, target, options, peers, *more = _mounted(rest)
    return Mount(int(number), int(parent), device, origin, target, options, dict(peers), *more)


@lru_cache(4096)  # mount namespaces begin as copies: all but the numbers is the same in most
def _mounted(rest: bytes) -> tuple[Any, ...]:
    head, tail = rest.split(b" - ", 1)
    device, origin, target, options, *tags = head.split(b" ")
    fstype, source, super_options = tail.split(b" ", 2)
    peers = {}
    for tag in tags:
        name, _, group = tag.decode().partition(":")
        peers[name] = int(group or 0)
    return (
        device.decode(), _plain(origin), _plain(target), tuple(options.decode().split(",")), peers,
        os.fsdecode(fstype), _plain(source), tuple(_plain(super_options).split(",")),
    )  # fmt: skip


def _plain(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))


def covered(prefix: str = "/proc", pid: Pid = "self", root: str = "/proc") -> list[str]:
    """Mount points strictly below ``prefix``: what hides parts of /proc from the process."""
    return [m.target for m in mountinfo(pid, root) if m.target.startswith(prefix + "/")]


def cgroups(pid: Pid = "self", root: str = "/proc") -> dict[tuple[str, ...], str]:
    """The cgroup that the process is in, as the reader sees it, by the controllers of each hierarchy; cgroup v2 is ().

    A named hierarchy of v1 has its name for a controller: "name=systemd". Source: cgroups(7).
    """
    rows = (os.fsdecode(line).split(":", 2) for line in read(f"{pid}/cgroup", root).splitlines())
    return {tuple(filter(None, controllers.split(","))): path for _, controllers, path in rows}


def listening(root: str = "/proc") -> set[int]:
    """The TCP ports that are listened on in the network namespace of the reader, over IPv4 or IPv6."""
    ports = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # no IPv6 here
            for line in read(f"self/net/{table}", root).splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == b"0A":  # TCP_LISTEN
                    ports.add(int(local.rpartition(b":")[2], 16))
    return ports


def subordinate_ids(which: str, names: Mapping[str, None], etc: str = "/etc") -> list[tuple[int, int]]:
    """(first, count) of each range that /etc/subuid or subgid grants to one of ``names`` (user name or number as text).

    ``which`` is "uid" or "gid". Source: subuid(5).
    """
    try:
        with open(f"{etc}/sub{which}") as file:
            rows = [line.strip().split(":") for line in file]
    except OSError:
        return []
    return [(int(row[1]), int(row[2])) for row in rows if len(row) == 3 and row[0] in names and row[2] != "0"]


# The columns of /proc/sysvipc/SORT with the id, the size and the count; Source: proc(5).
_SYSTEM_V = {"shm": ("shmid", "size", "nattch"), "sem": ("semid", "nsems", ""), "msg": ("msqid", "cbytes", "qnum")}


def system_v(root: str = "/proc", sorts: Collection[str] = _SYSTEM_V) -> tuple[IpcObject, ...]:
    """The System V objects of the reader's IPC namespace: shared memory ("shm"), semaphores ("sem"), message queues ("msg")."""
    found = []
    for sort in sorts:
        number, size, count = _SYSTEM_V[sort]
        text = read(f"sysvipc/{sort}", root)
        head, *lines = text.decode().splitlines() if text.count(b"\n") > 1 else [""]
        for line in lines:
            row = dict(zip(head.split(), line.split(), strict=False))
            found.append(
                IpcObject(
                    sort, int(row["key"]) & 0xFFFFFFFF, int(row[number]), "", int(row["perms"], 8) & 0o777, int(row["uid"]),
                    int(row[size]), int(row[count]) if count else -1,
                )
            )  # fmt: skip
    return tuple(found)
