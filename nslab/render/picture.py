"""A picture, in every form that a notebook, a terminal or a file may want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from nslab.errors import SpecError, Unavailable
from nslab.model.tables import text
from nslab.model.words import readable
from nslab.render import engine
from nslab.render.style import FONT, PRINTED
from nslab.render.svg import finish

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """``dot`` is graphviz source; ``title``, ``text`` and ``rows`` say the same for a reader who sees no picture.

    ``rows`` is a table, its head first, and ``notes`` what goes beyond it, in lines. ``about`` says in a sentence how the
    picture is to be read.
    """

    title: str
    dot: str
    text: str
    rows: Rows = ()
    about: str = ""
    notes: Sequence[str] = ()

    @cached_property
    def svg(self) -> str:
        """As SVG, with a title and a description; the same for a light and a dark page. Unavailable where nothing can draw."""
        drawn = engine.draw(self.dot, "svg").decode()
        try:
            return finish(drawn, readable(self.title), readable(self.about or self.text))
        except ElementTree.ParseError as error:
            raise Unavailable(f"what {engine.find()} drew is no SVG: {error}", engine.HOW_TO_GET_IT) from None

    def save(self, path: str | Path) -> None:
        """Write it to a file: .svg, .png (on white, also without a suffix), .dot, .txt, or what else the engine draws."""
        path = Path(path)
        if path.suffix == ".dot":
            path.write_text(self.dot)
        elif path.suffix == ".txt":
            path.write_text(self.text + "\n")
        elif path.suffix == ".svg":
            path.write_text(self.svg)
        else:
            printed = self.dot.replace("bgcolor=transparent", "bgcolor=white", 1).replace(
                f"fontname={FONT}", f"fontname={PRINTED}"
            )
            try:
                drawn = engine.draw(printed, path.suffix[1:] or "png")
            except Unavailable:
                if path.suffix in ("", ".png") or not engine.find():
                    raise
                known = "use .svg, .png, .dot or .txt"
                raise SpecError("path", f"{engine.find()} draws no {path.suffix}: {known}") from None
            path.write_bytes(drawn)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        text = "\n".join(map(readable, self.text.split("\n")))
        twin = html_table(self.rows) if self.rows else f"<pre>{escape(text)}</pre>"
        twin += "".join(f"<div>{escape(readable(line))}</div>" for line in self.notes)
        note = f'<div style="font-size:90%;opacity:.8">{escape(readable(self.about))}</div>' if self.about else ""
        try:
            table = f"<details><summary>the same as {'a table' if self.rows else 'text'}</summary>{twin}</details>"
            html = f'<div style="max-width:100%;overflow-x:auto">{self.svg}</div>{note}{table}'
        except Unavailable as missing:
            html = f"{twin}{note}<div>{escape(f'(not drawn: {missing.requirement}; {missing.how_to_get_it})')}</div>"
        return {"text/plain": f"{readable(self.title)}\n\n{text}", "text/html": html}

    def __str__(self) -> str:
        return self.text


def text_table(rows: Rows) -> str:
    """Rows as aligned columns; what is not printable in them is escaped."""
    return text([[readable(cell) for cell in row] for row in rows])


def html_table(rows: Rows) -> str:
    """Rows as an HTML table, the first as its head."""
    left = 'style="text-align:left;white-space:pre"'
    head, *body = ([escape(readable(cell)) for cell in row] for row in rows)
    heads = "".join(f'<th scope="col" {left}>{cell}</th>' for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td {left}>{cell}</td>' for cell in row)}</tr>" for row in body)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
