"""The gallery on a machine without graphviz, and its HTML for a reader without a kernel."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from tests.helpers import ROOT
from tests.notebooks.kernel import own_python

DRAWS = re.compile(r"^(nslab\.draw\(|lab\.draw\(|nslab\.Topology.*\.draw\()", re.MULTILINE)


def path_without(program: str, folder: Path) -> str:
    """A PATH with all that is on this one but a program."""
    for place in os.environ["PATH"].split(os.pathsep):
        for file in Path(place).iterdir() if Path(place).is_dir() else ():
            if file.name != program and not (folder / file.name).is_symlink():
                (folder / file.name).symlink_to(file)
    return str(folder)


@pytest.mark.timeout(300)
@pytest.mark.requires("userns")
def test_every_picture_is_drawn_without_dot_and_stays_in_the_html(tmp_path, monkeypatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", path_without("dot", tmp_path / "bin"))
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(ROOT / "notebooks" / "gallery.ipynb", as_version=4)
    manager = KernelManager(connection_file=f"{tmp_path}/kernel.json")
    manager._kernel_spec = own_python()
    try:
        NotebookClient(notebook, km=manager, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    finally:
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
    drawn = [cell for cell in notebook.cells if cell.cell_type == "code" and DRAWS.search(cell.source)]
    assert len(drawn) >= 15
    for cell in drawn:
        html = "".join(output.data.get("text/html", "") for output in cell.outputs if output.output_type == "execute_result")
        assert html.count("<svg ") == 1, cell.source
        assert "<title>" in html
        assert "<table" in html or "<pre" in html
    exported, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    assert len(re.findall('<svg [^>]*role="img"', exported)) == len(drawn), "inline, not as files"
