"""Every notebook of the course, run from top to bottom in a fresh kernel."""

from __future__ import annotations

import os
import re
import time
import uuid
from pathlib import Path

import nbformat
import pytest

from tests.crash.oracle import MARK, Oracle, descendants
from tests.fingerprint import changes, fingerprint
from tests.notebooks.kernel import execute

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("**/[!.]*.ipynb"))
TROUBLE = re.compile(r"Traceback \(most recent call last\)|Warning: ")


def texts(output) -> list[str]:
    """Everything that an output shows, as text."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [*output.traceback]
    return [text if isinstance(text, str) else str(text) for text in output.data.values()]


def test_there_are_notebooks():
    """The next test is empty without them: that has to be seen."""
    if not FOLDER.is_dir():
        pytest.skip("there is no folder notebooks/ yet")
    assert NOTEBOOKS


@pytest.mark.timeout(300)
@pytest.mark.requires("userns")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    mark = uuid.uuid4().hex
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for name, value in {
        MARK: mark, "TMPDIR": str(temporary), "HOME": str(tmp_path), "IPYTHONDIR": f"{tmp_path}/ipython",
        "JUPYTER_RUNTIME_DIR": f"{tmp_path}/runtime", "JUPYTER_CONFIG_DIR": f"{tmp_path}/config",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell for cell in code if cell.outputs or cell.execution_count], "in git, notebooks carry no outputs"
    before, oracle, old = fingerprint(), Oracle(mark, temporary), descendants(os.getpid())

    execute(notebook, path.parent, tmp_path / "kernel.json", timeout=120)

    for number, cell in enumerate(code, 1):
        raises = "raises-exception" in cell.metadata.get("tags", ())
        for output in cell.outputs:
            shown = "\n".join(texts(output))
            assert raises or output.output_type != "error", f"cell {number}:\n{cell.source}\n{shown}"
            assert raises or not TROUBLE.search(shown), f"cell {number}:\n{cell.source}\n{shown}"
    assert all(cell.execution_count for cell in code), "not every cell ran"
    assert changes(before, fingerprint()) == []
    deadline = time.monotonic() + 2
    while (left := oracle.left(old)) and time.monotonic() < deadline:
        time.sleep(0.02)  # polling: most of these have no descriptor to wait on
    assert not left
