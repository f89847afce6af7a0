"""What is left in an IPC namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.ops.base import Context, Op


@dataclass(frozen=True)
class RemoveObjects(Op):
    """Remove every System V object of an IPC namespace, which has to be one's own."""

    changes: ClassVar[str] = "ipc"

    def perform(self, context: Context) -> None:
        syscalls.remove_all()

    def describe(self) -> str:
        return "remove what is left in the IPC namespace"

    def shell(self) -> str:
        return "ipcrm --all"
