"""Matrix: who reached whom, as text, as a table, and of many nodes as a grid in which what failed stands out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from nslab.model import tables

SHOWN = 20  # nodes; of more than that only what failed is listed
BAD, WIRE = "#D55E00", "0,114,178"  # as in pictures: what failed, and the colour of networks
_NUMBERS = 'style="text-align:right;font-variant-numeric:tabular-nums'
CAPTION = "Round-trip times in ms, from the row to the column:"


@dataclass(frozen=True)
class Matrix:
    """Who reached whom: ``times`` has the round-trip time in milliseconds of (from, to), None where no answer came."""

    times: Mapping[tuple[str, str], float | None]

    @property
    def lost(self) -> list[tuple[str, str]]:
        """Those pairs of which no answer came."""
        return [pair for pair, time in self.times.items() if time is None]

    @cached_property
    def names(self) -> list[str]:
        """Who pinged and was pinged, in order."""
        return list(dict.fromkeys(name for pair in self.times for name in pair))

    def summary(self) -> str:
        """ "6 of 6 pings answered, in 0.08 to 0.20 ms, half of them below 0.11"."""
        answered = sorted(time for time in self.times.values() if time is not None)
        count, lost = len(self.times), len(self.times) - len(answered)
        said = f"{count - lost:,} of {count:,} pings answered"
        if answered:
            least, middle, most = (f"{answered[place]:.2f}" for place in (0, len(answered) // 2, -1))
            said += f", in {least} to {most} ms, half of them below {middle}"
        return said + (f"; {lost / count:.1%} lost" if lost else "")

    def rows(self) -> list[list[str]]:
        """A table: a row for each sender, a column for each target; of many nodes only the pairs that failed."""
        if len(self.names) > SHOWN:
            failed = [["from", "to"], *map(list, self.lost)]
            return failed[: SHOWN + 1] + ([["", "and more"]] if len(failed) > SHOWN + 1 else []) if self.lost else []
        return [["ms", *self.names], *([name, *(self._cell(name, other) for other in self.names)] for name in self.names)]

    def _cell(self, one: str, two: str) -> str:
        if (one, two) not in self.times:
            return "-"
        return "lost" if (time := self.times[one, two]) is None else f"{time:.2f}"

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, self.summary()])

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        parts = [_grid(self)] if len(self.names) > SHOWN else []
        if rows := self.rows():
            parts.append(_table(self, rows) if len(self.names) <= SHOWN else f"<div>No answer came:</div>{tables.html(rows)}")
        return {"text/plain": str(self), "text/html": f"{''.join(parts)}<div>{escape(self.summary())}</div>"}


def _table(matrix: Matrix, rows: Sequence[Sequence[str]]) -> str:
    """The slower, the darker; what is lost has a frame and a word."""
    head = "".join(f'<th scope="col" {_NUMBERS}">{escape(name)}</th>' for name in rows[0])
    lines = []
    for name, row in zip(matrix.names, rows[1:], strict=True):
        cells = [
            f'<td {_NUMBERS};{_look(matrix, name, other)}">{cell}</td>'
            for other, cell in zip(matrix.names, row[1:], strict=True)
        ]
        lines.append(f'<tr><th scope="row" {_NUMBERS}">{escape(name)}</th>{"".join(cells)}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table><div>{CAPTION}</div>"


def _look(matrix: Matrix, one: str, two: str) -> str:
    if (one, two) not in matrix.times:
        return "opacity:.4"
    if (time := matrix.times[one, two]) is None:
        return f"box-shadow:inset 0 0 0 2px {BAD};font-weight:bold"
    share = min(1.0, max(0.0, math.log10(max(time, 0.001) / 0.1) / 3))  # from 0.1 ms on, up to 100 ms
    return f"background:rgba({WIRE},{0.08 + 0.4 * share:.2f})"


def _grid(matrix: Matrix) -> str:
    """A square for all pairs, a row for each sender; what is lost is filled, neighbours in one piece."""
    count = len(matrix.names)
    side = min(360, 12 * count)
    pieces = []
    for row, one in enumerate(matrix.names):
        for first, last in _runs([(one, two) in matrix.times and matrix.times[one, two] is None for two in matrix.names]):
            to = matrix.names[first] + (f" … {matrix.names[last]}" if last > first else "")
            pieces.append(
                f'<rect x="{first}" y="{row}" width="{last - first + 1}" height="1" fill="{BAD}">'
                f"<title>{escape(f'{one} to {to}: lost')}</title></rect>"
            )
    title = f"<title>{escape(f'Who reaches whom: {matrix.summary()}')}</title>"
    ground = f'<rect width="{count}" height="{count}" fill="rgb({WIRE})" fill-opacity=".18" stroke="currentColor" ' \
             'stroke-width=".5%"/>'  # fmt: skip
    diagonal = f'<path d="M0 0L{count} {count}" stroke="currentColor" stroke-opacity=".4" stroke-width=".5%"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{side}" height="{side}" viewBox="0 0 {count} {count}" '
        f'style="overflow:visible;margin:4px">{title}{ground}{diagonal}{"".join(pieces)}</svg>'
    )


def _runs(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Where a run of true ones begins and ends."""
    for value, group in itertools.groupby(enumerate(flags), key=lambda pair: pair[1]):
        if value:
            places = [place for place, _ in group]
            yield places[0], places[-1]
