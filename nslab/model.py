"""What nslab talks about, as frozen values. Nothing here asks the kernel or needs more than the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the eight kinds of namespace.

    ``flag`` is the CLONE_NEW* bit of clone(2), ``link`` the entry in /proc/PID/ns that new children get, ``since`` the
    kernel that first had it for general use, ``colour`` and ``shape`` (a graphviz shape) how it is drawn everywhere.
    """

    name: str
    flag: int
    symbol: str
    isolates: str
    link: str
    hierarchical: bool
    since: str
    man: str
    unshare_option: str
    colour: str
    shape: str


# Colours after Okabe and Ito; no two kinds share a colour or a shape, so that either is enough to tell them apart.
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("mnt", 0x00020000, "CLONE_NEWNS", "mount points", "mnt", False, "2.4.19", "mount_namespaces(7)",
             "--mount", "#E69F00", "folder"),
        Kind("uts", 0x04000000, "CLONE_NEWUTS", "host name and NIS domain name", "uts", False, "2.6.19",
             "uts_namespaces(7)", "--uts", "#56B4E9", "note"),
        Kind("ipc", 0x08000000, "CLONE_NEWIPC", "System V IPC and POSIX message queues", "ipc", False, "2.6.19",
             "ipc_namespaces(7)", "--ipc", "#009E73", "cylinder"),
        Kind("pid", 0x20000000, "CLONE_NEWPID", "process ids", "pid_for_children", True, "2.6.24",
             "pid_namespaces(7)", "--pid", "#F0E442", "ellipse"),
        Kind("net", 0x40000000, "CLONE_NEWNET", "interfaces, addresses, routes, ports", "net", False, "2.6.29",
             "network_namespaces(7)", "--net", "#0072B2", "hexagon"),
        Kind("user", 0x10000000, "CLONE_NEWUSER", "user and group ids, capabilities", "user", True, "3.8",
             "user_namespaces(7)", "--user", "#D55E00", "house"),
        Kind("cgroup", 0x02000000, "CLONE_NEWCGROUP", "the root of the cgroup tree", "cgroup", False, "4.6",
             "cgroup_namespaces(7)", "--cgroup", "#CC79A7", "component"),
        Kind("time", 0x00000080, "CLONE_NEWTIME", "monotonic and boot clocks", "time_for_children", False, "5.6",
             "time_namespaces(7)", "--time", "#000000", "octagon"),
    )
}  # fmt: skip


def flags_of(kinds: tuple[str, ...]) -> int:
    """The CLONE_NEW* bits of these kinds, in one int."""
    value = 0
    for kind in kinds:
        value |= KINDS[kind].flag
    return value


class NamespaceId(NamedTuple):
    """What identifies a live namespace: device and inode number of its file in nsfs. Inodes are reused once it is gone."""

    dev: int
    ino: int


class IdRange(NamedTuple):
    """One line of /proc/PID/uid_map: ``count`` ids from ``inside`` on are the ids from ``outside`` on, outside."""

    inside: int
    outside: int
    count: int  # type: ignore[assignment]  # tuple.count() is hidden, and not missed


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/PID/mountinfo, octal escapes undone; paths keep undecodable bytes as surrogates."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    peers: Mapping[str, int]
    fstype: str
    source: str
    super_options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The part of /proc/PID/stat that nslab uses; ``start`` is in clock ticks since boot."""

    pid: int
    name: str
    state: str
    ppid: int
    pgrp: int
    session: int
    start: int


@dataclass(frozen=True, slots=True)
class Membership:
    """A process and the namespaces that it is in: ``kinds`` maps each kind to its id; ``own`` are those not the machine's."""

    title: str
    pid: int
    kinds: Mapping[str, NamespaceId]
    own: tuple[str, ...]
    borrowed: tuple[str, ...] = ()
    facts: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NamespaceMap:
    """Who is in which namespace: the machine's own ids, and any number of processes beside it."""

    machine: Mapping[str, NamespaceId]
    members: tuple[Membership, ...]
