"""The course has a cell for each core fact, and every tag names a fact of the table."""

from __future__ import annotations

import pytest

from nslab.lessons.course import LEVELS, Course
from nslab.model import KINDS
from tests.helpers import ROOT

pytestmark = pytest.mark.unit

COURSE = Course(ROOT / "notebooks")

# Core facts that no cell shows yet. The course is whole when this is empty: it only ever shrinks.
NOT_YET = {
    "uts-01", "uts-02", "uts-03", "uts-04", "uts-05", "uts-06", "uts-08", "uts-09", "uts-10",
    "net-01", "net-02", "net-04", "net-05", "net-07", "net-08", "net-09",
    "net-10", "net-12", "net-15", "net-16", "net-17", "net-18", "net-21",
    "cgroup-01", "cgroup-02", "cgroup-06", "cgroup-08",
    "api-01", "api-02", "api-03", "api-04", "api-05", "api-06", "api-08", "api-13",
    "proc-01", "seed-01", "seed-02", "seed-03", "seed-05", "seed-06",
}  # fmt: skip


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
    lost = {fact.id for fact in COURSE.coverage().missing("core")} - NOT_YET
    assert not lost, "no cell of the course carries their tags any more"
