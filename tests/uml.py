"""A command on a Linux of its own: Debian's user-mode-linux, a kernel that runs as an ordinary process, with a whole cgroup v2.

    python -m tests.uml FOLDER COMMAND...

Its root is the machine's files, read-only; /tmp is its own and empty, but for FOLDER, the only place where something stays,
and for the checkout and its Python, where these are there.
It is root there, on one processor and with 512 MB, and alone; what it prints comes out here, and its status is ours.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

KERNEL = "linux.uml"
POWER_OFF = "import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)"
KEPT = ("PATH", "LANG", "NSLAB_MUST_WORK", "NSLAB_TIER", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir /dev/shm /dev/pts && mount -t tmpfs tmpfs /dev/shm && mount -t devpts devpts /dev/pts
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p {folder} && mount -t hostfs -o {folder} none {folder}
for covered in {covered}; do mkdir -p "$covered" && mount -t hostfs -o ro,"$covered" none "$covered"; done
ip link set lo up
hostname machine
cd {cwd} && env -i HOME=/tmp {env} {command} </dev/null
echo $? > {folder}/status
{python} -c {power_off}
"""


def run(folder: Path, command: Sequence[str], *, timeout: float = 600, hardware: Sequence[str] = (), **options: object) -> int:
    """Boot, run a command, and return its status (255 when there is none). ``options`` are those of subprocess.run.

    ``hardware`` are more words for the kernel, as eth0=mcast for a network card.
    """
    init = folder / "init"
    env = " ".join(f"{name}={shlex.quote(os.environ[name])}" for name in KEPT if name in os.environ)
    needed = {os.getcwd(), sys.prefix, sys.base_prefix}
    covered = [path for path in sorted(needed) if path.startswith(("/tmp/", "/run/"))]
    init.write_text(
        INIT.format(
            folder=shlex.quote(str(folder)), covered=shlex.join(covered), cwd=shlex.quote(os.getcwd()), env=env,
            command=shlex.join(command),
            python=shlex.quote(sys.executable), power_off=shlex.quote(POWER_OFF),
        )
    )  # fmt: skip
    init.chmod(0o755)
    status = folder / "status"
    status.unlink(missing_ok=True)
    boot = [
        KERNEL,
        "rootfstype=hostfs",
        "root=/dev/root",
        "ro",
        "mem=512M",
        f"init={init}",
        "con=null",
        "con0=null,fd:1",
        "quiet",
        *hardware,
    ]
    home = {**os.environ, "HOME": str(folder)}  # it leaves a folder .uml there
    subprocess.run(boot, stdin=subprocess.DEVNULL, env=home, timeout=timeout, **options)  # type: ignore[call-overload]
    return int(status.read_text()) if status.exists() and status.read_text().strip() else 255


def output(script: str, *, hardware: Sequence[str] = ()) -> str:
    """What a Python script printed there; AssertionError with all that was said when it failed."""
    with tempfile.TemporaryDirectory(prefix="nslab-uml-") as name:
        folder = Path(name)
        (folder / "script.py").write_text(script)
        (folder / "out").touch()
        command = ["sh", "-c", f"{sys.executable} {folder}/script.py > {folder}/out"]
        with open(folder / "console", "wb") as console:
            status = run(folder, command, timeout=100, hardware=hardware, stdout=console, stderr=subprocess.STDOUT)
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
    if not shutil.which(KERNEL):
        sys.exit(f"there is no {KERNEL}: apt-get install user-mode-linux")
    return run(Path(sys.argv[1]), sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
