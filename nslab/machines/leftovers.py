"""What a kernel of one's own may leave: its folder and its processes, when whoever looked after them was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from pathlib import Path

from nslab import procfs

PREFIX, LOCK = "nslab-own-", "lock"  # of the folder; of the file in it that a warden holds
WARDEN = "nslab-warden"
STALE = 60.0  # seconds after which a folder that nobody holds is somebody's who was killed


def sweep(parent: str) -> None:
    """Remove the folders of wardens of this user who were killed together with all that would have removed them."""
    for folder in Path(parent).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            info = folder.lstat()
            if info.st_uid != os.geteuid() or time.time() - info.st_mtime < STALE:
                continue
            with open(folder / LOCK) as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                clear(folder)
    _end_stopped(parent)


def _end_stopped(parent: str) -> None:
    """End processes that name a folder which is gone, as it is once a command runs, and whose parent did not make them.

    The one that a kernel was just making when it was killed is such: nobody was its tracer yet, and it stopped for one.
    """
    named = {}
    for pid in procfs.pids():
        with contextlib.suppress(OSError):
            _, prefix, rest = Path(f"/proc/{pid}/cmdline").read_bytes().partition(os.fsencode(f"{parent}/{PREFIX}"))
            if prefix:
                named[pid] = os.fsdecode(prefix + rest.partition(b"/")[0])
    for pid, folder in named.items():
        with contextlib.suppress(OSError), os.fdopen(os.pidfd_open(pid), "rb", buffering=0) as process:
            above = procfs.stat(pid).ppid
            is_ours = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
            if is_ours and above not in named and procfs.stat(above).name != WARDEN and not os.path.exists(folder):
                signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)


def clear(folder: Path) -> None:
    """End what is left of a kernel whose warden was killed, by the folder that its processes name, and remove that.

    Those that ran programs inside are let go when the kernel that traced them dies: they would go on in this one.
    """
    name = os.fsencode(folder)
    for pid in procfs.pids():
        with contextlib.suppress(OSError), os.fdopen(os.pidfd_open(pid), "rb", buffering=0) as process:
            if name in Path(f"/proc/{pid}/cmdline").read_bytes():
                signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
