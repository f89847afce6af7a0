"""The interfaces of a network namespace."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.ops.base import Context, Op


@dataclass(frozen=True)
class SetUp(Op):
    """Turn an interface on. With "lo" come 127.0.0.1 and ::1: a new network namespace has it turned off."""

    interface: str = "lo"
    changes: ClassVar[str] = "net"

    def perform(self, context: Context) -> None:
        syscalls.set_interface_flags(self.interface, syscalls.IFF_UP)

    def describe(self) -> str:
        return f"turn the interface {self.interface} on"

    def shell(self) -> str:
        return f"ip link set {shlex.quote(self.interface)} up"
