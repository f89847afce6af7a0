"""POSIX message queues: each has a name such as "/jobs", and is open as a descriptor. mq_overview(7)

Loaded when it is first used: the spawner has no need of it.
"""

from __future__ import annotations

import ctypes
import os

from nslab.syscalls.guard import invoke, libc, refuse_here

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # the same numbers on x86-64 and aarch64
FSCONFIG_CMD_CREATE = 6
CLOEXEC = 1

libc.mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
libc.mq_unlink.argtypes = [ctypes.c_char_p]
libc.mq_send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint]
libc.mq_receive.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
libc.mq_receive.restype = ctypes.c_ssize_t
libc.mq_getattr.argtypes = [ctypes.c_int, ctypes.c_void_p]


def mq_open(name: str, flags: int, mode: int = 0o600, max_messages: int = 0, max_size: int = 0) -> int:
    """Open the queue of this name, made where ``flags`` have O_CREAT, and return a descriptor, which the caller owns.

    ENOENT, EEXIST, EINVAL beyond fs.mqueue.msg_max or msgsize_max, EMFILE at RLIMIT_MSGQUEUE. Source: mq_open(3).
    """
    refuse_here("mq_open", "ipc")
    raw = (name, flags, mode, max_messages, max_size)
    attributes = (ctypes.c_long * 8)(0, max_messages, max_size)
    given = (os.fsencode(name), flags | os.O_CLOEXEC, mode, ctypes.byref(attributes) if max_messages else None)
    return int(invoke("mq_open", raw, libc.mq_open, *given, name=name))


def mq_unlink(name: str) -> None:
    """Remove the name; the queue goes when nobody has it open any more. Source: mq_unlink(3)."""
    refuse_here("mq_unlink", "ipc")
    invoke("mq_unlink", (name,), libc.mq_unlink, os.fsencode(name), name=name)


def mq_send(fd: int, text: bytes, priority: int = 0) -> None:
    """Send a message; EAGAIN with O_NONBLOCK when the queue is full, EMSGSIZE when it is too long. Source: mq_send(3)."""
    refuse_here("mq_send")
    invoke("mq_send", (fd, text, len(text), priority), libc.mq_send, fd, text, len(text), priority)


def mq_receive(fd: int, size: int) -> tuple[bytes, int]:
    """The oldest message of the highest priority, and that priority; EAGAIN with O_NONBLOCK. Source: mq_receive(3)."""
    refuse_here("mq_receive")
    buffer, priority = ctypes.create_string_buffer(size), ctypes.c_uint()
    length = int(invoke("mq_receive", (fd, size), libc.mq_receive, fd, buffer, size, ctypes.byref(priority)))
    return buffer.raw[:length], priority.value


def mq_getattr(fd: int) -> tuple[int, int, int]:
    """The most messages, the most bytes of one, and how many messages wait. Source: mq_getattr(3)."""
    attributes = (ctypes.c_long * 8)()
    invoke("mq_getattr", (fd,), libc.mq_getattr, fd, ctypes.byref(attributes))
    return attributes[1], attributes[2], attributes[3]


def detached(fstype: str) -> int:
    """A descriptor of a new filesystem that is mounted nowhere, which the caller owns: fsopen, fsconfig, fsmount.

    EPERM without CAP_SYS_ADMIN in the owner of the mount namespace. Nobody else can see it, and it ends with the descriptor.
    """
    fd = int(invoke("fsopen", (fstype, 0), libc.syscall, FSOPEN, os.fsencode(fstype), CLOEXEC))
    try:
        create = (ctypes.c_int(fd), FSCONFIG_CMD_CREATE, None, None, 0)
        invoke("fsconfig", (fd, "FSCONFIG_CMD_CREATE"), libc.syscall, FSCONFIG, *create, fstype=fstype)
        return int(invoke("fsmount", (fd, 0, 0), libc.syscall, FSMOUNT, ctypes.c_int(fd), CLOEXEC, 0))
    finally:
        os.close(fd)
