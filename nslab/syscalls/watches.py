"""inotify: to be told of what happens in a folder instead of looking again and again."""

from __future__ import annotations

import ctypes
import os

from nslab.syscalls.guard import invoke, libc

IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
IN_MODIFY, IN_DELETE_SELF, IN_MOVE_SELF = 0x2, 0x400, 0x800

libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]


def inotify_init1(flags: int = os.O_CLOEXEC | os.O_NONBLOCK) -> int:
    """A descriptor that is readable when something happened in what it watches. EMFILE at a limit. Source: inotify(7)."""
    return int(invoke("inotify_init1", (flags,), libc.inotify_init1, flags))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Watch a file or a folder for the IN_* events of ``mask``; ENOENT when it is not there. Source: inotify(7)."""
    raw = (fd, path, mask)
    return int(invoke("inotify_add_watch", raw, libc.inotify_add_watch, fd, os.fsencode(path), mask))
