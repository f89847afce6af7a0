"""Waiting for something inside a container: what the one process does that waits there.

It looks, and looks again when the kernel says that a folder which matters has changed (inotify). What the kernel tells nobody
about, as a port that is listened on, it looks at again after 1 ms, 2 ms, 4 ms, and at most ``LONGEST``. Everything that it
needs is imported here: inside there may be no Python.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nslab import procfs, syscalls
from nslab.errors import SyscallError
from nslab.spawner.launch import DEFAULTS, find
from nslab.syscalls import guard, watches

FIRST, LONGEST = 0.001, 0.05  # seconds
RARELY = 1.0  # seconds between two looks at a file: filesystems made by programs, as /proc, tell nothing
_PATH = re.compile(r"""/[^\s'"|&;()<>$`*?]+""")
_CHANGES = (
    watches.IN_CREATE | watches.IN_DELETE | watches.IN_MOVED_FROM | watches.IN_MOVED_TO | watches.IN_CLOSE_WRITE
    | watches.IN_MODIFY | watches.IN_ATTRIB | watches.IN_DELETE_SELF | watches.IN_MOVE_SELF
)  # fmt: skip


class Folders:
    """Watches whatever there is of some paths: the folders on the way to them, and the files."""

    def __init__(self, paths: Iterable[str]):
        self.paths = [part for path in paths for part in _way(path)]
        self.fd = -1
        if self.paths:
            with contextlib.suppress(SyscallError):  # EMFILE: as many as the user may have; then time alone wakes
                self.fd = syscalls.inotify_init1()

    def renew(self) -> None:
        """Watch also what came to be since the last time."""
        for path in self.paths if self.fd >= 0 else ():
            with contextlib.suppress(SyscallError):
                syscalls.inotify_add_watch(self.fd, path, _CHANGES)

    def wait(self, seconds: float) -> bool:
        """Whether something happened there within so many seconds."""
        if not select.select([self.fd] if self.fd >= 0 else [], [], [], seconds)[0]:
            return False
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 1 << 16):
                pass
        return True


def _way(path: str) -> list[str]:
    """ "/run/x" -> "/", "/run", "/run/x"."""
    parts = os.path.abspath(path).split("/")
    return ["/", *("/".join(parts[:number]) for number in range(2, len(parts) + 1))]


def until(look: Callable[[], Any], paths: Iterable[str] = (), longest: float = LONGEST) -> Any:
    """Look until it is true, and return what was seen."""
    folders = Folders(paths)
    patience = FIRST if longest == LONGEST else longest
    while True:
        folders.renew()
        if seen := look():
            return seen
        patience = FIRST if folders.wait(patience) and longest == LONGEST else min(2 * patience, longest)


def path_is_there(path: str) -> bool:
    """Wait until there is something at ``path``."""
    return bool(until(lambda: os.path.lexists(path), [path], RARELY))


def port_is_open(port: int) -> bool:
    """Wait until a TCP socket listens on ``port`` in the network namespace of this process."""
    return bool(until(lambda: port in procfs.listening()))


def command_succeeds(argv: tuple[str, ...], env: Mapping[str, str]) -> bool:
    """Wait until a command ends with status 0; files that it names wake this process. SyscallError when it cannot start."""
    path = find(argv[0], env)

    def look() -> bool:
        try:
            pid = os.posix_spawn(path, argv, env, setsigdef=DEFAULTS, setsigmask=())
        except OSError as error:
            failed = guard.failure("posix_spawn", (path, argv), error.errno or 0, path=path)
            failed.hint += guess(argv)
            raise failed from None
        return os.waitpid(pid, 0)[1] == 0

    return bool(until(look, [name for word in argv[1:] for name in _PATH.findall(word)]))


def guess(words: Sequence[object]) -> str:
    """What was perhaps meant by a command that cannot start: a path on its own is one that is to be there."""
    return f"\ndid you mean path={str(words[0])!r}?" if len(words) == 1 and "/" in str(words[0]) else ""


def function_is_true(function: Callable[[], Any]) -> Any:
    """Wait until a Python function returns something true, and return that."""
    return until(function)
