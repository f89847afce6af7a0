"""nslab course: units that are run, and what is said of one that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat.v4
import pytest

from tests.helpers import ROOT

COMMAND = [sys.executable, "-m", "nslab.cli", "course"]
TABLE = (
    "id,kind,statement,level,needs\nuts-01,uts,A name is a name.,core,\nuts-02,uts,Another.,core,\npid-01,pid,One.,advanced,\n"
)


def course(*words: str, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], cwd=cwd, capture_output=True, text=True, timeout=100, **options)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A course of four units: one is well, one raises, one has a display that raises, one expects what it raises."""
    display = "class Bad:\n    def _repr_html_(self): raise ValueError('not drawn')\nBad()"
    units = {
        "00-start": ("# What?\n\nText.", ["import os", "assert os.getcwd().endswith('notebooks')"]),
        "01-wrong": ("# Why?", ["x = 1", "assert x == 2, 'x is one'", "print('never')"]),
        "02-display": ("# Where?", [display]),
        "03-expected": ("# Who?", ["1 / 0"]),
    }
    (tmp_path / "notebooks").mkdir()
    for name, (title, cells) in units.items():
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_markdown_cell(title), *map(nbformat.v4.new_code_cell, cells)]
        notebook.cells[1].metadata = {"nslab": {"facts": ["uts-01"]}} if name == "00-start" else {}
        notebook.cells[1].metadata |= {"tags": ["raises-exception"]} if name == "03-expected" else {}
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "facts.csv").write_text(TABLE)
    return tmp_path


def test_units_are_run_and_told_in_a_table(folder) -> None:
    done = course("run", "start", "03", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1][:2] == ["00-start", "What?"] and rows[1][3:] == ["1", "ok"]
    assert rows[2][:2] == ["03-expected", "Who?"] and rows[2][3:] == ["ok"]
    assert not done.stderr


def test_the_cell_that_failed_is_shown(folder) -> None:
    done = course("run", "01", "02", "--folder", str(folder))
    assert done.returncode == 1
    assert "01-wrong, code cell 2" in done.stdout and "assert x == 2" in done.stdout and "x is one" in done.stdout
    assert "02-display, code cell 1" in done.stdout and "not drawn" in done.stdout
    assert "never" not in done.stdout


def test_the_outcome_for_programs(folder) -> None:
    done = course("run", "--json", cwd=folder / "notebooks")
    assert done.returncode == 1
    told = {each["unit"]: each for each in json.loads(done.stdout)}
    assert {name: each["ok"] for name, each in told.items()} == {
        "00-start": True, "01-wrong": False, "02-display": False, "03-expected": True,
    }  # fmt: skip
    assert told["00-start"]["facts"] == ["uts-01"]
    assert told["00-start"]["seconds"] > 0
    assert told["01-wrong"]["failure"]["cell"] == 2


def test_in_a_kernel_that_is_named(folder) -> None:
    """Another kernelspec than this Python's, found as Jupyter finds it; it says so where there is none."""
    spec = {
        "argv": ["env", "WHICH=the other", sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Other", "language": "python",
    }  # fmt: skip
    (folder / "kernels" / "other").mkdir(parents=True)
    (folder / "kernels" / "other" / "kernel.json").write_text(json.dumps(spec))
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell("import os\nassert os.environ['WHICH'] == 'the other'")]
    nbformat.write(notebook, folder / "notebooks" / "04-which.ipynb")
    env = {**os.environ, "JUPYTER_PATH": str(folder)}
    told = json.loads(course("run", "04", "--kernel", "other", "--json", cwd=folder, env=env).stdout)[0]
    assert told["ok"] and 0 < told["ready"] <= told["seconds"] and told["linux"] == os.uname().release
    assert not json.loads(course("run", "04", "--json", cwd=folder).stdout)[0]["ok"]
    lost = course("run", "04", "--kernel", "nobody", cwd=folder)
    assert lost.returncode == 1 and "nobody" in lost.stderr and "Traceback" not in lost.stderr


def test_what_this_linux_lacks_is_said_and_not_run(folder) -> None:
    """A unit names the kinds of namespace that it needs, in the metadata of its notebook."""
    notebook = nbformat.v4.new_notebook(metadata={"nslab": {"needs": ["uts", "colour"]}})
    notebook.cells = [nbformat.v4.new_code_cell("raise SystemExit")]
    nbformat.write(notebook, folder / "notebooks" / "04-colours.ipynb")
    done = course("run", "04", "--json", cwd=folder)
    told = json.loads(done.stdout)[0]
    assert told["ok"] and told["impossible"].endswith("was built without colour namespaces") and done.returncode == 0
    assert "without colour" in " ".join(course("run", "04", cwd=folder).stdout.split())


def test_coverage_counts_what_cells_carry(folder) -> None:
    found = json.loads(course("coverage", "--json", cwd=folder).stdout)
    counts = {f"{level}_{word}" for level in ("core", "advanced") for word in ("shown", "total")}
    assert {name: found[name] for name in counts} == {
        "core_shown": 1, "core_total": 2, "advanced_shown": 0, "advanced_total": 1,
    }  # fmt: skip
    assert found["core_missing"] == ["uts-02"]
    assert found["shown"] == {"uts-01": ["00-start"]}
    text = course("coverage", cwd=folder).stdout
    assert "1 of 2" in text and "uts-02" in text and "Another." in text


def test_without_notebooks_it_says_where_they_are(tmp_path) -> None:
    done = course("run", "--folder", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert "they come with the source of nslab" in done.stderr and "Traceback" not in done.stderr


def test_a_unit_that_is_not_there(folder) -> None:
    done = course("run", "99", cwd=folder)
    assert done.returncode == 1
    assert "there is none '99'; there are: 00-start, 01-wrong" in done.stderr
