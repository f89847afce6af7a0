"""A root filesystem: what is mounted in it before it becomes the root, its /dev, and the change to it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.ops.base import Context, Op
from nslab.ops.mounts import Mount
from nslab.ops.places import NEW_FILE, find, make, opened

_AT_FDCWD, _MNT_DETACH = -100, 2
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
         "ptmx": "pts/ptmx"}  # fmt: skip
_PTS = "newinstance,ptmxmode=0666,mode=0620"


def below(root: str, path: str) -> str:
    """Where a path of the container lies as long as its root is at ``root``."""
    return os.path.normpath(f"{root}/{path}")


@dataclass(frozen=True)
class MakeFolders(Op):
    """Make directories with these modes, in order; their parents are there."""

    folders: tuple[tuple[str, int], ...]

    def perform(self, context: Context) -> None:
        for path, mode in self.folders:
            with opened(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY) as parent:
                syscalls.mkdirat(parent, os.path.basename(path), mode)
            os.chmod(path, mode)  # whatever the umask is

    def describe(self) -> str:
        return f"make {', '.join(path for path, _ in self.folders)}"

    def shell(self) -> str:
        return "\n".join(f"mkdir -m {mode:o} {shlex.quote(path)}" for path, mode in self.folders)


@dataclass(frozen=True)
class MakeLinks(Op):
    """Make symbolic links, each a path and what it says."""

    links: tuple[tuple[str, str], ...]

    def perform(self, context: Context) -> None:
        for path, text in self.links:
            with opened(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY) as parent:
                syscalls.symlinkat(text, parent, os.path.basename(path))

    def describe(self) -> str:
        return f"make the links {', '.join(path for path, _ in self.links)}"

    def shell(self) -> str:
        return "\n".join(f"ln -s {shlex.quote(text)} {shlex.quote(path)}" for path, text in self.links)


@dataclass(frozen=True)
class MountInside(Op):
    """Mount a filesystem at ``target`` of the container whose root lies at ``root`` now; a missing folder is made.

    A symlink on the way to the target is refused, unless it is to ``follow`` those, inside the root.
    """

    fstype: str
    target: str
    root: str = "/"
    flags: tuple[str, ...] = ()
    data: str | None = None
    follow: bool = False
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        with make(self.root, self.target, follow=self.follow) as place:
            syscalls.mount(self.fstype, f"/proc/self/fd/{place}", self.fstype, syscalls.mount_flags(*self.flags), self.data)

    def describe(self) -> str:
        return f"mount {self.fstype} at {self.target}"

    def shell(self) -> str:
        path = below(self.root, self.target)
        made = Mount(self.fstype, path, self.fstype, self.flags, self.data).shell()
        return f"mkdir -p {shlex.quote(path)}\n{made}"


@dataclass(frozen=True)
class BindInside(Op):
    """Show ``source`` at ``target`` of the container too, with all that is mounted below it; see MountInside.

    ``tree`` is the name of a descriptor of its mount, copied before (see Idmapped); "" has it copied now.
    """

    source: str
    target: str
    root: str = "/"
    read_only: bool = False
    folder: bool = True
    tree: str = ""
    follow: bool = False
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        with (
            opened(self._copy(context)) as mount,
            make(self.root, self.target, folder=self.folder, follow=self.follow) as place,
        ):
            if self.read_only:
                syscalls.mount_setattr(mount, syscalls.AT_RECURSIVE, syscalls.MOUNT_ATTR_RDONLY)
            syscalls.move_mount(mount, place)

    def _copy(self, context: Context) -> int:
        if self.tree:
            return context.fds.pop(self.tree)
        return syscalls.open_tree(_AT_FDCWD, self.source, syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)

    def describe(self) -> str:
        return f"show {self.source} at {self.target} too (bind mount{', read-only' if self.read_only else ''})"

    def shell(self) -> str:
        path = shlex.quote(below(self.root, self.target))
        made = f"mkdir -p {path}" if self.folder else f'mkdir -p "$(dirname {path})"; [ -e {path} ] || : > {path}'
        lines = [made, f"mount --rbind {shlex.quote(self.source)} {path}"]
        if self.read_only:
            lines.append(made_read_only(path))
        return "\n".join(lines)


def made_read_only(path: str) -> str:
    """Shell for a mount, at a quoted path, and all below it."""
    return f'findmnt -Rrno TARGET {path} | while read -r at; do mount -o remount,bind,ro "$(printf %b "$at")"; done'


@dataclass(frozen=True)
class MakeDev(Op):
    """A small /dev: a tmpfs with the harmless devices, shown from the machine's, and terminals of its own."""

    root: str
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        with make(self.root, "/dev", follow=True) as place:
            flags = syscalls.mount_flags("MS_NOSUID")
            syscalls.mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", flags, "mode=755")
        with find(self.root, "/dev") as folder:
            for name in self._devices():
                os.close(syscalls.openat2(folder, name, NEW_FILE, 0, 0o666))
                with (
                    opened(syscalls.open_tree(_AT_FDCWD, f"/dev/{name}", syscalls.OPEN_TREE_CLONE)) as mount,
                    opened(syscalls.openat2(folder, name, os.O_PATH, 0)) as there,
                ):
                    syscalls.move_mount(mount, there)
            for name, text in LINKS.items():
                syscalls.symlinkat(text, folder, name)
            for name, mode in (("pts", 0o755), ("shm", 0o1777)):
                syscalls.mkdirat(folder, name, mode)
                os.chmod(f"/proc/self/fd/{folder}/{name}", mode)
            syscalls.mount(
                "devpts", f"/proc/self/fd/{folder}/pts", "devpts", syscalls.mount_flags("MS_NOSUID", "MS_NOEXEC"), _PTS
            )

    def _devices(self) -> list[str]:
        return [name for name in DEVICES if os.path.exists(f"/dev/{name}")]

    def describe(self) -> str:
        return f"make a small /dev: {', '.join(DEVICES)}, and terminals of its own"

    def shell(self) -> str:
        dev = shlex.quote(below(self.root, "/dev"))
        lines = [f"mkdir -p {dev}", f"mount -t tmpfs -o nosuid,mode=755 tmpfs {dev}"]
        lines.append(f"for name in {' '.join(self._devices())}; do : > {dev}/$name; mount --bind /dev/$name {dev}/$name; done")
        lines += [f"ln -s {text} {dev}/{name}" for name, text in LINKS.items()]
        lines += [f"mkdir {dev}/pts; mkdir -m 1777 {dev}/shm", f"mount -t devpts -o nosuid,noexec,{_PTS} devpts {dev}/pts"]
        return "\n".join(lines)


@dataclass(frozen=True)
class EnterRoot(Op):
    """Make the mount at ``root`` the root of this mount namespace and let go of the old one, with all that is below it.

    pivot_root(".", ".") puts the old root on top of the new one, from where it is taken off. Unlike a chroot there is no
    way back: no mount of the old root is left. Source: pivot_root(2).
    """

    root: str
    changes: ClassVar[str] = "mnt"
    enters: ClassVar[bool] = True

    def perform(self, context: Context) -> None:
        syscalls.chdir(self.root)
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", _MNT_DETACH)
        syscalls.chdir("/")

    def describe(self) -> str:
        return f"make {self.root} the root, and let go of the old one"

    def shell(self) -> str:
        """By Python: in between there is no tool to start, neither of the old root nor surely of the new one."""
        code = (
            f"import ctypes, os, sys; c = ctypes.CDLL(None); os.chdir({self.root!r}); "
            f'c.pivot_root(b".", b".") == 0 == c.umount2(b".", {_MNT_DETACH}) or sys.exit("pivot_root"); os.chdir("/"); '
            'os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])'
        )
        return f"exec python3 -c {shlex.quote(code)}"

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} {shlex.quote(inner)}"
