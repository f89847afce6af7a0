"""Tables, as what a cell shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


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
