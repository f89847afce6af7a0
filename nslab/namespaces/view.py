"""The namespaces of a live process, by kind, opened when asked for."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

from nslab.errors import DeadNamespace, NoSuchKind
from nslab.model import KINDS, Membership, NamespaceId
from nslab.namespaces.handle import Namespace
from nslab.spawner import Descriptor

Found = TypeVar("Found")


def no_such_kind(kind: object, known: Collection[str]) -> NoSuchKind:
    """The error of a mapping that has only these kinds."""
    close = difflib.get_close_matches(str(kind).lower(), known, 1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return NoSuchKind("kind", f"{kind!r} is none of {', '.join(known)}{guess}")


class NamespacesOf(Mapping[str, Namespace]):
    """``view["uts"]`` is a handle on the process's UTS namespace, as it is now.

    The process is known by its pidfd, so that a reused number is never taken for it: DeadNamespace when it has ended.
    """

    def __init__(self, pid: int, pidfd: Callable[[], Descriptor | None]):
        self._pid = pid
        self._pidfd = pidfd

    def __getitem__(self, kind: str) -> Namespace:
        if kind not in KINDS:
            raise no_such_kind(kind, KINDS)
        namespace = Namespace.of(self._pid, kind)
        pidfd = self._pidfd()
        if pidfd is None or pidfd.readable():
            namespace.close()
            raise DeadNamespace(f"process {self._pid} has ended.")
        return namespace

    def __iter__(self) -> Iterator[str]:
        return (kind for kind in KINDS if os.path.exists(f"/proc/self/ns/{kind}"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def ids(self) -> dict[str, NamespaceId]:
        """The ids alone, holding nothing open."""
        found = {}
        for kind, namespace in self.items():
            with namespace:
                found[kind] = namespace.id
        return found

    def membership(self, title: str, borrowed: tuple[str, ...], facts: Mapping[str, str]) -> Membership:
        """What a picture shows of the process."""
        ids = self.ids()
        own = tuple(kind for kind, identity in ids.items() if identity != machine_ids().get(kind))
        return Membership(title, self._pid, ids, own, tuple(kind for kind in borrowed if kind in own), facts)

    def __repr__(self) -> str:
        return f"<namespaces of process {self._pid}: {', '.join(str(ns) for ns in self.values())}>"


def looked_up(reader: Callable[[int], Found], pid: int, pidfd: Descriptor | None) -> Found:
    """What a reader of /proc says of the process behind ``pidfd``, and of no other: DeadNamespace when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = reader(pid)
        if pidfd is not None and not pidfd.readable():
            return found
    raise DeadNamespace(f"process {pid} has ended.")


def machine_ids() -> dict[str, NamespaceId]:
    """The ids of the namespaces that this process, and so the machine as it sees it, is in."""
    from nslab import procfs

    return procfs.namespaces()
