"""The plan of a unit: a question, what one can do after it, and a check and a prediction for each of that."""

from __future__ import annotations

import json
import re

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.unit

UNITS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
ABILITY = re.compile(r"^- (?P<what>.+?)(?P<tie> \(checks? [^()]*\))?[;.]$", re.MULTILINE | re.DOTALL)
PROJECT = "12"  # ends with a project of one's own in the place of checks


def numbers(word: str, text: str) -> set[int]:
    """What "checks 1, 2 and 3" names."""
    return {
        int(each) for found in re.findall(rf"{word}s? (\d+(?:(?:, | and )\d+)*)", text) for each in re.findall(r"\d+", found)
    }


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request):
    """Its number, its prose and its code."""
    cells = json.loads(request.param.read_text())["cells"]
    prose, code = (
        "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == kind) for kind in ("markdown", "code")
    )
    return request.param.name[:2], prose, code


def test_there_are_units() -> None:
    assert [path.name[:2] for path in UNITS] == [f"{number:02}" for number in range(len(UNITS))]


def test_it_has_the_parts_of_a_unit(unit) -> None:
    number, text, _ = unit
    assert text.split("\n")[0].endswith("?"), "its title is a question"
    for part in (
        "A true story",
        "Nothing left behind",
        "Further reading",
        "Your project" if number == PROJECT else "Check yourself",
    ):
        assert re.search(rf"^## {part}$", text, re.MULTILINE), part
    assert re.search(r"\b\w+\(\d\)", text), "it names man pages"
    assert re.search(r"About \d\d minutes|about \d\d minutes", text)


def test_each_ability_has_a_check_and_a_prediction(unit) -> None:
    number, text, code = unit
    listed = text.partition("After this you can\n\n")[2].partition("\n\n")[0].replace("\n  ", " ")
    abilities = ABILITY.findall(listed)
    assert len(abilities) == 3, listed
    assert all(tie for _, tie in abilities), listed

    _, _, after = text.partition("## Your project\n" if number == PROJECT else "## Check yourself\n")
    checks = {int(each) for each in re.findall(r"^(\d)\. ", after.partition("\n## ")[0], re.MULTILINE)}
    assert numbers("check", listed) == checks

    asked = code.count("nslab.predict(")
    assert asked >= 3
    assert numbers("prediction", listed) <= set(range(1, asked + 1))
    assert code.count(".compare(") >= asked, "each is compared with what the kernel then did"
