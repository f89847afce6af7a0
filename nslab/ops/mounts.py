"""Mounts, propagation and roots."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.ops.base import Context, Op

_OPTIONS = {"MS_RDONLY": "ro", "MS_NOSUID": "nosuid", "MS_NODEV": "nodev", "MS_NOEXEC": "noexec", "MS_NOATIME": "noatime"}


@dataclass(frozen=True)
class SetPropagation(Op):
    """Change how mounts travel between peers, for everything at and below ``target``."""

    propagation: str  # private, slave, shared or unbindable
    target: str = "/"
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        flags = syscalls.mount_flags("MS_REC", f"MS_{self.propagation.upper()}")
        syscalls.mount(None, self.target, None, flags)

    def describe(self) -> str:
        return f"make every mount below {self.target} {self.propagation}, so that no mount travels"

    def shell(self) -> str:
        return f"mount --make-r{self.propagation} {shlex.quote(self.target)}"


@dataclass(frozen=True)
class Mount(Op):
    """mount(2); ``flags`` are names of MS_* bits, ``data`` the options of the filesystem type."""

    source: str | None
    target: str
    fstype: str | None = None
    flags: tuple[str, ...] = ()
    data: str | None = None
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        syscalls.mount(self.source, self.target, self.fstype, syscalls.mount_flags(*self.flags), self.data)

    def describe(self) -> str:
        if "MS_BIND" in self.flags:
            return f"show {self.source} at {self.target} too (bind mount)"
        return f"mount {self.fstype or self.source} at {self.target}"

    def shell(self) -> str:
        words = ["mount"]
        for symbol, option in (("MS_REMOUNT", "remount"), ("MS_BIND", "--rbind" if "MS_REC" in self.flags else "--bind")):
            if symbol in self.flags:
                words += ["-o", option] if symbol == "MS_REMOUNT" else [option]
        for symbol in ("PRIVATE", "SLAVE", "SHARED", "UNBINDABLE"):
            if f"MS_{symbol}" in self.flags:
                words.append(f"--make-{'r' if 'MS_REC' in self.flags else ''}{symbol.lower()}")
        if "MS_MOVE" in self.flags:
            words.append("--move")
        options = [_OPTIONS[flag] for flag in self.flags if flag in _OPTIONS] + ([self.data] if self.data else [])
        words += ["-t", self.fstype] if self.fstype else []
        words += ["-o", ",".join(options)] if options else []
        words += [self.source] if self.source is not None else []
        return shlex.join([*words, self.target])


@dataclass(frozen=True)
class MountProc(Op):
    """A /proc of its own, which shows the PID namespace of whoever mounts it."""

    target: str = "/proc"
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        flags = syscalls.mount_flags("MS_NOSUID", "MS_NODEV", "MS_NOEXEC")
        syscalls.mount("proc", self.target, "proc", flags)

    def describe(self) -> str:
        return f"mount a /proc at {self.target} that shows this PID namespace"

    def shell(self) -> str:
        return f"mount -t proc -o nosuid,nodev,noexec proc {shlex.quote(self.target)}"


@dataclass(frozen=True)
class Umount(Op):
    target: str
    detach: bool = False
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        syscalls.umount2(self.target, 2 if self.detach else 0)

    def describe(self) -> str:
        return f"take the mount off {self.target}"

    def shell(self) -> str:
        return shlex.join(["umount", *(["--lazy"] if self.detach else []), self.target])


@dataclass(frozen=True)
class PivotRoot(Op):
    new_root: str
    put_old: str
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        syscalls.pivot_root(self.new_root, self.put_old)

    def describe(self) -> str:
        return f"make {self.new_root} the root, and put the old one at {self.put_old}"

    def shell(self) -> str:
        return shlex.join(["pivot_root", self.new_root, self.put_old])


@dataclass(frozen=True)
class Chroot(Op):
    path: str

    def perform(self, context: Context) -> None:
        syscalls.chroot(self.path)

    def describe(self) -> str:
        return f"change the root directory to {self.path}"

    def shell(self) -> str:
        return f"chroot {shlex.quote(self.path)}"

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} sh -c {shlex.quote(inner)}"


@dataclass(frozen=True)
class Chdir(Op):
    path: str

    def perform(self, context: Context) -> None:
        syscalls.chdir(self.path)

    def describe(self) -> str:
        return f"change the working directory to {self.path}"

    def shell(self) -> str:
        return f"cd {shlex.quote(self.path)}"
