"""Recordings that notebooks show where a machine cannot do what a cell is about: all are there, and they are true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import recording

NOTEBOOKS = [path for path in sorted(recording.FOLDER.glob("*.ipynb")) if '"recorded":' in path.read_text()]


def recorded(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((recording.RECORDED / f"{path.stem}.json").read_text())
    return found


def test_there_are_recordings() -> None:
    """The tests below are empty without them."""
    assert {path.stem for path in NOTEBOOKS} == {path.stem for path in recording.RECORDED.glob("*.json")} != set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_cell_that_may_show_one_names_it(path: Path) -> None:
    cells = recording.names(nbformat.read(path, as_version=4))
    assert set(cells) == set(recorded(path)) - {"kernel"}
    for name, cell in cells.items():
        assert f'recorded("{name}")' in cell.source


def sense(text: str) -> str:
    """A text without its numbers, and without the blanks that depend on how long they are."""
    return " ".join(re.sub(r"-[0-9a-f]{6}/|\d+(\.\d+)?", "N", text).split())


@pytest.mark.uml
@pytest.mark.timeout(300)
@pytest.mark.requires("cgroup2:pids+memory+cpu", "root")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_kernel_that_can_do_it_prints_what_was_recorded(path: Path) -> None:
    """Every cell of it runs and checks itself; the numbers are its own."""
    before, now = recorded(path), recording.record(path)
    assert {name: sense(text) for name, text in now.items()} == {name: sense(text) for name, text in before.items()}
