"""A Linux kernel of one's own: how long until a notebook's first answer, and how much memory it takes.

The first answer is measured against what cannot be avoided: the same kernel booted over the machine's files, with nothing but a
shell as its init, and `import ipykernel` in it.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from nslab import procfs
from nslab.machines import kernelspecs, needs, preload

ROOT = Path(__file__).resolve().parents[2]
TURNS = 5
INIT = """#!/bin/sh
mount -t proc proc /proc
{python} -c 'import ipykernel.kernelapp'
{python} -I -S -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'
"""
LAB = """
import nslab
lab = nslab.Topology("six")
a, b, c, d = (lab.host(name) for name in "abcd")
r, s = lab.router("r"), lab.switch("s")
for node in (a, b, c):
    lab.link(node, s, subnet="10.0.1.0/24")
lab.link(r, s, subnet="10.0.1.0/24"); lab.link(d, r, subnet="10.0.2.0/24")
lab.deploy()
print(lab.ping_all())
"""
FREE = "print(*(line.split()[1] for line in open('/proc/meminfo') if line.startswith(('MemTotal', 'MemAvailable'))))"

Result = tuple[str, str, float | None, float, str]


def own_kernel() -> Iterator[Result]:
    """The best of some turns each, one after the other."""
    if needs.own_kernel_check().status != "yes":
        yield "a kernel of one's own", needs.INSTALL, None, 2, "x"
        return
    compileall.compile_dir(ROOT / "nslab", quiet=1)  # as an installed package is
    bare, answer = [], []
    for _ in range(TURNS):
        bare.append(_bare())
        with _notebook() as (seconds, _, _):
            answer.append(seconds)
    measured = f"{min(answer):.1f} / {min(bare):.1f} s"
    yield "own kernel: first answer, against a bare boot and import ipykernel", measured, min(answer) / min(bare), 2, "x"
    with _notebook() as (_, run, warden):
        assert "12 of 12 pings answered" in run(LAB)
        total, available = (int(word) / 1024 for word in run(FREE).split())
        outside = max(map(_memory_file, procfs.descendants(warden)))
        used = total - available
        yield "own kernel: memory used inside, with a lab of six nodes", f"of {total:.0f} MB", used, 350, " MB"
        yield (
            "own kernel: the file that is its memory, with the same lab",
            f"of {needs.MEMORY}B",
            outside,
            350,
            " MB",
        )


def _bare() -> float:
    """Seconds from nothing to the end of a boot that does nothing else."""
    with tempfile.TemporaryDirectory(prefix="nslab-bare-", dir="/tmp") as folder, preload.image() as library:
        init = Path(folder, "init")
        init.write_text(INIT.format(python=sys.executable))
        init.chmod(0o755)
        os.set_inheritable(library.fileno(), True)
        env = {**os.environ, "HOME": folder, "LD_PRELOAD": f"/proc/self/fd/{library.fileno()}"}
        boot = [
            shutil.which(needs.KERNEL) or needs.KERNEL, "rootfstype=hostfs", "root=/dev/root", "ro", f"mem={needs.MEMORY}",
            f"init={init}", "con=null", "con0=null,fd:1", "quiet",
        ]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(
            boot, env=env, pass_fds=[library.fileno()], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
        assert "Error" not in done.stdout, done.stdout
        return time.perf_counter() - start


@contextlib.contextmanager
def _notebook() -> Iterator[tuple[float, object, int]]:
    """Seconds to the first answer, a function that runs a cell and returns what it printed, and the warden's PID."""
    with tempfile.TemporaryDirectory(prefix="nslab-bench-") as folder:
        manager = KernelManager(connection_file=f"{folder}/kernel.json")
        manager._kernel_spec = KernelSpec(**kernelspecs.spec(kernelspecs.OWN))
        start = time.perf_counter()
        manager.start_kernel(cwd=folder, env={**os.environ, "IPYTHONDIR": f"{folder}/ipython"})
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=120)
            seconds = time.perf_counter() - start

            def run(code: str) -> str:
                said: list[str] = []
                client.execute_interactive(
                    code, timeout=120, output_hook=lambda message: said.append(message["content"].get("text", ""))
                )
                return "".join(said)

            yield seconds, run, manager.provisioner.pid
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def _memory_file(pid: int) -> float:
    """Megabytes that are really there of the file, already removed, that a process maps as a kernel's memory."""
    size = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if stat.S_ISREG(link.stat().st_mode) and link.stat().st_nlink == 0:
                size = max(size, link.stat().st_blocks * 512)
    return size / 2**20
