"""A cell that shows a fact fails when the namespaces that it is about are not made.

Each unit runs in a session in which what isolates can be taken out of a cell: the kinds are dropped from what is asked for, raw
calls do nothing. That is done in the cell that shows the fact, or, where that only looks at what an earlier one has made, from
there on; what fails in between does not count then. What cannot be taken out is LISTED, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nslab.lessons.course import Course, tags
from nslab.model import KINDS
from tests.helpers import ROOT
from tests.taken_out.sandbox import Step, session

COURSE = Course(ROOT / "notebooks")
UNITS = [unit for unit in COURSE.units if unit.facts]
EARLIER = 4  # cells before it that are tried

SHARED = "it is about what is the same with and without"
LOOKS = "it looks at what earlier cells have made: without it there is nothing to look at"
SCRIPT = "a program of its own makes the call"
NETWORK = "the networks of a lab are namespaces: there is no word to take out"
NO_NAMESPACE = "it is about cgroups, not about their namespace"

# By unit and the id of the cell: the facts it shows, and why it stays green or cannot be tried.
LISTED: dict[str, dict[str, str]] = {
    "00-start": {"72b205b0": "api-18: it is about a process of the machine"},
    "01-uts": {"4f86b812": "api-13: nsenter(1) may not enter all of the machine's from a user namespace"},
    "02-pid": {"a20e0cc4": f"pid-07: {LOOKS}", "d186dd1e": f"pid-20: {LOOKS}", "92fd75f7": f"api-14: {SCRIPT}"},
    "03-ipc": {"4c9dd6e2": f"ipc-04: {SHARED}"},
    "04-time": {"0c1eadbd": f"time-02: {SCRIPT}", "a0cf1fd6": f"time-10: {SCRIPT}"},
    "05-users": {
        "4d832de7": "user-06: the map of the machine cannot be written again, either",
        "02167809": "user-14: it is about the machine's own map",
        "8dbf304f": "user-12: it needs subordinate ids, which the session has not",
    },
    "06-filesystems": {"7d518589": f"mnt-07: {LOOKS}", "cc2ec727": f"mnt-04: {LOOKS}", "176e74f8": f"proc-07: {SHARED}"},
    "07-network-one-namespace": {
        "34f0a762": "net-01: the machine's loopback answers, too",
        "f98536c5": f"net-03: {NETWORK}",
        "230c8435": f"net-22: {NETWORK}",
    },
    "08-networks-of-containers": {key: f"net-20: {NETWORK}" for key in ("cfa70bd5", "ff5c5c49", "e5895b21")},
    "09-cgroups": {
        "c9ba199f": f"cgroup-08: {NO_NAMESPACE}",
        "bc6408cf": f"cgroup-09: {NO_NAMESPACE}",
        "770d4391": f"cgroup-11: {NO_NAMESPACE}",
    },
    "10-a-container-from-scratch": {"828f150e": f"api-14: {SCRIPT}"},
    "12-prototyping-topologies": {"62c4d675": f"net-23: {NETWORK}"},
}


class Unit:
    """A unit and what its cells ask for."""

    def __init__(self, name: str, folder: Path):
        self.path = COURSE.folder / f"{name}.ipynb"
        self.folder = folder
        self.cells = COURSE.choose([name])[0].cells
        code = [number for number, cell in enumerate(self.cells) if cell["cell_type"] == "code"]
        self.tagged = [number for number in code if tags(self.cells[number])]
        self.code = [number for number in code if number <= self.tagged[-1]]
        self.used: dict[int, frozenset[str]] = {}
        self.broken: dict[int, str] = {}  # what fails in a session as it is
        for _ in range(2):  # on a busy machine a cell may fail once
            whole = self.run([(cell, (), False) for cell in self.code])
            assert len(whole) == len(self.code), (len(whole), (self.folder / "stderr").read_text())
            self.used = {step.cell: step.used | self.used.get(step.cell, frozenset()) for step in whole}
            self.broken = {step.cell: step.error for step in whole if step.error}
            if not self.broken:
                break

    def run(self, steps) -> list[Step]:
        return session(self.path, steps, self.folder)

    def kinds(self, cell: int) -> tuple[str, ...]:
        """What the facts of a cell are about; what it asks for itself, when that is something else."""
        found = {COURSE.facts[fact].kind for fact in tags(self.cells[cell])}
        wanted = found if found <= {*KINDS} else {*KINDS}
        own = self.used[cell]
        return tuple(kind for kind in KINDS if kind in (wanted if not own or own & wanted else own))

    def makes(self, cell: int, kinds: tuple[str, ...]) -> bool:
        return bool(self.used[cell] & {*kinds})

    def red(self) -> set[int]:
        """The tagged cells that fail when what isolates is taken out."""
        whole = [cell for cell in self.tagged if cell not in self.broken]
        makers = [cell for cell in whole if self.makes(cell, self.kinds(cell))]
        with ThreadPoolExecutor(1) as beside:
            others = beside.submit(self.indirect, [cell for cell in whole if cell not in makers])
            found = {cell for cell, error in self.direct(list(makers)) if red(error)}
            found |= others.result()
        return found | self.indirect([cell for cell in makers if cell not in found])

    def indirect(self, left: list[int]) -> set[int]:
        found: set[int] = set()
        while left:
            found |= self.from_an_earlier_one(left[0], left)
            left = [cell for cell in left[1:] if cell not in found]
        return found

    def direct(self, todo: list[int]) -> Iterator[tuple[int, str]]:
        """Each cell that makes namespaces itself, first without and then with them, in as few sessions as that takes."""
        while todo:
            steps = []
            for cell in self.code:
                steps += [(cell, self.kinds(cell), False)] * (cell in todo) + [(cell, (), False)]
            before, known = len(todo), len(self.broken)
            done = self.run(steps)
            for (cell, kinds, _), step in zip(steps, done, strict=False):
                if kinds:
                    todo.remove(cell)
                    yield cell, step.error
                elif step.error and cell not in self.broken:
                    if len(todo) == before:
                        self.broken[cell] = step.error  # it fails now and then
                    break  # or the one without them has left something in the way: the others in another session
            else:
                if len(done) < len(steps) and steps[len(done)][1]:
                    todo.remove(steps[len(done)][0])
                    yield steps[len(done)][0], "EOFError: the session ended"
            assert len(todo) < before or len(self.broken) > known, f"the session ended at {steps[len(done)]}"

    def from_an_earlier_one(self, cell: int, left: list[int]) -> set[int]:
        """The cells among those that are left that fail when it is taken out from a maker before ``cell`` on."""
        kinds = self.kinds(cell)
        alike = [number for number in left if self.kinds(number) == kinds]
        makers = [number for number in self.code if number < cell and self.makes(number, kinds)]
        for maker in reversed(makers[-EARLIER:]):
            steps = [(number, (), False) for number in self.code if number < maker]
            for number in self.code:
                if maker <= number <= alike[-1]:
                    steps += [(number, kinds, False)] * (number in alike) + [(number, kinds, True)]
            done = self.run(steps)
            found = {s.cell for (_, out, soft), s in zip(steps, done, strict=False) if out and not soft and red(s.error)}
            if cell in found:
                return found
        return set()


def red(error: str) -> bool:
    return bool(error) and not error.startswith(("NameError", "UnboundLocalError", "SyntaxError"))


@pytest.mark.timeout(900)
@pytest.mark.requires("root", "userns", "linux:6.14", "tool:ip")
@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_a_cell_that_shows_a_fact_fails_without_the_namespace(name, tmp_path) -> None:
    unit = Unit(name, tmp_path)
    green = {str(unit.cells[cell]["id"]): tags(unit.cells[cell]) for cell in {*unit.tagged} - unit.red()}
    listed = LISTED.get(name, {})
    assert not green.keys() - listed.keys(), {key: green[key] for key in green.keys() - listed.keys()}
    gone = listed.keys() - {str(unit.cells[cell]["id"]) for cell in unit.tagged}
    assert not gone, "these are listed, and are no cells that show a fact any more"
