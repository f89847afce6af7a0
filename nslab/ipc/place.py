"""Whether the IPC namespace is one's own, and what follows for making, finding, using and removing an object."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from nslab import procfs, syscalls
from nslab.errors import Refused, SyscallError
from nslab.ops import spec
from nslab.spawner import ensure, registry
from nslab.spawner.registry import Registry
from nslab.syscalls import guard, mqueue, sysv  # noqa: F401  # now: later this process may have other files

MAX_KEY = 2**32 - 1  # the kernel has it signed, its tools print it unsigned


def noted_in() -> Registry | None:
    """Where what is made here must be noted; None in an IPC namespace of one's own, which takes all with it."""
    if guard.is_own("ipc"):
        return None
    place = registry.here if guard.allowed() else ensure().registry
    if place is None:
        raise Refused(
            "this process shares the machine's own IPC namespace, and nothing would remove what it makes there.\n"
            "  what to do: unshare('ipc') first, or ask for isolate='ipc ...'."
        )
    return place


def make(sort: str, name: str, create: Callable[[], int], exists: Callable[[], bool]) -> int:
    """The id that ``create()`` returns, noted before and after where that has to be."""
    place = noted_in()
    if place is None:
        return create()
    with guard.registered():
        if exists():
            return create()  # which says why it cannot
        place.note(sort, name)
        try:
            made = create()
        except BaseException:
            place.forget(sort, name)
            raise
        place.note(sort, name, made)
        return made


@contextlib.contextmanager
def using(sort: str, name: str, number: int | None = None) -> Iterator[Registry | None]:
    """Around calls that use an object: Refused for one of the machine's that nslab did not make."""
    place = noted_in()
    if place is None:
        yield None
        return
    entry = place.find(sort, name)
    if entry is None or number not in (None, entry.id):
        raise Refused(
            f"this process is in the machine's own IPC namespace, where nslab touches only what it made, and that is not the "
            f"{sort} object {name}.\n  what to do: where it is in a container, let that do it: web.call(thing.method, ...)."
        )
    with guard.registered():
        yield place


@contextlib.contextmanager
def unless(errno: str, wait: bool) -> Iterator[None]:
    """Without ``wait``, pass over a call that failed with ``errno``: it would have to wait."""
    try:
        yield
    except SyscallError as error:
        if wait or error.name != errno:
            raise


@dataclass(frozen=True, repr=False)
class SystemV:
    """A System V object by its key and its id; see the classes below it. ``with`` removes it at the end."""

    key: int
    id: int
    sort: ClassVar[str]

    @classmethod
    def _make(cls, key: int | None, get: Callable[[int, int], int], mode: int) -> tuple[int, int]:
        """A new object: its key (one of its own, when none is given) and its id; ``get(key, flags)`` makes or finds one."""
        if key is None:
            key = random.randint(1, MAX_KEY)
        spec.number("key", key, 1, MAX_KEY)
        spec.number("mode", mode, 0, 0o777)
        flags = syscalls.IPC_CREAT | syscalls.IPC_EXCL | mode

        def exists() -> bool:
            try:
                get(key, 0)
            except SyscallError as error:
                return error.name != "ENOENT"
            return True

        return key, make(cls.sort, str(key), lambda: get(key, flags), exists)

    @classmethod
    def _find(cls, key: int, get: Callable[[int, int], int]) -> tuple[int, int]:
        """The key and id of the object with this key in the caller's IPC namespace, and its size."""
        spec.number("key", key, 1, MAX_KEY)
        with guard.registered():  # looking changes nothing, and says whether there is one at all
            number = get(key, 0)
        with using(cls.sort, str(key), number):
            pass
        found = next((each for each in procfs.system_v() if (each.sort, each.id) == (cls.sort, number)), None)
        return number, found.size if found else 0

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with using(self.sort, str(self.key), self.id):
            yield

    def _remove(self) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        """Remove it at once, whoever uses it (shared memory: when the last process has detached it)."""
        with using(self.sort, str(self.key), self.id) as place:
            self._remove()
            if place:
                place.forget(self.sort, str(self.key))

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)} | {"key": f"{self.key:#x}"}
        return f"<{type(self).__name__} {', '.join(f'{name} {value}' for name, value in values.items())}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
