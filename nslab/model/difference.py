"""What changed between two snapshots: a Difference, frozen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from nslab.model import NamespaceId
from nslab.model.plain import from_json, must_be_kinds, to_plain
from nslab.model.words import readable

MARKS = {"appeared": "+", "vanished": "-", "changed": "~"}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was.

    ``how`` is appeared, vanished or changed. ``sort`` is what it is: namespace, process, members, holder, host name, id map,
    clock, mount, interface, address, route, listener, ipc object, cgroup root ...; ``subject`` which one. ``kind`` and
    ``namespace`` say in which namespace, as text such as "uts:[4026531838]" in ``place``; empty for a process. ``before`` and
    ``after`` are in words, "" where there was or is nothing.
    """

    how: str
    sort: str
    subject: str
    kind: str = ""
    namespace: NamespaceId | None = None
    before: str = ""
    after: str = ""

    @property
    def place(self) -> str:
        return f"{self.kind}:[{self.namespace.ino}]" if self.namespace else ""

    def __str__(self) -> str:
        where = f" in {self.place}" if self.place and self.sort != "namespace" else ""
        what = {"appeared": self.after, "vanished": self.before}.get(self.how, f"{self.before} → {self.after}")
        return readable(f"{MARKS[self.how]} {self.sort} {self.subject}{where}" + (f": {what}" if what else ""))


@dataclass(frozen=True, slots=True)
class Difference:
    """What appeared, vanished and changed from ``before`` to ``after`` (times as of time.time()); false when nothing did."""

    before: float
    after: float
    changes: tuple[Change, ...]

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def of(self, *, how: str = "", sort: str = "", kind: str = "") -> tuple[Change, ...]:
        """The changes of this sort: ``diff.of(how="appeared", sort="namespace", kind="uts")``."""
        wanted = [(name, value) for name, value in (("how", how), ("sort", sort), ("kind", kind)) if value]
        return tuple(each for each in self.changes if all(getattr(each, name) == value for name, value in wanted))

    def rows(self) -> list[tuple[str, ...]]:
        """As a table."""
        table: list[tuple[str, ...]] = [("", "what", "which", "where", "before", "after")]
        for each in self.changes:
            cells = (each.sort, each.subject, each.place, each.before, each.after)
            table.append((MARKS[each.how], *map(readable, cells)))
        return table

    def to_json(self) -> str:
        """A JSON object with the fields of this class."""
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Difference:
        """ValueError for what is no difference."""
        made: Difference = from_json(cls, text)
        must_be_kinds(each.kind for each in made.changes if each.kind)
        return made

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes)) or "nothing changed"

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.of(how=how))} {how}" for how in MARKS)
        return f"<Difference: {counts}>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        head, *rows = self.rows()
        colours = {"+": "#009E73", "-": "#D55E00", "~": "#0072B2"}
        cells = "".join(f"<th style=text-align:left>{cell}</th>" for cell in head)
        body = "".join(
            f'<tr><td style="text-align:left;border-left:6px solid {colours[row[0]]}">'
            + "</td><td style=text-align:left>".join(map(escape, row))
            + "</td></tr>"
            for row in rows
        )
        html = f"<table><tr>{cells}</tr>{body}</table>" if rows else "<div>nothing changed</div>"
        return {"text/plain": str(self), "text/html": html}
