"""From what the engine writes to an SVG that follows its page, says what it is, and has a tooltip wherever there is more."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from nslab.render.style import FONT, INK

SMALLEST = 0.65  # of its size: a picture shrinks to the width of the page, but no further than it can be read
_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_FONTS = f"{FONT},'DejaVu Sans','Bitstream Vera Sans',Geneva,sans-serif"  # as wide as each other
# Only where the SVG is a document of its own (:root), also as an image: nobody knows what is behind, so it brings paper.
# Inside a page it has the colour of the text there, on what is there.
_ALONE = "svg:root{color:#1a1a1a;background:#fff}@media(prefers-color-scheme:dark){svg:root{color:#f0f0f0;background:#111}}"


def finish(source: str, title: str, description: str) -> str:
    """Ink becomes currentColor, tooltips become titles, names inside the engine go; title, description and role come first."""
    plain = re.sub(r"<a xlink:title=", "<a tooltip=", re.sub(r'<!DOCTYPE[^>]*>| xmlns(:xlink)?="[^"<]*"', "", source))
    root = ElementTree.fromstring(plain)
    for element in root.iter():
        element.attrib.pop("id", None)  # several pictures are in one page
        element.attrib.pop(_SPACE, None)
        if element.get("font-family") == FONT:
            element.set("font-family", _FONTS)
        if element.tag == "text" and "fill" not in element.attrib:
            element.set("fill", INK)
        for paint in ("fill", "stroke"):
            if element.get(paint) == INK:
                element.set(paint, "currentColor")
    for group in list(root.iter("g")):
        _name(group)
    for number, (tag, text) in enumerate((("title", title), ("desc", description), ("style", _ALONE))):
        head = ElementTree.Element(tag)
        head.text = text
        root.insert(number, head)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("role", "img")
    width = float(root.get("width", "0").removesuffix("pt"))
    root.set("style", f"max-width:100%;min-width:{width * SMALLEST:.0f}pt;height:auto")
    return ElementTree.tostring(root, encoding="unicode")


def _name(group: ElementTree.Element) -> None:
    """A group's title is the name that the source gave it, which says nothing: its tooltip takes the place."""
    for child in list(group):
        if child.tag == "title":
            group.remove(child)
    for link in group.findall("a"):  # not a link: graphviz's way to say a tooltip
        tooltip = link.attrib.pop("tooltip", "").strip()
        link.tag = "g"
        if tooltip:
            title = ElementTree.Element("title")
            title.text = tooltip
            link.insert(0, title)
