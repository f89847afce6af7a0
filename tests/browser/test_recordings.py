"""The course in JupyterLab where nothing is allowed: what was recorded, in a frame, photographed in light and dark."""

from __future__ import annotations

import json
import sys

import pytest

from tests.helpers import ROOT
from tests.notebooks.confined import path_without

pytestmark = [pytest.mark.requires("tool:chromium"), pytest.mark.timeout(240)]


@pytest.fixture
def bound(server, tmp_path) -> str:
    """The name of a kernel that a seccomp filter binds, without user-mode Linux."""
    folder = server.folder.parent / "share" / "jupyter" / "kernels" / "bound"
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "tests.notebooks.confined", sys.executable, "-m", "ipykernel_launcher", "-f"]
    env = {"PYTHONPATH": str(ROOT), "PATH": path_without(tmp_path / "bin")}
    spec = {"argv": [*argv, "{connection_file}"], "display_name": "Bound", "language": "python", "env": env}
    (folder / "kernel.json").write_text(json.dumps(spec))
    return folder.name


@pytest.mark.parametrize("unit", ["00-start", "08-networks-of-containers"])
def test_a_unit_is_shown_in_frames(unit, bound, server, open_notebook, screenshots) -> None:
    content = json.loads((ROOT / "notebooks" / f"{unit}.ipynb").read_text())
    content["metadata"]["kernelspec"] = {"name": bound, "display_name": "Bound", "language": "python"}
    content["cells"].append({**content["cells"][-1], "id": "own", "source": "nslab.run('id', isolate='user')"})
    content["cells"][-1] |= {"cell_type": "code", "outputs": [], "execution_count": None, "metadata": {}}
    (server.folder / f"{unit}-bound.ipynb").write_text(json.dumps(content))
    notebook = open_notebook(f"{unit}-bound.ipynb")
    notebook.run_all()
    assert [error.split(":")[1] for error in notebook.errors()] == [" Unavailable"], "that of the last cell, which is our own"
    frames = notebook.page.locator(".jp-OutputArea-output", has_text="not run here")
    assert frames.count() > 5
    assert frames.first.locator("div[style*=border]").evaluate("frame => getComputedStyle(frame).borderLeftStyle") == "solid"
    for theme in ("Light", "Dark"):
        notebook.theme(f"JupyterLab {theme}")
        notebook.screenshots(screenshots, f"{unit}-bound-{theme.lower()}")
