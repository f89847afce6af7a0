"""Who the process is."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from nslab import procfs, syscalls
from nslab.model import IdRange
from nslab.ops.base import Context, Op
from nslab.ops.spaces import IdMaps


def as_one_command(script: str) -> str:
    """A script of several lines as one command."""
    return f"sh -c {shlex.quote(script)}" if "\n" in script else script


@dataclass(frozen=True)
class SetIds(Op):
    """Become another user: groups first, then gid, then uid, since the last takes away the right to do the others.

    Where /proc/self/setgroups says deny the groups stay as they are; ``denied`` tells it to the script, and to a process that
    has a /proc of another PID namespace.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    denied: bool = False

    def perform(self, context: Context) -> None:
        if self.denied or (os.access("/proc/self/setgroups", os.R_OK) and procfs.setgroups() == "deny"):
            if os.getgid() != self.gid:
                syscalls.setresgid(self.gid, self.gid, self.gid)
        else:
            syscalls.setgroups(self.groups)
            syscalls.setresgid(self.gid, self.gid, self.gid)
        syscalls.setresuid(self.uid, self.uid, self.uid)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root, and no map can be written

    def describe(self) -> str:
        return f"become uid {self.uid}, gid {self.gid}, groups {list(self.groups)}"

    def shell(self) -> str:
        groups = f"--groups {','.join(map(str, self.groups))}" if self.groups else "--clear-groups"
        groups = "--keep-groups" if self.denied else groups
        return f"setpriv --reuid {self.uid} --regid {self.gid} {groups}"

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} {as_one_command(inner)}"


@dataclass(frozen=True)
class BecomeRoot(Op):
    """Be uid 0 and gid 0 of this user namespace, where they are mapped and one is not there yet.

    ``maps`` are its maps, for a process that may not find itself in the /proc that it sees: that of another PID namespace.
    """

    maps: IdMaps | None = None

    def perform(self, context: Context) -> None:
        if not context.root and os.getuid() != 0 and self._mapped("uid"):
            if os.getgid() != 0 and self._mapped("gid"):
                if (self.maps.setgroups if self.maps else procfs.setgroups()) != "deny":
                    syscalls.setgroups(())
                syscalls.setresgid(0, 0, 0)
            syscalls.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)

    def _mapped(self, which: str) -> bool:
        lines: tuple[IdRange, ...] = getattr(self.maps, which) if self.maps else procfs.id_map("self", which)
        return any(line.inside == 0 for line in lines)

    def describe(self) -> str:
        return "be root of the new user namespace"

    def shell(self) -> str:
        return ": be uid 0 of the user namespace, as nsenter and unshare are"

    def wrap(self, inner: str) -> str:
        return inner  # unshare --map-root-user and nsenter --user do it by themselves
