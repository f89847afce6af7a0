"""Tables inside of pictures: rows of cells in one node, where things must stand below each other."""

from __future__ import annotations

from collections.abc import Iterable

from nslab.model import KINDS
from nslab.render.style import INK, LINE, cell_tooltip, ink_on, said, shorten


def cell(
    text: str = "", *, colour: str = "", bold: bool = False, port: str = "", tip: str = "", align: str = "left",
    line: bool = False, width: int = 1, longest: int = 40,
) -> str:  # fmt: skip
    """One cell: text as data, on a fill ``colour``, with a ``line`` on its left, over ``width`` columns."""
    attributes = {
        "align": align, "port": port, "bgcolor": colour, "colspan": str(width) if width > 1 else "",
        "tooltip": cell_tooltip(tip or (text if len(text) > longest else "")),
        **({"sides": "L", "border": "1", "color": LINE} if line else {}),
    }  # fmt: skip
    given = "".join(f' {key}="{value}"' for key, value in attributes.items() if value)
    shown = shorten(text, longest)
    slack = "&#160;" * (len(shown) // 20) if align == "left" else ""  # the reader's font may be wider than the one measured
    inner = f"{said(shown)}{slack}" or "&#160;"
    return f'<td{given}><font color="{ink_on(colour) if colour else INK}">{f"<b>{inner}</b>" if bold else inner}</font></td>'


def kind_cell(kind: str, text: str = "", *, tip: str = "") -> str:
    """A cell in the colour of a kind, that names it."""
    return cell(f"{kind} {text}".strip(), colour=KINDS[kind].colour, align="center", tip=tip or KINDS[kind].isolates)


def kind_cells(kinds: Iterable[str]) -> str:
    """One cell with any number of kinds side by side."""
    inner = "".join(map(kind_cell, kinds))
    return f'<td align="left"><table border="0" cellborder="0" cellspacing="1" cellpadding="1"><tr>{inner}</tr></table></td>'


def table(rows: Iterable[Iterable[str]], *, border: int = 1, padding: int = 3) -> str:
    """Rows of cells as the label of a node of shape "plain"."""
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    shape = f'border="{border}" cellborder="0" cellspacing="0" cellpadding="{padding}" color="{INK}"'
    return f'<<font point-size="10"><table {shape}>{lines}</table></font>>'
