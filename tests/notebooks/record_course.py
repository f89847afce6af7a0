"""python -m tests.notebooks.record_course [UNIT]...: record what the cells of the course put out (`make record`).

Units are run as root in a container with PIDs, mounts, a host name and a network of its own, where the checkout lies in
/srv/nslab: so recordings tell nothing of the machine that they were made on, and their PIDs are small.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nslab
from nslab.lessons.course import Course, Unit
from nslab.lessons.executing import execute
from nslab.recordings import FOLDER, condensed, write
from tests.helpers import ROOT

THERE = Path("/srv/nslab")
INSIDE = "NSLAB_RECORDING"  # set in the container
PATH = f"{THERE}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STANDARD = {
    "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "lost+found", "media", "mnt", "opt", "proc",
    "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var",
}  # fmt: skip


def record(unit: Unit) -> str:
    """Run a unit and keep what its cells put out; what is to be said of that."""
    outcome = execute(unit)
    if outcome.failure or outcome.impossible:
        sys.exit(f"{unit.name}: {outcome.impossible or outcome.failure}")
    cells = [(cell.source, condensed(cell.outputs)) for cell in outcome.notebook.cells if cell.cell_type == "code"]
    path = FOLDER / f"{unit.name}.json"
    write(path, "Linux " + ".".join(outcome.linux.split(".")[:2]), cells)
    path.write_text(anonymous(path.read_text()))
    return f"{unit.name}: {len(cells)} cells, {path.stat().st_size >> 10} kB, {outcome.seconds:.0f} s"


def anonymous(text: str) -> str:
    """Without the place of the checkout, and what else than the usual lies in /, which a cell lists."""
    for name in set(os.listdir("/")) - STANDARD:
        text = text.replace(f"'{name}', ", "")
    return text.replace(os.environ[INSIDE], str(THERE))


def main() -> None:
    if INSIDE in os.environ:
        for unit in Course.find(THERE / "notebooks").choose(sys.argv[1:]):
            print(record(unit), flush=True)
        return
    if os.geteuid():
        sys.exit("recordings are made as root: cells do more then")
    python = Path(sys.executable)
    python = THERE / python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    lay = f'mkdir {THERE} && mount --bind "{ROOT}" {THERE} && cd {THERE} && exec "$@"'
    with tempfile.TemporaryDirectory(prefix="nslab-recording-") as folder:
        os.chmod(folder, 0o1777)
        result = nslab.run(
            ["sh", "-c", lay, "sh", str(python), "-m", "tests.notebooks.record_course", *sys.argv[1:]],
            isolate="pid mnt uts net", hostname="machine", loopback=True, stream=True,
            mounts=[nslab.Tmpfs("/srv"), nslab.Bind(folder, "/tmp")],
            env={"PATH": PATH, "HOME": "/tmp", "PYTHONPATH": str(THERE), "LANG": "C.UTF-8", INSIDE: str(ROOT)},
        )  # fmt: skip
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
