"""What lies over a path so that it cannot be read, or not written: the masks of a container."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.errors import NslabError
from nslab.ops.base import Context, Op
from nslab.ops.places import find, opened

_EVERYTHING = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE | syscalls.OPEN_TREE_CLONE


@dataclass(frozen=True)
class Mask(Op):
    """Cover ``paths``: a file by /dev/null, a folder by an empty, read-only tmpfs. What is not there needs no mask.

    ``root`` is where the root of the container lies now; no symlink below it leads out.
    """

    paths: tuple[str, ...]
    root: str = "/"
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        for path in self.paths:
            with find(self.root, path) as place:
                if place < 0:
                    continue
                if stat.S_ISDIR(os.fstat(place).st_mode):
                    syscalls.mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", syscalls.mount_flags("MS_RDONLY"))
                else:
                    self._by_null(place)

    def _by_null(self, place: int) -> None:
        """Who could put another file in the place of /dev/null would have it mounted over /proc, writable (CVE-2025-31133)."""
        with opened("/dev/null", os.O_PATH | os.O_NOFOLLOW) as null:
            info = os.fstat(null)
            if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
                raise NslabError("/dev/null is not the character device 1:3 here, and nothing else is taken as a mask")
            with opened(syscalls.open_tree(null, "", syscalls.AT_EMPTY_PATH | syscalls.OPEN_TREE_CLONE)) as mount:
                syscalls.move_mount(mount, place)

    def describe(self) -> str:
        return f"mask {', '.join(self.paths)}"

    def shell(self) -> str:
        return "\n".join(
            f"if [ -d {path} ]; then mount -t tmpfs -o ro tmpfs {path}\n"
            f"elif [ -e {path} ]; then mount --bind /dev/null {path}; fi"
            for path in quoted(self.root, self.paths)
        )


@dataclass(frozen=True)
class ReadOnly(Op):
    """Make ``paths``, and all that is mounted below them, read-only where the container sees them. Fields as for Mask."""

    paths: tuple[str, ...]
    root: str = "/"
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        for path in self.paths:
            with find(self.root, path) as place:
                if place < 0:
                    continue
                with opened(syscalls.open_tree(place, "", _EVERYTHING)) as mount:
                    syscalls.mount_setattr(mount, syscalls.AT_RECURSIVE, syscalls.MOUNT_ATTR_RDONLY)
                    syscalls.move_mount(mount, place)

    def describe(self) -> str:
        return f"make {', '.join(self.paths)} read-only"

    def shell(self) -> str:
        return "\n".join(
            f"if [ -e {path} ]; then mount --rbind {path} {path}\n"
            f'findmnt -Rrno TARGET {path} | while read -r at; do mount -o remount,bind,ro "$(printf %b "$at")"; done; fi'
            for path in quoted(self.root, self.paths)
        )


def quoted(root: str, paths: tuple[str, ...]) -> list[str]:
    """The paths for a shell, as long as the root of the container lies at ``root``."""
    return [shlex.quote(os.path.normpath(f"{root}/{path}")) for path in paths]
