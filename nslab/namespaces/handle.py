"""A handle on one namespace."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from nslab import procfs
from nslab.errors import DeadNamespace, SpecError, SyscallError
from nslab.model import KINDS, IdMap, NamespaceId
from nslab.namespaces import joining, numbering
from nslab.namespaces.entering import Enterable
from nslab.ops import spec
from nslab.spawner import Descriptor
from nslab.syscalls import nsfs

_handles: weakref.WeakValueDictionary[int, Namespace] = weakref.WeakValueDictionary()  # equal ones are each an owner


def is_held(kind: str, identity: NamespaceId) -> bool:
    """Whether a handle that is open in this process keeps this namespace alive."""
    return any((each.kind, each.id) == (kind, identity) and each._descriptor.is_open for each in list(_handles.values()))


class Namespace(Enterable):
    """One namespace, held open by a descriptor: as long as this object is not closed, the namespace lives.

    ``kind`` is a name of KINDS, ``id`` its device and inode number (a NamespaceId). ``run``, ``popen`` and ``call`` join it,
    also when nothing but this descriptor holds it.
    """

    def __init__(self, kind: str, descriptor: Descriptor, path: str = ""):
        info = os.fstat(descriptor.fileno())
        self.kind = kind
        self.id = NamespaceId(info.st_dev, info.st_ino)
        self._descriptor = descriptor
        _handles[id(self)] = self
        self._path = path

    @classmethod
    def of(cls, pid: int | str, kind: str) -> Namespace:
        """The namespace of this kind that process ``pid`` ("self" too) is in.

        DeadNamespace when there is no such process, PermissionError when it may not be looked at. namespaces(7)
        """
        if not isinstance(kind, str) or kind not in KINDS:
            raise SpecError("kind", f"{kind!r} is none of {', '.join(KINDS)}")
        try:
            path = f"/proc/{os.getpid() if pid == 'self' else pid}/ns/{kind}"
            return cls(kind, Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC)), path)
        except (FileNotFoundError, ProcessLookupError):
            raise DeadNamespace(f"there is no process {pid} (any more), or this kernel has no {kind} namespaces.") from None

    def fileno(self) -> int:
        return self._descriptor.fileno()

    @property
    def owner(self) -> Namespace | None:
        """The user namespace that owns it; None when that lies above one's own. ioctl_ns(2)"""
        try:
            return Namespace("user", Descriptor(nsfs.ns_get_userns(self.fileno())))
        except SyscallError as error:
            _out_of_sight(error)
            return None

    @property
    def parent(self) -> Namespace | None:
        """The parent, for user and pid; None for the other kinds, for the initial one and where it is out of sight."""
        if not KINDS[self.kind].hierarchical:
            return None
        try:
            return Namespace(self.kind, Descriptor(nsfs.ns_get_parent(self.fileno())))
        except SyscallError as error:
            _out_of_sight(error)
            return None

    def ancestors(self) -> list[Namespace]:
        """Its parent, the parent of that, and so on (user and pid), as far up as can be seen."""
        parent = self.parent
        return [parent, *parent.ancestors()] if parent else []

    def pid_inside(self, pid: int) -> int | None:
        """The PID that process ``pid`` of ours has in this PID namespace; None when it is not seen there, or has ended."""
        return numbering.pid_inside(self._of_kind("pid"), spec.number("pid", pid, 1, spec.MAX_PID))

    def pid_outside(self, pid: int) -> int | None:
        """The PID, as this process numbers it, of process ``pid`` of this PID namespace; None when there is none."""
        return numbering.pid_outside(self._of_kind("pid"), spec.number("pid", pid, 1, spec.MAX_PID))

    @property
    def uid_map(self) -> IdMap:
        """The uid map of a user namespace, outside as this process numbers uids: ``uid_map.outside(0)``, ``.inside(1000)``.

        Read from a member; where there is none to be seen, a process enters it for that (SyscallError when it may not).
        """
        return numbering.id_map(self._of_kind("user"), "uid")

    @property
    def gid_map(self) -> IdMap:
        """The gid map, as ``uid_map``."""
        return numbering.id_map(self._of_kind("user"), "gid")

    def _of_kind(self, kind: str) -> Namespace:
        if self.kind != kind:
            raise SpecError("kind", f"this is a {self.kind} namespace; only one of kind {kind} numbers these")
        return self

    @property
    def owner_uid(self) -> int | None:
        """For a user namespace: the uid that made it. None for the other kinds."""
        return nsfs.ns_get_owner_uid(self.fileno()) if self.kind == "user" else None

    def path(self) -> str:
        """A path in /proc by which others reach it: of a member that can be seen, else of this very handle while it is open."""
        with contextlib.suppress(OSError):
            if self._path and os.path.samestat(os.stat(self._path), os.fstat(self.fileno())):
                return self._path
        return next((f"/proc/{pid}/ns/{self.kind}" for pid in self._members()), f"/proc/{os.getpid()}/fd/{self.fileno()}")

    def members(self) -> list[int]:
        """The PIDs of the processes in it, as far as this user may see."""
        return sorted(self._members())

    def _members(self) -> Iterator[int]:
        for pid in procfs.pids():
            try:
                if procfs.namespace(pid, self.kind) == self.id:
                    yield pid
            except OSError:  # gone, or not ours to look at
                continue

    def joinable(self) -> joining.Target:
        """What others join of it."""
        return joining.of_namespace(self)

    def joins(self) -> Mapping[str, Any]:
        return {self.kind: self}

    @property
    def alive(self) -> bool:
        return self._descriptor.is_open

    def hold(self) -> Namespace:
        """A second handle, which keeps the namespace alive on its own."""
        return Namespace(self.kind, Descriptor(os.dup(self.fileno())), self._path)

    def close(self) -> None:
        """Let go of it; it vanishes when nothing else holds it."""
        self._descriptor.close()

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Namespace) and (self.kind, self.id) == (other.kind, other.id)

    def __hash__(self) -> int:
        return hash((self.kind, self.id))

    def __str__(self) -> str:
        return f"{self.kind}:[{self.id.ino}]"

    @property
    def closed(self) -> bool:
        """Whether it was let go of: then its number may be that of another namespace by now."""
        return self._descriptor.closed

    def __repr__(self) -> str:
        return f"<Namespace {self}{', closed' if self.closed else ''}>"

    def row(self) -> str:
        """A row of an HTML table: what it is, whose it is, and who is in it."""
        kind, cells = KINDS[self.kind], [f"<b>{self}</b>"]
        if not self._descriptor.closed:
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                owner = stack.enter_context(found) if (found := self.owner) else "out of sight"
                cells.append(f"owner: {owner}")
            pids = self.members()
            shown = ", ".join(map(str, pids[:8])) + (f" and {len(pids) - 8} more" if len(pids) > 8 else "")
            cells.append(f"members: {shown or 'none, a descriptor holds it'}")
        else:
            cells.append("this handle is closed")
        mark = f'<td style="border-left:6px solid {kind.colour};text-align:left">'
        return f"<tr>{mark}{'</td><td style=text-align:left>'.join(cells)}</td></tr>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": f"<table>{self.row()}</table>"}


def _out_of_sight(error: SyscallError) -> None:
    """EPERM is the kernel's way to say that there is nothing, or nothing that one may see."""
    if error.name != "EPERM":
        raise error
