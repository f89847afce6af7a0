"""Finding, and making, the place of a mount below the root of a container, which a symlink never leads out of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from nslab import syscalls
from nslab.errors import SyscallError

INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


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
    with opened(root, os.O_PATH | os.O_DIRECTORY) as folder:
        try:
            place = syscalls.openat2(folder, path.lstrip("/") or ".", os.O_PATH, INSIDE)
        except SyscallError as error:
            if error.name not in ("ENOENT", "ENOTDIR"):
                raise
            place = -1
        with opened(place):
            yield place
