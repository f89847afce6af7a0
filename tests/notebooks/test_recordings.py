"""The course where nothing is allowed: each cell shows what it printed when it was recorded, marked, and is not run.

That is tried in a kernel which no_new_privs and a seccomp filter bind, with no linux.uml on its PATH.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from nslab.lessons.executing import is_recorded
from nslab.recordings import FOLDER, Recordings, key, write
from nslab.recordings.mode import only_defines
from tests.helpers import ROOT
from tests.notebooks.confined import path_without
from tests.notebooks.kernel import Kernel, execute
from tests.notebooks.test_notebooks import NOTEBOOKS, TROUBLE, texts

CONFINED = [sys.executable, "-m", "tests.notebooks.confined", sys.executable]
HOW = "as root: make record ARGS="


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_has_a_recording(path: Path) -> None:
    recorded = [cell.key for cell in Recordings().units.get(path.stem, [])]
    changed = [cell.source for cell in code(path) if key(cell.source) not in recorded]
    assert not changed, f"{len(changed)} cells are not as recorded; {HOW}{path.stem}\n\n" + "\n\n".join(changed)
    assert recorded == [key(cell.source) for cell in code(path)], f"cells went or moved; {HOW}{path.stem}"


def test_recordings_are_of_the_course_and_tell_nothing_of_who_made_them() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {path.stem for path in NOTEBOOKS}
    for path in FOLDER.glob("*.json"):
        assert not re.search(r"/home/\w|/root/\.|(?<!/srv/nslab/)\.venv/", path.read_text()), path.name


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A PATH with everything but user-mode Linux."""
    return path_without(tmp_path_factory.mktemp("path") / "bin")


@pytest.fixture
def confined(tmp_path, path) -> Iterator[Kernel]:
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    with Kernel(tmp_path, python=CONFINED, env=env) as kernel:
        yield kernel


def marked(data: list[dict]) -> list[str]:
    return [each["text/plain"] for each in data if each["text/plain"].startswith("RECORDED")]


