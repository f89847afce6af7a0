"""What the verbs on labs share: which lab is meant, and its names for the tab key."""

from __future__ import annotations

from typing import Annotated

import typer

from nslab.errors import NslabError, SpecError
from nslab.labs.places import held


def names() -> list[str]:
    """The names of the labs, for the tab key, which shows no error."""
    try:
        return [lab["name"] for lab in held()]
    except NslabError:
        return []


def places() -> list[str]:
    """The containers, and the nodes by which a command can be told where to run, for the tab key."""
    from nslab.container.listing import listed

    try:
        nodes = [(lab["name"], node) for lab in held() for node, role in lab["nodes"].items() if role != "switch"]
    except NslabError:
        nodes = []
    return [each.name for each in listed() if each.name] + [word for lab, node in nodes for word in (node, f"{lab}/{node}")]


Lab = Annotated[str | None, typer.Argument(help="The lab; when only one is up, that.", autocompletion=names)]


def chosen(name: str | None) -> str:
    """The lab that is meant."""
    if name is not None:
        return name
    found = [lab["name"] for lab in held()]
    if not found:
        raise SpecError("lab", "none is up: nslab up FILE.yaml")
    if len(found) > 1:
        raise SpecError("lab", f"{len(found)} are up, say which: {', '.join(found)}")
    return str(found[0])
