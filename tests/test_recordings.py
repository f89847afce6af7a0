"""Recordings of the course as data: which machines are doubted, which cells run all the same, and what is kept of outputs."""

from __future__ import annotations

import pytest

from nslab.machines.machine import Machine
from nslab.model import KINDS
from nslab.recordings import Recordings, condensed, write
from nslab.recordings.mode import is_doubtful, only_defines
from nslab.recordings.showing import framed
from tests.test_doctor import ROOT, machine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("doubtful", "changes"),
    [
        (False, {}),
        (False, {"status": ROOT}),
        (False, {"status": ROOT, "kinds": [kind for kind in KINDS if kind != "user"]}),
        (True, {"kinds": [kind for kind in KINDS if kind != "user"]}),
        (True, {"status": {"Seccomp": "2"}}),
        (True, {"status": {**ROOT, "Seccomp": "2"}}),
        (True, {"user__max_user_namespaces": 0}),
        (True, {"kernel__apparmor_restrict_unprivileged_userns": 1}),
        (True, {"kernel__unprivileged_userns_clone": 0}),
    ],
)
def test_a_namespace_is_tried_only_where_something_may_forbid_it(doubtful, changes, tmp_path) -> None:
    assert is_doubtful(Machine(machine(tmp_path, **changes))) is doubtful


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        ("import os\nfrom nslab import network", True),
        ("def f(x=1, *, y=(2, 'a')):\n    return os.fork()", True),
        ('"""Text."""\nDAY = 86400\nwords = ["a", "b"]', True),
        ("asked = nslab.predict('Does it?', choices=['no', 'yes'])\nasked", True),
        ("asked = nslab.predict('Does it?', choices=names())", False),
        ("asked", False),
        ("asked.compare('a')", False),
        ("p = nslab.process()", False),
        ("def f(x=os.fork()):\n    pass", False),
        ("@nslab.run\ndef f():\n    pass", False),
        ("DAY = 86400\nprint(DAY)", False),
        ("%%ns web\nhostname", False),
    ],
)
def test_what_only_defines_and_asks_is_run(source, runs) -> None:
    assert only_defines(source) is runs


def test_a_cell_is_found_by_its_source_and_of_twins_the_next(tmp_path) -> None:
    write(tmp_path / "01-a.json", "Linux 1", [("x", []), ("twin", []), ("y", []), ("twin", []), ("z", [])])
    write(tmp_path / "02-b.json", "Linux 1", [("x", []), ("twin", [])])
    found = Recordings(tmp_path)
    assert found.find("nobody's") is None
    assert found.find("\n  twin\n") == found.units["01-a"][1]
    first = found.units["01-a"]
    assert [found.find("twin", at).number for at in first if at] == [2, 2, 4, 4, 2]
    assert found.find("x", found.units["02-b"][1]).unit == "02-b"


def test_what_is_kept_of_outputs_is_what_is_shown(tmp_path) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "one\n\x1b[31mred\x1b[0m"},
        {"output_type": "stream", "name": "stdout", "text": " line <b>\n"},
        {"output_type": "display_data", "data": {"text/plain": "a table", "text/html": "<table></table>", "image/png": "AAAA"}},
        {"output_type": "execute_result", "data": {"text/plain": "a widget", "application/vnd.jupyter.widget-view+json": {}}},
        {"output_type": "error", "traceback": ["\x1b[31mTrouble\x1b[0m"]},
    ]
    write(tmp_path / "01-a.json", "Linux 1", [("x", condensed(outputs))])
    (cell,) = Recordings(tmp_path).units["01-a"]
    assert [kind for output in cell.outputs for kind in output.get("data", ())] == ["text/html", "text/plain", "text/plain"]
    shown = framed(cell.outputs, cell.kernel)
    assert shown["text/plain"].splitlines()[2:] == ["one", "red line <b>", "a table", "a widget", "Trouble"]
    assert (
        "red line &lt;b&gt;" in shown["text/html"]
        and "<table></table>" in shown["text/html"]
        and "AAAA" not in shown["text/html"]
    )
