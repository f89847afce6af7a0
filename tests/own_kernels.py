"""What tests of kernels of one's own share: what is left of them, and a place that each test has for itself."""

from __future__ import annotations

import contextlib
import select
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nslab import procfs
from nslab.machines import leftovers, needs


@contextlib.contextmanager
def sockets_apart() -> Iterator[Path]:
    """A folder for sockets, as TMPDIR, in which nobody else has any; short, as their paths have to be."""
    with tempfile.TemporaryDirectory(prefix="nslab-apart-", dir="/tmp") as name:
        yield Path(name)


def left(folder: Path) -> list[str]:
    """The wardens' folders below this one, and the processes that name one."""
    names = f"{folder}/{leftovers.PREFIX}"
    found = [str(path) for path in folder.glob(f"{leftovers.PREFIX}*")]
    for pid in procfs.pids():
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            found += [line] if names in line else []
    return found


@contextlib.contextmanager
def nothing_left(within: float = 2.0, folder: Path | None = None) -> Iterator[None]:
    """So many seconds after the block nothing is there that has its sockets below ``folder``, or TMPDIR."""
    folder = folder or Path(needs.find().folder)
    yield
    deadline = time.monotonic() + within
    while (there := left(folder)) and time.monotonic() < deadline:
        select.select([], [], [], 0.05)
    assert not there, there


def is_alive(pid: int) -> bool:
    try:
        return procfs.stat(pid).state not in "ZX"
    except OSError:
        return False
