"""What was seen of the namespaces of a machine at one moment: a Snapshot, frozen, JSON out and in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape

from nslab.model import IdMap, InterfaceState, IpcObject, Mount, NamespaceId, Route, tables
from nslab.model.plain import from_json, must_be_kinds, to_plain
from nslab.model.words import readable


@dataclass(frozen=True, slots=True)
class Holder:
    """What keeps a namespace alive besides the processes that are in it.

    ``sort`` is thread (``detail``: its id), descriptor (its number), socket (its number too, where nothing else leads to its
    network), mount (the path of a bind mount, as process ``pid`` sees it), children (new children of ``pid`` will be in it),
    parent or owner (a namespace below it or of it; ``detail`` names it, ``pid`` is 0), or kernel (only that knows: a descriptor
    on its way, say).
    """

    sort: str
    pid: int
    detail: str

    def __str__(self) -> str:
        return f"{self.sort} {self.detail}".rstrip() + (f" of process {self.pid}" if self.pid else "")


@dataclass(frozen=True, slots=True)
class UtsContent:
    """The names that a UTS namespace has. uts_namespaces(7)"""

    host_name: str
    domain_name: str


@dataclass(frozen=True, slots=True)
class UserContent:
    """The id maps of a user namespace, outside as the reader numbers ids; ``setgroups`` is allow or deny."""

    uid_map: IdMap
    gid_map: IdMap
    setgroups: str


@dataclass(frozen=True, slots=True)
class TimeContent:
    """What a time namespace adds to the clocks, in seconds. time_namespaces(7)"""

    monotonic: float
    boottime: float


@dataclass(frozen=True, slots=True)
class MountContent:
    """The mounts of a mount namespace, as they are below the root of ``seen_by``, the member from whose /proc they were read;
    0 for a visitor, who has the root of the namespace.
    """

    mounts: Sequence[Mount]
    seen_by: int


@dataclass(frozen=True, slots=True)
class IpcContent:
    """System V objects and POSIX message queues."""

    objects: tuple[IpcObject, ...]


@dataclass(frozen=True, slots=True)
class CgroupContent:
    """The cgroup that members see as "/", by hierarchy ("" is cgroup v2), as the reader sees it."""

    roots: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SeenInterface:
    """An interface. ``peer_network`` is the network namespace of the other end of a veth pair (whose index is
    ``state.peer``), None when it has none or that is not known. ``rate`` in bits a second, ``delay`` in microseconds, ``loss``
    in percent: how what leaves by it is slowed down; 0: not at all.
    """

    state: InterfaceState
    peer_network: NamespaceId | None = None
    rate: int = 0
    delay: int = 0
    loss: float = 0.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that waits for others: ``protocol`` is tcp or udp, ``address`` "0.0.0.0" and "::" for any."""

    protocol: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class NetContent:
    """Interfaces by index, the routes of the main table, and the ports at which somebody listens."""

    interfaces: tuple[SeenInterface, ...]
    routes: tuple[Route, ...]
    listening: tuple[Listener, ...]


Content = UtsContent | UserContent | TimeContent | MountContent | IpcContent | CgroupContent | NetContent


@dataclass(frozen=True, slots=True)
class SeenNamespace:
    """One namespace.

    ``number`` is what the kernel never gives to another one (Linux 6.18; else 0), ``identity`` tells it from a later one with
    the same inode. ``owner`` is the user namespace that owns it, ``owner_uid`` the uid, as the reader numbers users, that made
    that (of a user namespace: that made itself); ``parent`` is for user and pid; each None when out of sight. ``members`` are
    PIDs, ``leader`` the first of them, 0 for none. ``holders`` keep it alive besides. ``belongs`` says whose it is as far as
    that can be told ("container web", "lab ring", "docker 4f2a..."), "" for nobody's. ``content`` is what it isolates, None
    when that was not looked at; what a pid namespace numbers is told by the processes.
    """

    kind: str
    id: NamespaceId
    number: int
    identity: str
    owner: NamespaceId | None
    owner_uid: int | None
    parent: NamespaceId | None
    members: tuple[int, ...]
    leader: int
    holders: tuple[Holder, ...] = ()
    belongs: str = ""
    content: Content | None = None

    def __str__(self) -> str:
        return f"{self.kind}:[{self.id.ino}]"


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """One process.

    ``start`` is in clock ticks since boot, which with the PID tells it from a later one; ``state`` as in proc_pid_stat(5), "Z"
    for a zombie; ``command`` its command line, empty for a ``kernel`` thread and a zombie. ``exe`` is the path of its program,
    "" where that may not be read; ``exe_deleted``: that is gone. ``kinds`` has the namespaces that could be read, ``pids`` its
    PIDs from the PID namespace of the reader down to its own. ``cgroup`` is its place in cgroup v2, or in the first of v1.
    """

    pid: int
    ppid: int
    name: str
    state: str
    start: int
    uid: int
    command: tuple[str, ...]
    exe: str
    exe_deleted: bool
    kernel: bool
    kinds: Mapping[str, NamespaceId]
    pids: tuple[int, ...]
    cgroup: str = ""
    belongs: str = ""

    def title(self) -> str:
        """Its command line, or its name in brackets, as ps(1) has it."""
        return " ".join(self.command).rstrip() or f"[{self.name}]"


