"""Finding, and making, the place of a mount below the root of a container, which a symlink never leads out of.

A symlink that somebody names is refused: the mount would lie elsewhere than was said. Those on the way to a root's own /proc,
/sys, /dev, /tmp and /run are followed, inside the root.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from nslab import syscalls
from nslab.errors import SyscallError

INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
PLAIN = INSIDE | syscalls.RESOLVE_NO_SYMLINKS
NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY


@contextlib.contextmanager
def opened(what: int | str, flags: int = 0) -> Iterator[int]:
    """A descriptor, or that of a path, closed at the end."""
    fd = os.open(what, flags | os.O_CLOEXEC) if isinstance(what, str) else what
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def find(root: str, path: str) -> Iterator[int]:
    """A descriptor of ``path`` as the container will see it, when its root lies at ``root`` now; -1 when it is not there."""
    with opened(root, os.O_PATH | os.O_DIRECTORY) as folder, opened(_look(folder, path)) as place:
        yield place


@contextlib.contextmanager
def make(root: str, path: str, *, folder: bool = True, follow: bool = False) -> Iterator[int]:
    """As find(), but what is missing is made: folders, and at the end a folder or an empty file.

    SyscallError (ELOOP) for a symlink on the way, unless they are to be followed.
    """
    how = INSIDE if follow else PLAIN
    names = [name for name in path.split("/") if name]
    with opened(root, os.O_PATH | os.O_DIRECTORY) as top, contextlib.ExitStack() as stack:
        here, known = top, ""
        for index, name in enumerate(names):
            known = f"{known}/{name}"
            there = _look(top, known, how)
            if there < 0 and (folder or index < len(names) - 1):
                syscalls.mkdirat(here, name)
                there = syscalls.openat2(top, known[1:], os.O_PATH, how)
            elif there < 0:
                os.close(syscalls.openat2(here, name, NEW_FILE, how, 0o644))
                there = syscalls.openat2(top, known[1:], os.O_PATH, how)
            here = stack.enter_context(opened(there))
        yield here


def _look(folder: int, path: str, how: int = INSIDE) -> int:
    try:
        return syscalls.openat2(folder, path.lstrip("/") or ".", os.O_PATH, how)
    except SyscallError as error:
        if error.name not in ("ENOENT", "ENOTDIR"):
            raise
        return -1
