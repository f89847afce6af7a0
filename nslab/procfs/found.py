"""What a walk over /proc finds, as the kernel wrote it, until somebody makes a Snapshot of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nslab import procfs
from nslab.model import KINDS

_ENCODING = sys.getfilesystemencoding()

RawLinks = tuple[bytes | None, ...]


def plain(text: bytes) -> str:
    """As os.fsdecode, in a quarter of its time."""
    return text.decode(_ENCODING, "surrogateescape")


def inode(link: str) -> int:
    """The number in the text of a link such as "uts:[4026531838]"."""
    return int(link[link.index("[") + 1 : -1])


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


class Table(NamedTuple):
    """The mounts of a mount namespace: mountinfo as its oldest member that lets itself be read, ``pid``, sees it."""

    start: int
    pid: int
    text: bytes


class Said(NamedTuple):
    """What the kernel said of the namespace that ``pid`` is in: its number, 0 where there are none, and the device and inode of
    its owner, None when that is out of sight.
    """

    pid: int
    number: int
    owner: tuple[int, int] | None


@dataclass
class Walk:
    """What was found. ``said`` has those without parents that could be asked, by the texts of their links; ``refused`` are the
    processes whose links, ``closed`` those whose descriptors may not be read.
    """

    own: RawLinks
    commands: bool
    rows: list[tuple[Any, ...]] = field(default_factory=list)  # what a Raw is made of
    processes: list[Raw] = field(default_factory=list)  # all, in order, once it is finished
    references: list[Reference] = field(default_factory=list)
    mounts: dict[str, Table] = field(default_factory=dict)
    sockets: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # a process that has each, and as which descriptor
    claims: list[tuple[int, int, str]] = field(default_factory=list)  # PID, descriptor, and what is said there: "lab ring"
    said: dict[str, Said] = field(default_factory=dict)
    refused: int = 0
    closed: int = 0
    vanished: int = 0
    texts: dict[RawLinks, tuple[str | None, ...]] = field(default_factory=dict)

    def groups(self) -> dict[tuple[str | None, ...], list[int]]:
        """The PIDs of those that are in the same namespaces of all kinds."""
        found: dict[tuple[str | None, ...], list[int]] = {}
        for pid, *_, links, _, _ in self.rows:
            found.setdefault(links, []).append(pid)
        return found

    def told(self, links: RawLinks) -> tuple[str | None, ...]:
        """Those of the kinds as text, the same object for all who are in the same namespaces."""
        texts = tuple(None if link is None else plain(link) for link in links[: len(KINDS)])
        return self.texts.setdefault(links, texts)

    def finish(self, root: str = "/proc") -> None:
        """Once all are looked at: put them in order, and take what mounts hold."""
        self.processes = [*map(Raw._make, sorted(self.rows))]
        for table in self.mounts.values():
            if b" - nsfs " in table.text:
                self.references += _held(table, root)

    def values(self) -> tuple[Any, ...]:
        """As values that marshal knows, for ``add``."""
        references = [tuple(each) for each in self.references]
        mounts = {link: tuple(table) for link, table in self.mounts.items()}
        said = {link: tuple(each) for link, each in self.said.items()}
        return (self.rows, references, mounts, said, self.sockets, self.claims, self.refused, self.closed, self.vanished)

    def add(self, other: tuple[Any, ...]) -> None:
        """What another process has found in its pieces of the same walk."""
        rows, references, mounts, said, sockets, claims, refused, closed, vanished = other
        self.rows += rows
        self.references += map(Reference._make, references)
        for link, table in mounts.items():
            self.mounts[link] = min(self.mounts.get(link, Table._make(table)), Table._make(table))
        self.said = {link: Said._make(each) for link, each in said.items()} | self.said
        self.sockets = {**sockets, **self.sockets}
        self.claims += claims
        self.refused, self.closed, self.vanished = self.refused + refused, self.closed + closed, self.vanished + vanished


def _held(table: Table, root: str) -> Iterator[Reference]:
    for line in table.text.split(b"\n"):
        if b" - nsfs " in line:
            mount = procfs.parse_mount(line)
            yield Reference(mount.root, "mount", table.pid, mount.target, f"{root}/{table.pid}/root{mount.target}")
