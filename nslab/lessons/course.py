"""The course as data: its units, the facts, which cell shows which, and what no cell shows yet.

A unit is a notebook. A cell that asserts a fact on the kernel carries its id, in the metadata of the cell:
``{"nslab": {"facts": ["pid-07"]}}``. The facts themselves are the table docs/facts.csv, one line each; ``core`` are those that
the course has to show, ``advanced`` the others.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nslab.errors import SpecError, Unavailable

FIRST = "00-start.ipynb"
LEVELS = ("core", "advanced")
RECORDED = "recorded"  # in the metadata of an output, below "nslab": the Linux that it was recorded on, and not this one


@dataclass(frozen=True, slots=True)
class Fact:
    """What the kernel does, in a sentence. ``kind`` is a kind of namespace, any, proc or checkpoint."""

    id: str
    kind: str
    statement: str
    level: str
    needs: str = ""


@dataclass(frozen=True)
class Unit:
    """A notebook of the course: ``name`` is that of its file, 02-pid."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def _content(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            content["cells"] = [{**cell, "source": "".join(cell["source"])} for cell in content["cells"]]
        except (ValueError, KeyError, TypeError) as error:
            raise SpecError("unit", f"{self.path} is no notebook: {error}") from None
        return content

    @property
    def cells(self) -> list[dict[str, object]]:
        """Its cells as they are in the file; their sources are text."""
        return list(self._content["cells"])

    @property
    def needs(self) -> list[str]:
        """The kinds of namespace without which none of it can be shown: ``{"nslab": {"needs": ["time"]}}`` in its metadata."""
        return list(self._content.get("metadata", {}).get("nslab", {}).get("needs", ()))

    @property
    def title(self) -> str:
        """Its first heading: the question."""
        return next((str(cell["source"]).partition("\n")[0].strip("# ") for cell in self.cells), "")

    @property
    def facts(self) -> list[str]:
        """The ids that its cells carry, each once, in their order."""
        return list(dict.fromkeys(fact for cell in self.cells for fact in tags(cell)))


def tags(cell: dict[str, object]) -> list[str]:
    """The facts that a cell shows."""
    metadata = cell.get("metadata")
    own = metadata.get("nslab") if isinstance(metadata, dict) else None
    return list(own.get("facts", ())) if isinstance(own, dict) else []


@dataclass(frozen=True)
class Course:
    """The notebooks in a folder, and the table of facts beside it."""

    folder: Path

    @classmethod
    def find(cls, folder: Path | None = None) -> Course:
        """In a folder that is named, else at or above this one, else in the source of nslab. Unavailable when there is none."""
        here = Path.cwd()
        places = [folder, folder / "notebooks"] if folder else []
        if not folder:
            places = [place for above in (here, *here.parents) for place in (above, above / "notebooks")]
            places.append(Path(__file__).parents[2] / "notebooks")
        for place in places:
            if (place / FIRST).is_file():
                return cls(place.resolve())
        raise Unavailable(
            f"the notebooks of the course are not in {folder or here}",
            "they come with the source of nslab, not with pip: go to its folder, or name it with --folder",
        )

    @cached_property
    def units(self) -> list[Unit]:
        return [Unit(path) for path in sorted(self.folder.glob("[!.]*.ipynb"))]

    def choose(self, names: Sequence[str] = ()) -> list[Unit]:
        """The units of these names or numbers (02-pid, 02, pid), in the order of the course; all when there are none."""
        chosen: set[str] = set()
        for name in names:
            wanted = Path(name).name.removesuffix(".ipynb")
            found = [unit for unit in self.units if wanted in (unit.name, *unit.name.split("-", 1))]
            if not found:
                raise SpecError("unit", f"there is none {name!r}; there are: {', '.join(unit.name for unit in self.units)}")
            chosen.update(unit.name for unit in found)
        return [unit for unit in self.units if unit.name in chosen or not names]

    @cached_property
    def facts(self) -> dict[str, Fact]:
        """The table, by id."""
        return {row["id"]: Fact(**row) for row in csv.DictReader(self._document("facts.csv").splitlines())}

    @property
    def glossary(self) -> str:
        """The words of the course, in Markdown."""
        return self._document("glossary.md")

    def _document(self, name: str) -> str:
        path = self.folder.parent / "docs" / name
        if not path.is_file():
            raise Unavailable(f"{path} is not there", "it comes with the source of nslab, beside the notebooks")
        return path.read_text(encoding="utf-8")

    def coverage(self) -> Coverage:
        shown: dict[str, list[str]] = {}
        for unit in self.units:
            for fact in unit.facts:
                shown.setdefault(fact, []).append(unit.name)
        return Coverage(list(self.facts.values()), shown)


@dataclass(frozen=True)
class Coverage:
    """Which facts are shown: ``shown`` has the units for the id of each, also of ids that are not in the table."""

    facts: Sequence[Fact]
    shown: dict[str, list[str]]

    def of(self, level: str, kind: str = "") -> tuple[int, int]:
        """How many of a level are shown, and how many there are; of all kinds or of one."""
        these = [fact for fact in self.facts if fact.level == level and kind in ("", fact.kind)]
        return sum(fact.id in self.shown for fact in these), len(these)

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(fact.kind for fact in self.facts))

    def missing(self, level: str) -> Iterator[Fact]:
        return (fact for fact in self.facts if fact.level == level and fact.id not in self.shown)

    @property
    def unknown(self) -> list[str]:
        """Ids that a cell carries and the table does not have."""
        return sorted(self.shown.keys() - {fact.id for fact in self.facts})

    def to_dict(self) -> dict[str, object]:
        """For programs: core_shown, core_total, advanced_shown, advanced_total, the ids that are missing, units by id."""
        counts = {f"{level}_{word}": number for level in LEVELS for word, number in _named(self.of(level))}
        missing = {f"{level}_missing": [fact.id for fact in self.missing(level)] for level in LEVELS}
        return {**counts, **missing, "unknown": self.unknown, "shown": dict(sorted(self.shown.items()))}


def _named(counts: tuple[int, int]) -> Iterable[tuple[str, int]]:
    return zip(("shown", "total"), counts, strict=True)
