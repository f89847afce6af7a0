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


NO_ID = 2**32 - 1  # what a map shows for an id that has no number where it is read


class IdRange(NamedTuple):
    """One line of /proc/PID/uid_map: ``count`` ids from ``inside`` on are the ids from ``outside`` on, outside."""

    inside: int
    outside: int
    count: int  # type: ignore[assignment]  # tuple.count() is hidden, and not missed


@dataclass(frozen=True, slots=True)
class IdMap:
    """A uid or gid map as it was read back; ``outside`` are ids as the process that read it numbers them.

    It has no lines as long as nothing has been written. user_namespaces(7)
    """

    lines: tuple[IdRange, ...]

    def outside(self, number: int) -> int | None:
        """The id outside that ``number`` inside stands for; None when it is not mapped."""
        found = (line for line in self.lines if line.inside <= number < line.inside + line.count)
        return next((line.outside + number - line.inside for line in found if line.outside != NO_ID), None)

    def inside(self, number: int) -> int | None:
        """The id inside by which ``number`` outside is known; None when it is not mapped, and seen as 65534."""
        found = (line for line in self.lines if line.outside <= number < line.outside + line.count)
        return next((line.inside + number - line.outside for line in found if line.outside != NO_ID), None)

    def __str__(self) -> str:
        rows = [("inside", "outside", "count"), *(tuple(map(str, line)) for line in self.lines)]
        return "\n".join(" ".join(f"{cell:>10}" for cell in row) for row in rows)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        cells = ["".join(f'<td style="text-align:right">{cell}</td>' for cell in row.split()) for row in str(self).split("\n")]
        return {"text/plain": str(self), "text/html": f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"}


# By number: CAPABILITIES[21] is "CAP_SYS_ADMIN". capabilities(7)
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
    "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
    "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capability sets of a process, by name. They count in its user namespace ``user`` and for what that owns, only.

    ``own`` says that this is not the user namespace of whoever looks: out there the process holds nothing. capabilities(7)
    """

    effective: frozenset[str]
    permitted: frozenset[str]
    inheritable: frozenset[str]
    bounding: frozenset[str]
    ambient: frozenset[str]
    user: NamespaceId
    own: bool

    def rows(self) -> list[tuple[str, str]]:
        """Each set with its members in words."""
        return [(name, _members(getattr(self, name))) for name in CAPABILITY_SETS]

    def _where(self) -> str:
        place = f"user:[{self.user.ino}]"
        return f"counts in {place} and for what it owns{': nothing of it outside' if self.own else ', as everybody here'}"

    def __str__(self) -> str:
        return "\n".join([*(f"{name:12} {members}" for name, members in self.rows()), self._where()])

    __repr__ = __str__

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        left = 'style="text-align:left"'
        rows = "".join(f"<tr><td {left}><b>{name}</b></td><td {left}>{text}</td></tr>" for name, text in self.rows())
        return {"text/plain": str(self), "text/html": f"<table>{rows}</table><div>{self._where()}</div>"}


CAPABILITY_SETS: Mapping[str, str] = {
    "effective": "CapEff", "permitted": "CapPrm", "inheritable": "CapInh", "bounding": "CapBnd", "ambient": "CapAmb",
}  # fmt: skip


def _members(names: frozenset[str]) -> str:
    missing = [name for name in CAPABILITIES if name not in names]
    if not missing:
        return f"all {len(CAPABILITIES)}"
    if 0 < len(missing) < len(names):
        return f"all but {', '.join(missing)}"
    return ", ".join(name for name in CAPABILITIES if name in names) or "none"


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


@dataclass(frozen=True, slots=True)
class IpcObject:
    """A System V object or a POSIX message queue. ``sort`` is shm, sem, msg or mq.

    ``key`` and ``id`` are those of System V, ``name`` that of a POSIX queue (else ""). ``size`` is in bytes (shm: of the
    segment, msg and mq: of what waits) or the number of semaphores; ``count`` how many processes have a segment attached, or
    how many messages wait (-1: not told). ``mode`` has the permissions, ``uid`` the owner as the reader numbers users.
    """

    sort: str
    key: int
    id: int
    name: str
    mode: int
    uid: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What an interface has carried since it was made, in packets and bytes, received and sent."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """One interface at one moment.

    ``kind`` is veth, bridge, loopback and so on; ``up`` that it was turned on, ``carrier`` that the other side is too;
    ``master`` the index of its bridge, ``peer`` that of the other end (which may be in another namespace) or of what it lies
    upon, 0 for none; ``addresses`` with their prefix.
    """

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: int
    peer: int
    addresses: tuple[str, ...]
    counters: Counters


@dataclass(frozen=True, slots=True)
class Route:
    """One route: ``to`` a subnet or "default"; ``via`` a router, "" when it is on the wire; ``index`` of the interface."""

    to: str
    version: int
    via: str
    index: int
    source: str
    metric: int
    kind: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Which ``mac`` an address on the wire has, "" as long as that is not known; ``state`` as ip-neighbour(8) names it."""

    address: str
    mac: str
    index: int
    state: str
