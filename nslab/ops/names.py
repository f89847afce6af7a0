"""The names of a UTS namespace."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.ops.base import Context, Op

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclass(frozen=True)
class SetHostname(Op):
    name: str
    changes: ClassVar[str] = "uts"

    def perform(self, context: Context) -> None:
        syscalls.sethostname(os.fsencode(self.name))

    def describe(self) -> str:
        return f"set the host name to {self.name!r}"

    def shell(self) -> str:
        return _set("hostname", self.name)


@dataclass(frozen=True)
class SetDomainname(Op):
    name: str
    changes: ClassVar[str] = "uts"

    def perform(self, context: Context) -> None:
        syscalls.setdomainname(os.fsencode(self.name))

    def describe(self) -> str:
        return f"set the NIS domain name to {self.name!r}"

    def shell(self) -> str:
        return _set("domainname", self.name)


def _set(tool: str, name: str) -> str:
    if _PLAIN.fullmatch(name):
        return f"{tool} {name}"
    raw = os.fsencode(name)  # the tool is stricter than the kernel, and /proc/sys/kernel is root's
    return f"python3 -c {shlex.quote(f'import ctypes; ctypes.CDLL(None).set{tool}({raw!r}, {len(raw)})')}"
