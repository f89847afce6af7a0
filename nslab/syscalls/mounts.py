"""Mounts and roots."""

from __future__ import annotations

import ctypes
import os

from nslab.syscalls.decode import MOUNT_FLAGS
from nslab.syscalls.guard import PIVOT_ROOT, invoke, libc, refuse_here

libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def mount_flags(*names: str) -> int:
    """The bits of flags given by name: mount_flags("MS_REC", "MS_PRIVATE")."""
    value = 0
    for name in names:
        value |= MOUNT_FLAGS[name]
    return value


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """Mount a filesystem, bind, move, remount, or change propagation: ``flags`` say which (MS_* bits).

    EPERM without CAP_SYS_ADMIN in the owner of the mount namespace, ENODEV for an unknown type. Source: mount(2).
    """
    refuse_here("mount", "mnt")
    raw = (source, target, fstype, flags, data)
    given = (_bytes(source), os.fsencode(target), _bytes(fstype), flags, _bytes(data))
    invoke("mount", raw, libc.mount, *given, source=source or "", target=target, fstype=fstype or "", flags=flags)


def umount2(target: str, flags: int = 0) -> None:
    """Take a mount off. EBUSY while in use, EINVAL for what a more privileged namespace put there. Source: umount(2)."""
    refuse_here("umount2", "mnt")
    invoke("umount2", (target, flags), libc.umount2, os.fsencode(target), flags, target=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root mount and put the old one at ``put_old``. Source: pivot_root(2)."""
    refuse_here("pivot_root", "mnt")
    given = (PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old))
    invoke("pivot_root", (new_root, put_old), libc.syscall, *given, new_root=new_root, put_old=put_old)


def chroot(path: str) -> None:
    """Change the root directory of the calling process; the working directory stays. Source: chroot(2)."""
    refuse_here("chroot")
    invoke("chroot", (path,), os.chroot, path, path=path)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
