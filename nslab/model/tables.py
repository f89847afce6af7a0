"""Tables, as what a cell shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any, TypeVar

T = TypeVar("T")


def table(rows: Sequence[Sequence[str]], note: str = "") -> dict[str, str]:
    """Rows, of which the first is the head, as text and HTML, with a note below."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    left = 'style="text-align:left"'
    head = "".join(f"<th {left}>{escape(cell)}</th>" for cell in rows[0])
    cells = ["".join(f"<td {left}>{escape(cell)}</td>" for cell in row) for row in rows[1:]]
    html = f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
    below = f"<div>{escape(note)}</div>" if note else ""
    return {"text/plain": "\n".join([*lines, *[note] * bool(note)]), "text/html": html + below}


class Table(list[T]):
    """A list of values that a cell shows as a table; ``rows()`` is that as text, the head first."""

    def __init__(self, values: Iterable[T], head: Sequence[str], row: Callable[[T], Sequence[str]]):
        super().__init__(values)
        self._head = tuple(head)
        self._row = row

    def rows(self) -> list[tuple[str, ...]]:
        return [self._head, *(tuple(self._row(value)) for value in self)]

    def to_json(self) -> str:
        """A list of objects."""
        return json.dumps([asdict(value) for value in self])  # type: ignore[call-overload]

    def __str__(self) -> str:
        return table(self.rows())["text/plain"]

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return table(self.rows())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython has a way of its own to write lists, which would come before the text above."""
        printer.text(str(self))
