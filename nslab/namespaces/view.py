"""What can be seen of a live process of ours: its namespaces by kind, opened when asked for, and what is in them."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from nslab import procfs
from nslab.errors import DeadNamespace, NoSuchKind
from nslab.model import KINDS, Capabilities, Membership, NamespaceId, NamespaceMap
from nslab.namespaces.clocks import Clocks, read_clocks
from nslab.namespaces.handle import Namespace
from nslab.spawner import Descriptor

if TYPE_CHECKING:
    from nslab.ipc import Objects

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


class Viewed:
    """Whatever one process of ours stands for, and so what can be seen of it. DeadNamespace when that has ended."""

    pid: int
    _lone: ClassVar[bool]  # whether each function that is called in it has a process of its own

    def _standing(self) -> Descriptor | None:
        """A pidfd of the process; None when it has ended."""
        raise NotImplementedError

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """The value of a function that is called inside."""
        raise NotImplementedError

    def membership(self) -> Membership:
        """What a picture shows of it."""
        raise NotImplementedError

    @property
    def namespaces(self) -> NamespacesOf:
        """The namespaces that it is in now, by kind; of a container those of its init: its own and the machine's."""
        return NamespacesOf(self.pid, self._standing)

    @property
    def pids(self) -> tuple[int, ...]:
        """Its PIDs (a container's are those of its init), one a level: as this process numbers it, ..., as its own does."""
        return self._looked_up(procfs.numbers)

    def capabilities(self) -> Capabilities:
        """Its capability sets by name, of a container those of its init, and where they count. capabilities(7)"""
        return self._looked_up(procfs.capability_sets)

    def _looked_up(self, reader: Callable[[int], Found]) -> Found:
        """What a reader of /proc says of this process, and of no other."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = reader(self.pid)
            if self.alive:
                return found
        raise DeadNamespace(f"process {self.pid} has ended.")

    @property
    def alive(self) -> bool:
        pidfd = self._standing()
        return pidfd is not None and not pidfd.readable()

    def namespace_map(self) -> NamespaceMap:
        """What nslab.draw() shows of it."""
        return NamespaceMap(machine_ids(), (self.membership(),))

    def clocks(self) -> Clocks:
        """Its clocks beside one's own: what the time namespace shifts, and what it does not."""
        return Clocks(lambda: self._call(read_clocks))

    def ipc(self) -> Objects:
        """What is in its IPC namespace: System V objects and POSIX message queues, as a table."""
        from nslab.ipc import look

        return self._call(look, (self._lone,))  # type: ignore[no-any-return]


def machine_ids() -> dict[str, NamespaceId]:
    """The ids of the namespaces that this process, and so the machine as it sees it, is in."""
    return procfs.namespaces()
