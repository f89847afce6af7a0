"""A command on a Linux of its own, an ordinary process with a whole cgroup v2: see nslab.machines.

    python -m tests.uml FOLDER COMMAND...

What stays of it is in FOLDER. It is root there, on one processor and with 512 MB, and alone; what it prints comes out here,
and its status is ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from nslab.machines import BootError, OwnKernel

KEPT = ("PATH", "LANG", "NSLAB_MUST_WORK", "NSLAB_TIER", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


def run(folder: Path, command: Sequence[str], *, timeout: float = 600, hardware: Sequence[str] = (), output: int = 1) -> int:
    """Boot, run a command, and return its status (255 when there is none); ``output`` is where it writes.

    ``hardware`` are more words for the kernel, as eth0=mcast for a network card.
    """
    env = {"HOME": "/tmp", **{name: os.environ[name] for name in KEPT if name in os.environ}}

    def hear(_: str, data: bytes) -> None:
        while data:
            data = data[os.write(output, data) :]

    deadline = time.monotonic() + timeout
    own = OwnKernel(command, env=env, write=[str(folder)], memory="512M", network=False, hardware=hardware)
    with own:
        try:
            own.wait_up(hear)
        except BootError as error:
            hear("err", f"{error}\n".encode())
        while own.over is None and own.readable(deadline - time.monotonic()):
            own.receive(hear)
    assert own.over is not None
    return int(own.over.get("ended", 255))


def output(script: str, *, hardware: Sequence[str] = ()) -> str:
    """What a Python script printed there; AssertionError with all that was said when it failed."""
    with tempfile.TemporaryDirectory(prefix="nslab-uml-") as name:
        folder = Path(name)
        (folder / "script.py").write_text(script)
        (folder / "out").touch()
        command = ["sh", "-c", f"{sys.executable} {folder}/script.py > {folder}/out"]
        with open(folder / "console", "wb") as console:
            status = run(folder, command, timeout=100, hardware=hardware, output=console.fileno())
        assert status == 0, (folder / "console").read_text(errors="replace")
        return (folder / "out").read_text()


def modules(*names: str) -> str:
    """The beginning of a script for output(): Python that loads kernel modules, and those that they need, without modprobe."""
    return f"""
import ctypes, os
folder = f"/usr/lib/uml/modules/{{os.uname().release}}"
with open(f"{{folder}}/modules.dep") as file:
    needs = dict(line.rstrip("\\n").split(":") for line in file)
FINIT_MODULE = {{"x86_64": 313, "aarch64": 273}}[os.uname().machine]
for wanted in {names!r}:
    for path in [path for path in needs if path.endswith(f"/{{wanted}}.ko")]:
        for each in [*reversed(needs[path].split()), path]:
            fd = os.open(f"{{folder}}/{{each}}", os.O_RDONLY)
            ctypes.CDLL(None).syscall(FINIT_MODULE, fd, b"", 0)  # EEXIST when another needed it too
            os.close(fd)
"""


def main() -> int:
    return run(Path(sys.argv[1]), sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
