"""What all pictures share: ink that follows the page, the colours and shapes of the kinds, and labels that are data.

A picture lies on a page that may be light or dark. Lines and texts that touch the page are drawn in ``INK``, which the
SVG says as currentColor: the colour of the text around it. A fill has a colour of its own, and on it black or white,
whichever can be read (``ink_on``). So one SVG is right on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import graphviz

from nslab.model import KINDS
from nslab.model.words import readable

INK = "#010203"  # stands for currentColor; nearly black, for the forms that know none: PNG, and DOT drawn elsewhere
LINE = f"{INK}8c"  # lines between nodes: ink at 55 percent
FAINT = f"{INK}12"  # the fill of what has no colour of its own: a shade of the page
FRAME = f"{INK}59"  # the frame around several nodes
GAP = {"peripheries": "0", "margin": "5", "label": "", "tooltip": " "}  # around a frame: between two are twice so many points
FONT = "Verdana"  # what widths are computed for; the SVG names others that are as wide, and are there on Linux
PRINTED = "Arial"  # a font that the engine itself has, for PNG
BAD = "#D55E00"  # a link that is down (dashed besides)
LONGEST, LONGEST_SMALL = 40, 52  # characters of a label, and of its small lines; the whole is in the tooltip


def digraph(**attributes: str) -> graphviz.Digraph:
    """An empty picture with the style of all; ``attributes`` are those of the graph."""
    return _styled(graphviz.Digraph(), attributes)


def undirected(**attributes: str) -> graphviz.Graph:
    """The same, with lines that point nowhere."""
    return _styled(graphviz.Graph(), attributes)


def _styled(graph: graphviz.Graph, attributes: dict[str, str]) -> graphviz.Graph:
    plain = {"fontname": FONT, "fontcolor": INK}
    of_nodes = {"fontsize": "11", "color": INK, "fillcolor": FAINT, "style": "filled", "penwidth": "1", "margin": "0.12,0.05"}
    of_edges = {"fontsize": "9", "color": LINE, "penwidth": "1.6", "arrowsize": "0.7", "tooltip": " "}
    graph.attr("graph", **plain, bgcolor="transparent", margin="0.05", fontsize="11", color=FRAME, **attributes)
    graph.attr("node", **plain, **of_nodes)
    graph.attr("edge", **plain, **of_edges)
    return graph


def namespace_node(graph: graphviz.Graph, name: str, kind: str, inode: int, *lines: str, more: str = "") -> None:
    """A namespace, as it looks in every picture: colour and shape of its kind, its number, and notes in small letters."""
    row = KINDS[kind]
    graph.node(name, label(kind, *lines, aside=str(inode), colour=ink_on(row.colour)), shape=row.shape, fillcolor=row.colour,
               margin="0.1,0.04", height="0.35", tooltip=tooltip(f"{kind}:[{inode}]", *lines, row.isolates, more))  # fmt: skip


def folded_node(graph: graphviz.Graph, name: str, kind: str, count: str, which: str, note: str = "") -> None:
    """Several namespaces of a kind in one: its shape, twice framed, "40 more"; the tooltip says which."""
    row = KINDS[kind]
    text = label(kind, note, aside=count, colour=ink_on(row.colour))
    graph.node(name, text, shape=row.shape, fillcolor=row.colour, peripheries="2", margin="0.1,0.04",
               height="0.35", tooltip=tooltip(which))  # fmt: skip


def frame(head: str, *, aside: str = "", tip: str = "") -> dict[str, str]:
    """The attributes of a frame around nodes (a cluster), with a title in its corner."""
    return {
        "label": label(head, aside=aside),
        "labeljust": "l",
        "style": "rounded",
        "margin": "10",
        "tooltip": tooltip(tip) or " ",
    }


def label(head: str, *lines: str, aside: str = "", colour: str = INK) -> str:
    """A label of graphviz: a bold head, something beside it, and small lines below; all of it data, and shortened."""
    small = "".join(f'<br/><font point-size="9">{said(shorten(line, LONGEST_SMALL))}</font>' for line in lines if line)
    beside = f"&#160;&#160;{said(shorten(aside))}" if aside else ""
    return f'<<font color="{colour}"><b>{said(shorten(head)) or "&#160;"}</b>{beside}{small}</font>>'


def said(text: str) -> str:
    """Text from the kernel, as it may stand in a label: nothing in it is markup, nor an escape of graphviz; spaces stay."""
    return escape(readable(text)).replace("\\", "\\\\").replace("  ", "&#160; ")


def tooltip(*parts: str) -> str:
    """The same for the attribute ``tooltip``, where graphviz takes escapes out twice."""
    return escape(", ".join(filter(None, map(readable, parts)))).replace("\\", "\\" * 4)


def cell_tooltip(*parts: str) -> str:
    """The same for a cell of a table in a label, where it takes none out."""
    return escape(", ".join(filter(None, map(readable, parts))))


def shorten(text: str, longest: int = LONGEST) -> str:
    """At most ``longest`` characters; what is cut out of the middle is an ellipsis: both ends of a name say something."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def listing(texts: Sequence[str], longest: int = 8) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(texts) - longest} more" if len(texts) > longest else ""
    return ", ".join(texts[:longest]) + more


def ink_on(colour: str) -> str:
    """Black or white, whichever can be read better on this fill."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, colour))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours "#rrggbb", from 1 to 21. WCAG 2.2 asks for 4.5 in text and 3 in lines and shapes."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
