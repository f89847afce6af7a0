"""The questions that a namespace descriptor answers (ioctl_ns(2)). Returned descriptors belong to the caller."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import struct
import sys

from nslab.syscalls.guard import invoke, libc

NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE, NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704
NS_GET_PID_FROM_PIDNS, NS_GET_PID_IN_PIDNS = 0x8004B706, 0x8004B708
NS_GET_ID = 0x8008B70D
SIOCGSKNS = 0x894C
_LISTNS, _PIDFD_GETFD = 470, 438
_FD_NSFS_ROOT, _FILEID_NSFS = -10003, 0xF1

libc.open_by_handle_at.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


def open_namespace(path: str) -> int:
    """A descriptor of the namespace behind a path such as /proc/PID/ns/uts, which the caller owns.

    ENOENT when there is no such process, EACCES when the caller may not trace it. Source: open(2), namespaces(7).
    """
    flags = os.O_RDONLY | os.O_NONBLOCK  # it may turn out to be a pipe
    return int(invoke("open", (path, flags), os.open, path, flags | os.O_CLOEXEC, path=path))


def ns_get_userns(fd: int) -> int:
    """A descriptor of the owning user namespace; EPERM when it lies above the caller's."""
    return int(invoke("ioctl", (fd, NS_GET_USERNS), fcntl.ioctl, fd, NS_GET_USERNS))


def ns_get_parent(fd: int) -> int:
    """A descriptor of the parent (user and pid only, else EINVAL); EPERM when it is out of the caller's sight."""
    return int(invoke("ioctl", (fd, NS_GET_PARENT), fcntl.ioctl, fd, NS_GET_PARENT))


def ns_get_nstype(fd: int) -> int:
    """The CLONE_NEW* bit of the kind; ENOTTY when it is no namespace."""
    return int(invoke("ioctl", (fd, NS_GET_NSTYPE), fcntl.ioctl, fd, NS_GET_NSTYPE))


def ns_get_owner_uid(fd: int) -> int:
    """The uid, as the caller numbers it, that made a user namespace (EINVAL for other kinds)."""
    uid = array.array("I", [0])
    invoke("ioctl", (fd, NS_GET_OWNER_UID), fcntl.ioctl, fd, NS_GET_OWNER_UID, uid)
    return uid[0]


def ns_get_pid_from_pidns(fd: int, pid: int) -> int:
    """The PID, as the caller numbers it, of process ``pid`` of a PID namespace. ESRCH: none; ENOTTY before Linux 6.11."""
    return int(invoke("ioctl", (fd, NS_GET_PID_FROM_PIDNS, pid), fcntl.ioctl, fd, NS_GET_PID_FROM_PIDNS, pid))


def ns_get_pid_in_pidns(fd: int, pid: int) -> int:
    """The PID that the caller's process ``pid`` has in a PID namespace. ESRCH: none; ENOTTY before Linux 6.11."""
    return int(invoke("ioctl", (fd, NS_GET_PID_IN_PIDNS, pid), fcntl.ioctl, fd, NS_GET_PID_IN_PIDNS, pid))


def ns_get_id(fd: int) -> int:
    """The number of the namespace, which the kernel gives to no other one as long as it runs; ENOTTY before Linux 6.18."""
    return int.from_bytes(invoke("ioctl", (fd, NS_GET_ID), fcntl.ioctl, fd, NS_GET_ID, bytes(8)), sys.byteorder)


def listns(after: int = 0, ns_type: int = 0, user_ns_id: int = 0, nr_ns_ids: int = 1000) -> list[int]:
    """The numbers of up to so many namespaces that are alive, in order, from the one behind the number ``after`` on.

    ``ns_type`` are CLONE_NEW* bits, 0 for all kinds; ``user_ns_id`` is the number of an owner, 0 for any. What the caller is
    neither in nor has CAP_SYS_ADMIN over is left out. ENOSYS before Linux 6.19. Source: listns(2).
    """
    request = struct.pack("=IIQIIQ", 32, 0, after, ns_type, 0, user_ns_id)
    room = (ctypes.c_uint64 * nr_ns_ids)()
    count = invoke("listns", (after, ns_type, user_ns_id), libc.syscall, _LISTNS, request, room, nr_ns_ids, 0)
    return room[:count]


def open_by_handle_at(number: int, ns_type: int = 0, inode: int = 0) -> int:
    """A descriptor of the namespace with this number, which the caller owns.

    Before Linux 6.19 its kind, a CLONE_NEW* bit, and its inode must be told, and be right. ESTALE when there is none, or it is
    not for the caller to enter; EBADF before Linux 6.18. Source: open_by_handle_at(2).
    """
    handle = struct.pack("=IiQII", 16, _FILEID_NSFS, number, ns_type, inode)
    flags = os.O_RDONLY | os.O_CLOEXEC
    return int(invoke("open_by_handle_at", (number, ns_type, inode), libc.open_by_handle_at, _FD_NSFS_ROOT, handle, flags))


def pidfd_getfd(pidfd: int, targetfd: int) -> int:
    """A copy, which the caller owns, of the descriptor ``targetfd`` of another process.

    EPERM where the caller may not trace that; EBADF when it has none of this number; ENOSYS before Linux 5.6.
    Source: pidfd_getfd(2).
    """
    return int(invoke("pidfd_getfd", (pidfd, targetfd), libc.syscall, _PIDFD_GETFD, pidfd, targetfd, 0))


def siocgskns(fd: int) -> int:
    """A descriptor, which the caller owns, of the network namespace of a socket; EPERM without CAP_NET_ADMIN there.

    Source: linux/sockios.h; it is in no man page.
    """
    return int(invoke("ioctl", (fd, SIOCGSKNS), fcntl.ioctl, fd, SIOCGSKNS))
