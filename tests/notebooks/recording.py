"""python -m tests.notebooks.recording: what cells print on a kernel that can do it all, for machines that cannot.

A cell with ``{"nslab": {"recorded": "name"}}`` in its metadata shows a recording where it cannot do what it is about. Here its
notebook is run on a kernel of its own, a whole cgroup v2 included, and what such cells print goes to notebooks/recorded/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from nslab.lessons.prediction import MIME
from tests import uml
from tests.helpers import ROOT
from tests.notebooks.kernel import own_python

FOLDER = ROOT / "notebooks"
RECORDED = FOLDER / "recorded"
MARK = "RECORDED on "  # how a cell begins that shows a recording


def names(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    """The cells that have a recording, by its name."""
    found = {cell.metadata.get("nslab", {}).get("recorded"): cell for cell in notebook.cells}
    return {name: cell for name, cell in found.items() if name}


def record(path: Path) -> dict[str, str]:
    """Run a notebook here, from top to bottom; what each of those cells showed. AssertionError when one showed a recording."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="nslab-recording-") as name:
        for variable in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            os.environ[variable] = f"{name}/{variable.lower()}"
        manager = KernelManager(connection_file=f"{name}/kernel.json")
        manager._kernel_spec = own_python()
        try:
            NotebookClient(notebook, km=manager, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
        finally:
            if manager.has_kernel:
                manager.shutdown_kernel(now=True)
    found = {"kernel": "Linux " + ".".join(os.uname().release.split(".")[:2])}
    for label, cell in names(notebook).items():
        shown = [each for each in cell.outputs if MIME not in each.get("data", {})]  # a prediction is compared anyway
        texts = [each.text if "text" in each else each.data["text/plain"] for each in shown]
        found[label] = "".join(texts).rstrip()
        assert found[label] and MARK not in found[label], f"{label}: this kernel cannot do it either\n{found[label]}"
    return found


def elsewhere(path: Path) -> dict[str, str]:
    """The same, on a kernel of user-mode Linux, which lasts a minute. AssertionError with all that was said when it failed."""
    with tempfile.TemporaryDirectory(prefix="nslab-recording-") as name:
        folder = Path(name)
        with open(folder / "console", "wb") as console:
            command = [sys.executable, "-m", "tests.notebooks.recording", "--here", str(path), f"{folder}/found"]
            status = uml.run(folder, command, stdout=console, stderr=subprocess.STDOUT)
        assert status == 0, (folder / "console").read_text(errors="replace")
        found: dict[str, str] = json.loads((folder / "found").read_text())
    return found


def main() -> None:
    if sys.argv[1:2] == ["--here"]:
        Path(sys.argv[3]).write_text(json.dumps(record(Path(sys.argv[2]))))
        return
    RECORDED.mkdir(exist_ok=True)
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names(nbformat.read(path, as_version=4)):
            found = elsewhere(path)
            (RECORDED / f"{path.stem}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            print(f"{path.stem}: {len(found) - 1} recordings on {found['kernel']}")


if __name__ == "__main__":
    main()
