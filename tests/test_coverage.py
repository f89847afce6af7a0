"""The course has a cell for each core fact, and every tag names a fact of the table."""

from __future__ import annotations

import pytest

from nslab.lessons.course import LEVELS, Course
from nslab.model import KINDS
from tests.helpers import ROOT

pytestmark = pytest.mark.unit

COURSE = Course(ROOT / "notebooks")


def test_the_table_is_one_of_facts() -> None:
    facts = COURSE.facts.values()
    assert len(facts) >= 190
    for fact in facts:
        assert fact.level in LEVELS, fact
        assert fact.kind in (*KINDS, "any", "proc", "checkpoint"), fact
        assert fact.statement.endswith("."), fact
        assert fact.id.rpartition("-")[2].isdigit()


def test_every_tag_is_a_fact() -> None:
    assert COURSE.coverage().unknown == []


def test_no_core_fact_is_lost() -> None:
    lost = [fact.id for fact in COURSE.coverage().missing("core")]
    assert not lost, "no cell of the course carries their tags any more"
