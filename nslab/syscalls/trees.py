"""Paths that cannot lead out, and mounts that are made before they are put somewhere: openat2 and the newer mount calls."""

from __future__ import annotations

import ctypes
import errno
import os

from nslab.syscalls.guard import invoke, libc, refuse_here

OPEN_TREE, MOVE_MOUNT, OPENAT2, MOUNT_SETATTR = 428, 429, 437, 442  # the same numbers on x86-64 and aarch64

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16
AT_EMPTY_PATH, AT_RECURSIVE = 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_EMPTY_PATHS = 0x4 | 0x40  # source and target are the descriptors themselves
MOUNT_ATTR_RDONLY, MOUNT_ATTR_IDMAP = 0x1, 0x100000
PROC_SUPER_MAGIC = 0x9FA0


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def openat2(folder: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open ``path`` below the directory ``folder`` and return a descriptor, which the caller owns.

    ``resolve`` are RESOLVE_* bits: with RESOLVE_IN_ROOT the directory is the root, also for absolute symlinks and "..".
    ELOOP for a link that the bits forbid, EXDEV for a way out, ENOSYS before Linux 5.6. Source: openat2(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    given = (OPENAT2, ctypes.c_int(folder), os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    return int(invoke("openat2", (folder, path, flags, resolve), libc.syscall, *given, path=path, folder=folder))


def open_inside(folder: int, path: str, flags: int) -> int:
    """As openat2() where ``folder`` is the root and no magic link leads out, but not recorded: for every file of an archive.

    Raises OSError, not SyscallError.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    fd: int = libc.syscall(OPENAT2, ctypes.c_int(folder), os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(24))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return fd


def open_tree(folder: int, path: str, flags: int) -> int:
    """A descriptor of the mount at ``path``; with OPEN_TREE_CLONE of a copy that is mounted nowhere yet, the caller's own.

    AT_RECURSIVE copies what is mounted below too; EINVAL where that is locked and would be left out. Source: open_tree(2).
    """
    refuse_here("open_tree")
    given = (OPEN_TREE, ctypes.c_int(folder), os.fsencode(path), ctypes.c_uint(flags | os.O_CLOEXEC))
    return int(invoke("open_tree", (folder, path, flags), libc.syscall, *given, path=path))


def move_mount(mount: int, target: int) -> None:
    """Attach the mount behind one descriptor at the place behind the other. ENOTDIR for a file on a directory.

    Source: move_mount(2).
    """
    refuse_here("move_mount", "mnt")
    given = (MOVE_MOUNT, ctypes.c_int(mount), b"", ctypes.c_int(target), b"", ctypes.c_uint(MOVE_MOUNT_EMPTY_PATHS))
    invoke("move_mount", (mount, "", target, "", MOVE_MOUNT_EMPTY_PATHS), libc.syscall, *given)


def mount_setattr(mount: int, flags: int, attributes: int, userns: int = 0, propagation: int = 0) -> None:
    """Set MOUNT_ATTR_* bits of the mount behind a descriptor, with AT_RECURSIVE of those below it too.

    MOUNT_ATTR_IDMAP takes the descriptor of the user namespace whose id map shifts owners; only of a mount that is mounted
    nowhere yet, EPERM without CAP_SYS_ADMIN over its filesystem, EINVAL where that cannot. ``propagation`` is MS_PRIVATE
    and so on, 0 to leave it. Source: mount_setattr(2).
    """
    refuse_here("mount_setattr", "mnt")
    wanted = _MountAttr(set=attributes, propagation=propagation, userns_fd=userns)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    at = (ctypes.c_int(mount), b"", ctypes.c_uint(flags | AT_EMPTY_PATH), ctypes.byref(wanted), size)
    raw = (mount, "", flags | AT_EMPTY_PATH, attributes, *((propagation,) if propagation else ()))
    invoke("mount_setattr", raw, libc.syscall, MOUNT_SETATTR, *at, attributes=attributes)


_BENEATH_PROC = _OpenHow(os.O_WRONLY | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)


def open_beneath_proc(path: str) -> int:
    """Open a file of /proc for writing: EXDEV where /proc is no procfs, or where something is mounted over the file.

    A container that fakes a part of /proc could else lead a write to another file (CVE-2025-52881).
    """
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not is_procfs(proc):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        how = ctypes.byref(_BENEATH_PROC)
        fd: int = libc.syscall(OPENAT2, ctypes.c_int(proc), os.fsencode(path), how, ctypes.c_size_t(24))
        if fd < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):  # an older kernel, a seccomp filter
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=proc)
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return fd
    finally:
        os.close(proc)


def is_procfs(fd: int) -> bool:
    """Whether the file behind a descriptor lies on a real /proc. Source: fstatfs(2)."""
    buffer = (ctypes.c_long * 32)()
    return libc.fstatfs(fd, ctypes.byref(buffer)) == 0 and buffer[0] == PROC_SUPER_MAGIC
