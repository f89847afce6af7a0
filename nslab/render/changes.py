"""What a Difference says, drawn: every namespace in which something changed, and what."""

from __future__ import annotations

from itertools import groupby

from nslab.model import KINDS
from nslab.model.difference import MARKS, Change, Difference
from nslab.render import style
from nslab.render.cells import cell, kind_cell, table
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture

ABOUT = "+ is new, - is gone, ~ is not as it was. What changed in one namespace stands below it."
_SIGN = {"appeared": "+", "vanished": "−", "changed": "~"}  # no colours: those are the kinds'


def changes(difference: Difference, title: str = "", most: int | None = MOST) -> Picture:
    """The picture of a Difference. Past ``most`` lines, changes that are alike are folded; None draws each."""
    groups = fold(sorted(difference.changes, key=_place), lambda each: (each.place, each.how, each.sort, each.kind), most)
    body: list[list[str]] = []
    for place, inside in groupby(groups, lambda group: _place(group[0])):
        body.append([_heading(*place)])
        body += [_row(group) for group in inside]
    graph = style.digraph()
    label = table(body or [[cell("nothing changed")]], border=0, padding=2)
    graph.node("changes", label, shape="plain", fillcolor="transparent", tooltip=" ")
    counts = ", ".join(f"{len(difference.of(how=how))} {how}" for how in MARKS if difference.of(how=how))
    return Picture(title or f"What changed: {counts or 'nothing'}", graph.source, str(difference), difference.rows(), ABOUT)


def _place(change: Change) -> tuple[int, str]:
    """Namespaces that came or went stand together, first; processes last."""
    if change.sort == "namespace":
        return (0, "")
    return (1, change.place) if change.place else (2, "")


def _heading(order: int, place: str) -> str:
    kind = place.partition(":")[0]
    if kind in KINDS:
        return cell(place, colour=KINDS[kind].colour, width=5, tip=KINDS[kind].isolates)
    return cell(place or ("namespaces" if order == 0 else "processes"), bold=True, width=5)


def _row(group: list[Change]) -> list[str]:
    one = group[0]
    mark = cell(_SIGN[one.how], align="center", tip=one.how)
    kind = kind_cell(one.kind) if one.sort == "namespace" and one.kind in KINDS else cell(one.sort)
    if len(group) > 1:
        return [mark, kind, cell(f"{len(group)} more", bold=True, tip=names([each.subject for each in group])), cell(), cell()]
    what = f"{one.before} → {one.after}" if one.how == "changed" else one.after or one.before
    return [mark, kind, cell(one.subject, longest=36), cell(what, longest=64), cell()]
