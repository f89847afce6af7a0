"""Tables, as what a cell shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any, TypeVar

T = TypeVar("T")


def text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def html(rows: Sequence[Sequence[str]], *, head: bool = True) -> str:
    """Rows as a table for a page, the first of them its ``head``."""
    left = 'style="text-align:left"'
    lines = []
    for number, row in enumerate(rows):
        cell = f'th scope="col" {left}' if head and not number else f"td {left}"
        lines.append("".join(f"<{cell}>{escape(each)}</{cell[:2]}>" for each in row))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def table(rows: Sequence[Sequence[str]], note: str = "") -> dict[str, str]:
    """Rows, of which the first is the head, as text and HTML, with a note below."""
    below = f"<div>{escape(note)}</div>" if note else ""
    return {"text/plain": "\n".join([text(rows), *[note] * bool(note)]), "text/html": html(rows) + below}


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
        return text(self.rows())

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return table(self.rows())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython has a way of its own to write lists, which would come before the text above."""
        printer.text(str(self))
