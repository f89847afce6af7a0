"""Files of /proc, which the kernel takes as orders: one open, one write, so that no buffer hides an errno."""

from __future__ import annotations

import os

from nslab.syscalls.guard import invoke_python, refuse_here


def write_file(path: str, text: str) -> int:
    """Write ``text`` to an existing file in one write(2), and return the number of bytes taken."""
    refuse_here("write")

    def once() -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            return os.write(fd, text.encode())
        finally:
            os.close(fd)

    return int(invoke_python("write", (path, text), once, path=path, text=text))


def read_file(path: str, limit: int = 1 << 20) -> str:
    """The text of a file, at most ``limit`` bytes of it."""

    def once() -> str:
        with open(path, "rb") as file:
            return os.fsdecode(file.read(limit))

    text: str = invoke_python("read", (path,), once)
    return text
