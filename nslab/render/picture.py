"""A picture, in every form that a notebook, a terminal or a file may want."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import graphviz

from nslab.errors import Unavailable

HOW_TO_GET_DOT = "install graphviz (Debian: apt-get install graphviz)"


@dataclass(frozen=True)
class Picture:
    """``dot`` is graphviz source, ``title`` and ``text`` say the same for a reader who sees no picture."""

    title: str
    dot: str
    text: str

    @cached_property
    def svg(self) -> str:
        """As SVG, with a title. Unavailable where ``dot`` is missing."""
        try:
            source = graphviz.Source(self.dot).pipe(format="svg", encoding="utf-8", quiet=True)
        except (graphviz.ExecutableNotFound, subprocess.CalledProcessError) as error:
            raise Unavailable(f"drawing needs graphviz's dot: {error}", HOW_TO_GET_DOT) from None
        svg = source[source.index("<svg") :]
        head = f"<title>{escape(self.title)}</title><desc>{escape(self.text)}</desc>"
        return re.sub(r"(<svg[^>]*>)", lambda match: f"{match[1]}{head}", svg, count=1)

    def save(self, path: str | Path) -> None:
        """Write it to a file: .svg, .png, .dot or .txt."""
        path = Path(path)
        if path.suffix == ".dot":
            path.write_text(self.dot)
        elif path.suffix == ".txt":
            path.write_text(self.text + "\n")
        elif path.suffix == ".svg":
            path.write_text(self.svg)
        else:
            try:
                path.write_bytes(graphviz.Source(self.dot).pipe(format=path.suffix[1:] or "png", quiet=True))
            except (graphviz.ExecutableNotFound, subprocess.CalledProcessError) as error:
                raise Unavailable(f"drawing needs graphviz's dot: {error}", HOW_TO_GET_DOT) from None

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        table = f"<details><summary>the same as text</summary><pre>{escape(self.text)}</pre></details>"
        try:
            html = f'<div style="max-width:100%;overflow-x:auto">{self.svg}</div>{table}'
        except Unavailable as missing:
            why = escape(f"(as text: {missing.requirement.split(':')[0]}; {missing.how_to_get_it})")
            html = f"<pre>{escape(self.text)}</pre><div>{why}</div>"
        return {"text/plain": f"{self.title}\n\n{self.text}", "text/html": html}

    def __str__(self) -> str:
        return self.text