@dataclass(frozen=True, slots=True)
class Unseen:
    """What could not be looked at: ``what``, how many (``count``, 0 when that is not known), and ``why``."""

    what: str
    count: int
    why: str

    def __str__(self) -> str:
        return f"{f'{self.count} ' if self.count else ''}{self.what}: {self.why}"


@dataclass(frozen=True)
class Snapshot:
    """Every namespace that could be seen, with the processes; see ``discover()``.

    ``taken`` is a time as of time.time(), ``scope`` what it is of ("the machine", "container web"), ``machine`` the namespaces
    of whoever looked, ``reader`` the PID of that. ``unseen`` says what is missing, and why; ``vanished`` is the number of
    processes that ended while they were looked at.
    """

    taken: float
    scope: str
    reader: int
    machine: Mapping[str, NamespaceId]
    namespaces: tuple[SeenNamespace, ...]
    processes: tuple[SeenProcess, ...]
    unseen: tuple[Unseen, ...] = ()
    vanished: int = 0
    version: int = field(default=1)

    @property
    def partial(self) -> bool:
        """Whether something is missing; ``unseen`` says what."""
        return bool(self.unseen)

    @cached_property
    def by_id(self) -> Mapping[NamespaceId, SeenNamespace]:
        """The namespaces by their id."""
        return {each.id: each for each in self.namespaces}

    @cached_property
    def by_pid(self) -> Mapping[int, SeenProcess]:
        """The processes by their PID."""
        return {each.pid: each for each in self.processes}

    def of_kind(self, kind: str) -> tuple[SeenNamespace, ...]:
        """The namespaces of one kind."""
        return tuple(each for each in self.namespaces if each.kind == kind)

    def owned_by(self, owner: NamespaceId) -> tuple[SeenNamespace, ...]:
        """What a user namespace owns, user namespaces below it left out."""
        return tuple(each for each in self.namespaces if each.owner == owner and each.kind != "user")

    def below(self, parent: NamespaceId) -> tuple[SeenNamespace, ...]:
        """The children of a user or PID namespace."""
        return tuple(each for each in self.namespaces if each.parent == parent)

    def to_json(self) -> str:
        """As text that ``from_json`` reads; bytes that are no UTF-8 are escaped as lone surrogates, and come back."""
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """ValueError for what is no snapshot, or one that another nslab wrote, and this one cannot read."""
        made: Snapshot = from_json(cls, text)
        must_be_kinds(kind for each in made.processes for kind in each.kinds)
        must_be_kinds(each.kind for each in made.namespaces)
        return made

    def rows(self) -> list[tuple[str, ...]]:
        """A table of the namespaces."""
        table: list[tuple[str, ...]] = [("namespace", "members", "leader", "owner", "parent", "belongs to", "held by")]
        for each in self.namespaces:
            leader = self.by_pid.get(each.leader)
            table.append(
                (
                    str(each), str(len(each.members)), f"{leader.pid} {readable(leader.title())}" if leader else "-",
                    _inode(each.owner), _inode(each.parent), readable(each.belongs), held_by(each.holders),
                )
            )  # fmt: skip
        return table

    def __str__(self) -> str:
        rows = [tuple(cell if len(cell) <= _WIDEST else cell[: _WIDEST - 1] + "…" for cell in row) for row in self.rows()]
        return "\n".join([tables.text(rows), *(f"not seen: {each}" for each in self.unseen)])

    def __repr__(self) -> str:
        more = f", {len(self.unseen)} things not seen" if self.unseen else ""
        return f"<Snapshot of {self.scope}: {len(self.namespaces)} namespaces, {len(self.processes)} processes{more}>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        said = "".join(f"<div>not seen: {escape(readable(str(each)))}</div>" for each in self.unseen)
        return {"text/plain": str(self), "text/html": tables.html(self.rows()) + said}


_WIDEST = 60


def held_by(holders: Iterable[Holder]) -> str:
    """The first of them in words, and how many more there are."""
    found = list(holders)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return readable(str(found[0])) + more if found else ""


def _inode(identity: NamespaceId | None) -> str:
    return str(identity.ino) if identity else "-"
