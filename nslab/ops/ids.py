"""Who the process is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nslab import procfs, syscalls
from nslab.ops.base import Context, Op
from nslab.syscalls import guard


@dataclass(frozen=True)
class SetIds(Op):
    """Become another user: groups first, then gid, then uid, since the last takes away the right to do the others.

    Where /proc/self/setgroups says deny the groups stay as they are; ``denied`` tells the script that it does.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    denied: bool = False

    def perform(self, context: Context) -> None:
        if os.access("/proc/self/setgroups", os.R_OK) and procfs.setgroups() == "deny":
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
        if "\n" in inner:
            import shlex

            inner = f"sh -c {shlex.quote(inner)}"
        return f"{self.shell()} {inner}"


@dataclass(frozen=True)
class BecomeRoot(Op):
    """Be uid 0 and gid 0 of this user namespace, where they are mapped and one is not there yet."""

    def prepare(self, context: Context) -> list[guard.Prepared] | None:
        return [] if context.root else None

    def perform(self, context: Context) -> None:
        if os.getuid() != 0 and _mapped("uid"):
            if os.getgid() != 0 and _mapped("gid"):
                if procfs.setgroups() != "deny":
                    syscalls.setgroups(())
                syscalls.setresgid(0, 0, 0)
            syscalls.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)

    def describe(self) -> str:
        return "be root of the new user namespace"

    def shell(self) -> str:
        return ": be uid 0 of the user namespace, as nsenter and unshare are"

    def wrap(self, inner: str) -> str:
        return inner  # unshare --map-root-user and nsenter --user do it by themselves


def _mapped(which: str) -> bool:
    return any(line.inside == 0 for line in procfs.id_map("self", which))
