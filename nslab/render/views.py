"""draw(): one door to all pictures. What is drawn decides which there are, ``view`` chooses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nslab.errors import SpecError
from nslab.model import NamespaceMap
from nslab.model.difference import Difference
from nslab.model.packets import Walk
from nslab.model.snapshot import Snapshot
from nslab.render.anatomy import anatomy
from nslab.render.cgroups import cgroups
from nslab.render.changes import changes
from nslab.render.folding import MOST, UNFOLD
from nslab.render.mounts import mounts
from nslab.render.namespace_map import namespace_map
from nslab.render.networks import networks
from nslab.render.owners import owners
from nslab.render.picture import Picture
from nslab.render.processes import processes
from nslab.render.sequence import sequence
from nslab.render.sharing import sharing
from nslab.render.translation import ids, pids
from nslab.render.walking import walk
from nslab.render.who import only
from nslab.trace import Trace

# Of a snapshot; the first is what is drawn when nothing else is asked for.
VIEWS: Mapping[str, Callable[..., Picture]] = {
    "owners": owners, "sharing": sharing, "processes": processes, "pids": pids, "ids": ids, "mounts": mounts,
    "networks": networks, "cgroups": cgroups, "anatomy": anatomy,
}  # fmt: skip
# Of what has one picture only.
_OF: Mapping[type, Callable[..., Picture]] = {Difference: changes, Trace: sequence, Walk: walk}


def draw(*things: Any, view: str = "", of: str | int = "", title: str = "", most: int | None = MOST) -> Picture:
    """A picture of containers and processes (which namespaces they are in), of a Snapshot, a Difference, a Trace or a Walk.

    ``view`` chooses one of a snapshot: owners (the tree of user namespaces with what each owns), sharing (who shares what with
    whom), processes, pids, ids, mounts, networks, cgroups, or anatomy (one container). ``of`` limits the picture to a container
    ("web") or, as a number, to a process. Past ``most`` nodes what is alike is folded; None draws each.
    """
    picture = _picture(things, view, of, title, most)
    if UNFOLD not in picture.dot:
        return picture
    return replace(picture, about=f"{picture.about} What is alike is folded: {UNFOLD}, and the table has all of it.")


def _picture(things: tuple[Any, ...], view: str, of: str | int, title: str, most: int | None) -> Picture:
    if not things:
        raise SpecError("things", "what is to be drawn? nslab.draw(container, process, ...), or nslab.draw(nslab.discover())")
    one = things[0]
    if len(things) == 1 and isinstance(one, Snapshot):
        return _snapshot(one, view, of, title, most)
    if view or of:
        raise SpecError(
            "view" if view else "of",
            "only a snapshot has views: nslab.draw(nslab.discover(), view=...), or of discover(container)",
        )
    for sort, picture in _OF.items():
        if len(things) == 1 and isinstance(one, sort):
            return picture(one, title, most)
    maps = []
    for thing in things:
        if not isinstance(thing, NamespaceMap) and not hasattr(thing, "namespace_map"):
            raise SpecError("things", f"{type(thing).__name__} cannot be drawn{' beside another' if len(things) > 1 else ''}")
        maps.append(thing if isinstance(thing, NamespaceMap) else thing.namespace_map())
    members = tuple(member for each in maps for member in each.members)
    return namespace_map(NamespaceMap(maps[0].machine, members), title, most)


def _snapshot(snapshot: Snapshot, view: str, of: str | int, title: str, most: int | None) -> Picture:
    if view and view not in VIEWS:
        raise SpecError("view", f"{view!r} is none of {', '.join(VIEWS)}")
    if view == "anatomy":
        return anatomy(snapshot, of, title)
    return VIEWS[view or next(iter(VIEWS))](only(snapshot, of) if of else snapshot, title=title, most=most)