@pytest.mark.parametrize("unit", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_unit_is_shown_where_nothing_is_allowed(unit: Path, tmp_path, path, monkeypatch) -> None:
    for name, value in {
        "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "IPYTHONDIR": f"{tmp_path}/ipython",
        "JUPYTER_RUNTIME_DIR": f"{tmp_path}/runtime", "TMPDIR": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(unit, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    execute(notebook, unit.parent, tmp_path / "kernel.json", timeout=60, python=CONFINED)

    assert not [cell for cell in cells if not cell.execution_count], "not every cell ran"
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            shown = "\n".join(texts(output))
            assert output.output_type != "error", f"cell {number}:\n{cell.source}\n{shown}"
            assert not TROUBLE.search(shown), f"cell {number}:\n{cell.source}\n{shown}"
        recorded = any(map(is_recorded, cell.outputs))
        assert number == 1 or recorded != only_defines(cell.source), f"cell {number}:\n{cell.source}"
    notices = [text for cell in cells for output in cell.outputs for text in texts(output) if "What to do" in text]
    assert len(notices) == 2 and notices[0] in texts(cells[0].outputs[-1]), "one notice, as HTML and as text, below the first"
    assert "allows no namespaces" in notices[0] and "user-mode-linux" in notices[0]


def test_a_cell_that_is_shown_is_not_run(confined, tmp_path) -> None:
    """Two cells that touch a file: one has a recording, the other has none."""
    folder, here = tmp_path / "units", tmp_path / "touched"
    folder.mkdir(), here.mkdir()
    first = f"from pathlib import Path\nfrom nslab.recordings import store\nstore.FOLDER = Path({str(folder)!r})\nimport nslab"
    touch = f"Path({str(here)!r}, '{{}}').touch()"
    output = {"stream": "stdout", "text": ["it was touched\n"]}
    write(
        folder / "99-touch.json", "Linux 9.9", [(first, []), (touch.format("recorded"), [output]), (touch.format("silent"), [])]
    )
    confined.run(first).ok()
    shown = confined.run(touch.format("recorded")).ok()
    assert marked(shown.data) == ["RECORDED on Linux 9.9, not on this machine:\n\nit was touched"]
    assert "it was touched" in shown.data[0]["text/html"] and "not run here" in shown.data[0]["text/html"]
    silent = confined.run(touch.format("silent")).ok()
    assert marked(silent.data) == ["RECORDED on Linux 9.9, not on this machine; it printed nothing"]
    assert not confined.run(touch.format("own")).ok().data
    assert os.listdir(here) == ["own"]


def test_an_error_of_a_cell_of_ones_own_is_short(confined) -> None:
    confined.run("import nslab").ok()
    made = confined.run("kind = 'user'\n\nnslab.run('id', isolate=kind)")
    assert made.error == "Unavailable" and "what to do:" in made.traceback
    assert "here, line 3: nslab.run('id', isolate=kind)" in made.traceback and "nslab/" not in made.traceback
    lost = confined.run("web.run('id')")
    assert lost.error == "Unavailable" and "name 'web' is not defined" in lost.traceback and "was not run" in lost.traceback
    other = confined.run("def halve(x):\n    return x / 0\n\nhalve(1)")
    assert other.error == "ZeroDivisionError" and "Unavailable" not in other.traceback
    assert max(len(cell.traceback.splitlines()) for cell in (made, lost, other)) < 12
    assert confined.run("'on it goes'").ok().data


def test_a_prediction_is_compared_with_what_was_recorded(confined) -> None:
    cells = [cell.source for cell in code(ROOT / "notebooks" / "00-start.ipynb")]
    for source in cells[:4]:
        confined.run(source).ok()
    confined.run("shells.say('a')").ok()
    text = marked(confined.run(cells[4]).ok().data)[0]
    assert "the second one says: web-2" in text and "Not as you predicted. You: a)" in text and "did not" not in text
    for source in cells[5:8]:
        confined.run(source).ok()
    confined.run("listed.say(3)").ok()
    text = marked(confined.run(cells[8]).ok().data)[0]
    assert text.splitlines()[-1] == "As you predicted. You: 3 processes. The kernel: 3 processes"


def test_a_first_cell_that_fails_shows_its_recording(confined) -> None:
    """It asks for a program that is missing here, as it may well be where nothing is allowed."""
    source = code(ROOT / "notebooks" / "02-pid.ipynb")[0].source
    confined.run("import os; os.environ['PATH'] = '/nowhere'").ok()
    shown = confined.run(source).ok()
    assert (
        marked(shown.data)
        and "for it failed here" in shown.data[0]["text/html"]
        and "What to do" in shown.data[-1]["text/plain"]
    )


def test_of_two_cells_with_one_source_each_shows_its_own(confined) -> None:
    unit = ROOT / "notebooks" / "12-prototyping-topologies.ipynb"
    twins = [cell for cell in Recordings().units[unit.stem] if cell.key == key("sites.draw()")]
    assert len(twins) == 2 and twins[0].outputs != twins[1].outputs, "or this test is about nothing"
    shown = [confined.run(cell.source).ok().data for cell in code(unit)]
    first, second = (marked(shown[cell.number - 1]) for cell in twins)
    assert first and second and first != second


@pytest.mark.parametrize("program", ["", "setpriv --no-new-privs"])
def test_where_something_is_allowed_nothing_is_changed(program, tmp_path) -> None:
    """Also where there is some obstacle, which is looked at more closely: an error is shown as ever."""
    with Kernel(tmp_path, python=[*program.split(), sys.executable], env={**os.environ, "PYTHONPATH": str(ROOT)}) as kernel:
        failed = kernel.run("before = get_ipython().CustomTB.__func__\nimport nslab\nnslab.nonsense")
        assert failed.error == "AttributeError" and "Traceback (most recent call last)" in failed.traceback
        shell = kernel.run("get_ipython().custom_exceptions, get_ipython().CustomTB.__func__ is before").ok()
        assert shell.data[0]["text/plain"] == "((), True)"
        assert kernel.run("print(nslab.run('hostname', isolate='user uts', hostname='web'))").ok().stdout == "web\n"


def test_course_run_says_so(tmp_path, path) -> None:
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "COLUMNS": "120"}
    command = [*CONFINED, "-m", "nslab.cli", "course", "run", "history"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cells shown from recordings" in done.stdout and " ok" not in done.stdout
    done = subprocess.run([*command, "--json"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)[0]
    assert told["ok"] and 8 < told["recorded"] < len(code(ROOT / "notebooks" / "history.ipynb"))
