"""The glossary has the words of the course: those that the project has agreed on, each with a unit in which it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nslab.lessons.course import Course
from tests.helpers import ROOT

pytestmark = pytest.mark.unit

COURSE = Course(ROOT / "notebooks")
ENTRY = re.compile(r"^- \*\*(.+?)\*\* \(\[(.+?)\]\(\.\./notebooks/(.+?)\)\): (.*(?:\n  .*)*)", re.MULTILINE)
ENTRIES = {word: (number, Path(file).stem, text) for word, number, file, text in ENTRY.findall(COURSE.glossary)}

# Words that the course uses in one sense only; each has to be explained when a unit uses it.
WORDS = """
bind mount, bridge, capability, carrier, cgroup, container, controller, descriptor, diff, hold, host name, id map, implied,
init, initial namespace, interface, kind, lab, link, lower, member, mount, namespace, node, overlay, owner, peer, peer group,
pivot, private, propagation, route, shared, slave, snapshot, subordinate ids, topology, trace, unbindable, upper, veth pair
""".replace("\n", " ").split(", ")


def text(name: str) -> str:
    return "\n".join(str(cell["source"]) for unit in COURSE.units if unit.name == name for cell in unit.cells)


def has(words: str, name: str) -> bool:
    """Whether a unit has all parts of an entry ("clock, wall"), also in the plural."""
    return all(re.search(rf"\b{re.escape(word)}", text(name), re.IGNORECASE) for word in words.split(", "))


def test_the_words_of_the_course_are_in_it() -> None:
    used = {word.strip() for word in WORDS if any(has(word.strip(), unit.name) for unit in COURSE.units)}
    assert len(used) > 30
    assert not used - ENTRIES.keys()


@pytest.mark.parametrize("word", ENTRIES)
def test_an_entry_names_a_unit_in_which_the_word_stands(word) -> None:
    number, name, said = ENTRIES[word]
    assert number in (name, name.partition("-")[0]), "the number and the link are of two units"
    assert has(word, name)
    assert 1 <= len(re.findall(r"[.:?](?:\s|$)", said)) <= 3, "one sentence or two"


def test_it_is_in_order() -> None:
    words = [word.casefold() for word in ENTRIES]
    assert words == sorted(words)
    assert len(words) == COURSE.glossary.count("\n- **"), "an entry of another form"
