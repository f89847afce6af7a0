"""A process of nslab that outlives the one which starts it: nobody's child, in a session of its own, without a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import IO

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from nslab.spawner.detached import leave; leave(); "
    "from {0} import main; main({1})"
)


def start(module: str, fd: int, log: IO[bytes]) -> None:
    """Start ``main(fd)`` of a module of nslab; ``log`` takes what it writes to its standard error."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    subprocess.run(
        [sys.executable, "-P", "-c", _BOOT.format(module, fd), folder], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=log, start_new_session=True, pass_fds=[fd], check=False,
    )  # fmt: skip


def leave() -> None:
    """Leave the process that started this one, which goes on at once: whoever adopts orphans looks after the rest."""
    if os.fork():
        os._exit(0)
    os.setsid()
