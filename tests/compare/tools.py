"""The same container by each tool: every kind that it can make, the host name web, the same root filesystem.

Each tool runs the same command, which says a few things that only somebody inside can know, and then waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nslab

HERE = Path(__file__).resolve().parent
ASK = "/bin/keyring; hostname; exec cat"
COMMAND = ["/bin/sh", "-c", ASK]
PATIENCE = 10  # seconds until a container has to be there
UNPRIVILEGED = 100000  # the first id outside of those that runc maps, when it is started by root

# A tool: a context manager that yields the PID (outside) of the command, and the lines that it said.
Tool = Callable[[Path], contextlib.AbstractContextManager[tuple[int, list[str]]]]


@contextlib.contextmanager
def rootfs() -> Iterator[Path]:
    """A folder with a static busybox in it, which every id may read."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise nslab.Unavailable("busybox", "apt-get install busybox-static")
    with tempfile.TemporaryDirectory(prefix="nslab-compare-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        root = Path(folder) / "rootfs"
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            (root / name).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        for name in ("sh", "cat", "hostname", "true"):
            (root / "bin" / name).symlink_to("busybox")
        if shutil.which("cc"):
            subprocess.run(["cc", "-static", "-o", root / "bin/keyring", HERE / "keyring.c"], check=True)
        yield root


def _nslab(root: Path, **options: object) -> contextlib.AbstractContextManager[tuple[int, list[str]]]:
    @contextlib.contextmanager
    def container() -> Iterator[tuple[int, list[str]]]:
        with nslab.Container("web", isolate="all", hostname="web", rootfs=root, **options) as web:  # type: ignore[arg-type]
            running = web.popen(COMMAND, stdin=True)
            yield running.pid, _until_ready(running.stdin, running.stdout)

    return container()


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[tuple[int, list[str]]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        said = _until_ready(process.stdin, process.stdout)
        yield _deepest(process.pid), said
    finally:
        process.stdin.close()  # type: ignore[union-attr]  # cat ends, and so does all the rest
        process.wait(10)
        process.stdout.close()  # type: ignore[union-attr]


def _until_ready(stdin, stdout) -> list[str]:
    """The lines that it says before cat, which it becomes then, echoes a word."""
    stdin.write(b"ready\n")
    stdin.flush()
    said, deadline = b"", time.monotonic() + PATIENCE
    while not said.endswith(b"ready\n"):
        part = (
            os.read(stdout.fileno(), 4096) if select.select([stdout], [], [], max(0, deadline - time.monotonic()))[0] else b""
        )
        if not part:
            raise RuntimeError(f"the container ended early, or was silent for {PATIENCE} s; it said {said!r}")
        said += part
    return said.decode().split("\n")[:-2]


def _deepest(pid: int) -> int:
    """The last process below: what the tool and its helpers started in the end."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return _deepest(children[-1]) if children else pid


def unshare(root: Path) -> contextlib.AbstractContextManager[tuple[int, list[str]]]:
    kinds = ["--user", "--map-root-user", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount", "--cgroup", "--time"]
    inside = ["/bin/sh", "-c", f"hostname web; {ASK}"]  # it has no option for the name
    return _process(["unshare", *kinds, "--root", str(root), "--mount-proc", "--kill-child", *inside])


def bwrap(root: Path) -> contextlib.AbstractContextManager[tuple[int, list[str]]]:
    options = ["--unshare-all", "--unshare-user", "--hostname", "web", "--bind", str(root), "/", "--proc", "/proc"]
    return _process(["bwrap", *options, "--dev", "/dev", "--die-with-parent", *COMMAND])


def bundle(root: Path, args: list[str]) -> Path:
    """A folder for `runc run --bundle`: as `runc spec` proposes it, with the kinds that are not in there, and for root with
    ids that are nobody's."""
    folder = root.parent / "bundle"
    folder.mkdir()
    privileged = os.geteuid() == 0
    subprocess.run(["runc", "spec", *([] if privileged else ["--rootless"])], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["root"]["path"] = str(root)
    config["process"] |= {"terminal": False, "args": args}
    config["hostname"] = "web"
    kinds = {entry["type"] for entry in config["linux"]["namespaces"]}
    wanted = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")
    config["linux"]["namespaces"] += [{"type": kind} for kind in wanted if kind not in kinds]
    if privileged:
        mapping = [{"containerID": 0, "hostID": UNPRIVILEGED, "size": 65536}]
        config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@contextlib.contextmanager
def runc(root: Path) -> Iterator[tuple[int, list[str]]]:
    state, name = str(root.parent / "state"), f"nslab-compare-{os.getpid()}"
    try:
        with _process(["runc", "--root", state, "run", "--bundle", str(bundle(root, COMMAND)), name]) as inside:
            yield inside
    finally:
        subprocess.run(["runc", "--root", state, "delete", "--force", name], capture_output=True)


TOOLS: dict[str, Tool] = {
    "unshare": unshare,
    "bwrap": bwrap,
    "runc": runc,
    "nslab": _nslab,
    "nslab, hardened": lambda root: _nslab(root, hardened=True),
}


def lacking(tool: str) -> str:
    """Why a tool cannot be asked here, or ""."""
    program = tool.partition(",")[0]
    return "" if program == "nslab" or shutil.which(program) else f"{program} is not here"
