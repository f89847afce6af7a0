"""What is in an IPC namespace, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Protocol, overload

from nslab import procfs
from nslab.errors import SyscallError
from nslab.model import IpcObject, tables
from nslab.ops import Context, Unshare
from nslab.ops.visits import queues

_SORTS = {"shm": "shared memory", "sem": "semaphores", "msg": "message queue", "mq": "POSIX message queue"}
_NOTHING = "(nothing in this IPC namespace)"


class Inside(Protocol):
    """A container or a steered process."""

    def ipc(self) -> Objects: ...


class Objects(Sequence[IpcObject]):
    """The objects of one IPC namespace, shown as a table; ``unseen`` says what could not be looked at, and why."""

    def __init__(self, objects: Sequence[IpcObject], unseen: str = ""):
        self._objects = tuple(objects)
        self.unseen = unseen

    @overload
    def __getitem__(self, index: int) -> IpcObject: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[IpcObject]: ...
    def __getitem__(self, index: int | slice) -> IpcObject | Sequence[IpcObject]:
        return self._objects[index]

    def __len__(self) -> int:
        return len(self._objects)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        yield "object", "key or name", "id", "owner", "permissions", "holds"
        for each in self._objects:
            number = str(each.id) if each.id >= 0 else ""
            called = each.name or (f"{each.key:#x}" if each.key else "private")
            yield _SORTS[each.sort], called, number, f"uid {each.uid}", f"{each.mode:03o}", _holds(each)

    def __str__(self) -> str:
        shown = tables.text(list(self._rows())) if self._objects else _NOTHING
        return "\n".join([shown, *[self.unseen] * bool(self.unseen)])

    def __repr__(self) -> str:
        return f"<Objects: {len(self)} in this IPC namespace>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        table = tables.html(list(self._rows())) if self._objects else f"<div>{_NOTHING}</div>"
        return {"text/plain": str(self), "text/html": table + (f"<div>{escape(self.unseen)}</div>" if self.unseen else "")}


def objects(inside: Inside | None = None) -> Objects:
    """What is in the IPC namespace of a container or steered process, or of the calling process."""
    return inside.ipc() if inside is not None else look()


def look(alone: bool = False) -> Objects:
    """The same of the calling process. ``alone``: it is there for this only, and may take a mount table of its own."""
    try:
        if alone:
            Unshare(("mnt",)).execute(Context({}, {}))
        return Objects([*procfs.system_v(), *queues()])
    except SyscallError as error:
        why = f"POSIX message queues cannot be seen from here: {error.call} failed with {error.name}"
        return Objects(procfs.system_v(), why)


def _holds(each: IpcObject) -> str:
    if each.sort == "shm":
        return f"{each.size} bytes, attached {each.count} times"
    if each.sort == "sem":
        return f"{each.size} semaphores"
    return f"{each.size} bytes" + (f" in {each.count} messages" if each.count >= 0 else "")
