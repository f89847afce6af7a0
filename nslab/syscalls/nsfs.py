"""The questions that a namespace descriptor answers (ioctl_ns(2)). Returned descriptors belong to the caller."""

from __future__ import annotations

import array
import fcntl
import os

from nslab.syscalls.guard import invoke

NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE, NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704
NS_GET_PID_FROM_PIDNS, NS_GET_PID_IN_PIDNS = 0x8004B706, 0x8004B708
NS_GET_ID = 0x8008B70D


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
    number = array.array("Q", [0])
    invoke("ioctl", (fd, NS_GET_ID), fcntl.ioctl, fd, NS_GET_ID, number)
    return number[0]
