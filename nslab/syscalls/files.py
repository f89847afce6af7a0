"""Files of /proc, which the kernel takes as orders: one open, one write, so that no buffer hides an errno."""

from __future__ import annotations

import os
import re
from functools import partial

from nslab.errors import Refused
from nslab.syscalls.guard import invoke, is_protected, refuse_here
from nslab.syscalls.trees import open_beneath_proc

_RELEASE = re.findall(r"\d+", os.uname().release)
# Before Linux 6.14 there is one pid_max for the whole machine, whoever writes it.
_PID_MAX: tuple[tuple[str, str], ...] = (("kernel/pid_max", "pid"),) if [*map(int, _RELEASE[:2])] >= [6, 14] else ()
# Which kind of namespace owns a part of /proc/sys; the first prefix that fits counts.
_SYSCTLS = (
    ("kernel/hostname", "uts"), ("kernel/domainname", "uts"), ("kernel/ns_last_pid", "pid"), *_PID_MAX,
    ("kernel/shm", "ipc"), ("kernel/msg", "ipc"), ("kernel/sem", "ipc"), ("fs/mqueue/", "ipc"), ("net/", "net"),
    ("user/max_", "user"),
)  # fmt: skip
_OF_PROCESS = re.compile(r"/proc/(\d+|self|thread-self)/")


def owner_of(path: str) -> str:
    """The kind of namespace whose content the file is, "" for one that is just a file or of a process.

    Refused for what belongs to the whole machine.
    """
    path = os.path.realpath(path)
    if path.startswith("/proc/sys/"):
        for prefix, kind in _SYSCTLS:
            if path[10:].startswith(prefix):
                return kind
    elif not path.startswith("/sys/") and (not path.startswith("/proc/") or _OF_PROCESS.match(path)):
        return ""
    raise Refused(f"{path} belongs to no namespace: writing it would change the whole machine.")


def write_file(path: str, text: str) -> int:
    """Write ``text`` to an existing file in one write(2), and return the number of bytes taken.

    A path of /proc is written where /proc is a real procfs and nothing lies over the way; EXDEV or ELOOP otherwise.
    """
    refuse_here("write", owner_of(path) if is_protected() else "")

    def once() -> int:
        fd = open_beneath_proc(path[6:]) if path.startswith("/proc/") else os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            return os.write(fd, text.encode())
        finally:
            os.close(fd)

    return int(invoke("write", (path, text), once, path=path, text=text))


def mkdir(path: str) -> None:
    """Make a folder; in a cgroup filesystem that is a cgroup. EACCES where another user's is, EEXIST. Source: mkdir(2)."""
    refuse_here("mkdir")
    invoke("mkdir", (path,), os.mkdir, path, 0o755)


def rmdir(path: str) -> None:
    """Remove an empty folder, or a cgroup without processes and children (else EBUSY). Source: rmdir(2)."""
    refuse_here("rmdir")
    invoke("rmdir", (path,), os.rmdir, path)


def read_file(path: str, limit: int = 1 << 20) -> str:
    """The text of a file, at most ``limit`` bytes of it."""

    def once() -> bytes:
        with open(path, "rb") as file:
            return file.read(limit)

    return os.fsdecode(invoke("read", (path,), once, path=path))


def mkdirat(folder: int, name: str, mode: int = 0o755) -> None:
    """Make a directory in the one behind a descriptor. EEXIST where there is something. Source: mkdir(2)."""
    refuse_here("mkdirat")
    invoke("mkdirat", (folder, name, mode), partial(os.mkdir, name, mode, dir_fd=folder), path=name)


def symlinkat(text: str, folder: int, name: str) -> None:
    """Make a symbolic link in the directory behind a descriptor. Source: symlink(2)."""
    refuse_here("symlinkat")
    invoke("symlinkat", (text, folder, name), partial(os.symlink, text, name, dir_fd=folder), path=name)
