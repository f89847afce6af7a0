"""The tree of cgroups: how much one may take, beside the root of each cgroup namespace, which is what one sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nslab.model.snapshot import CgroupContent, SeenProcess, Snapshot
from nslab.render import style
from nslab.render.cells import cell, kind_cell, table
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table
from nslab.render.who import name_of

ABOUT = (
    "A row is a cgroup, below the one that it is in, with the processes in it whose place is known. A coloured field is a "
    "cgroup namespace whose root is there: what its members call /."
)
Line = tuple[str, str]  # the branches before its name, and the path of a cgroup


def cgroups(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """The cgroups in which the processes of a snapshot are, as the reader sees their paths.

    A snapshot of the whole machine knows that only of those that are not in the machine's own namespaces.
    """
    inside: dict[str, list[SeenProcess]] = {}
    for each in snapshot.processes:
        if each.cgroup:
            inside.setdefault(each.cgroup, []).append(each)
    roots = _roots(snapshot)
    lines = list(_tree({*inside, *roots}))
    rows = [("cgroup", "processes", "cgroup namespaces with this root")]
    drawn = []
    for branch, path in lines:
        there = [*map(_process, inside.get(path, ()))]
        rows.append((branch + _name(path), ", ".join(there), ", ".join(f"cgroup:[{inode}]" for inode in roots.get(path, ()))))
    for group in fold(lines, lambda line: (line[1].rpartition("/")[0], len(inside.get(line[1], ())), line[1] in roots), most):
        drawn.append(_row(group, inside, roots))
    graph = style.digraph()
    heads = [cell("cgroup", bold=True), cell("processes", bold=True), cell("root of", bold=True)]
    graph.node("tree", table([heads, *drawn], border=0), shape="plain", fillcolor="transparent", tooltip=" ")
    return Picture(title or f"Cgroups: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT)


def _roots(snapshot: Snapshot) -> dict[str, list[int]]:
    """The inodes of cgroup namespaces by the path of their root, in version 2 or the first tree of version 1."""
    found: dict[str, list[int]] = {}
    for each in snapshot.namespaces:
        if isinstance(each.content, CgroupContent) and each.content.roots:
            roots = each.content.roots
            found.setdefault(roots.get("", next(iter(roots.values()))), []).append(each.id.ino)
    return found


def _tree(paths: set[str]) -> Iterator[Line]:
    """These paths and all above them, depth first, with the branches drawn in characters."""
    children: dict[str, set[str]] = {}
    for path in paths:
        below = path
        while below != "/":
            above = below.rpartition("/")[0] or "/"
            children.setdefault(above, set()).add(below)
            below = above
    todo = [("/", "", "")]
    while todo:
        path, branch, below = todo.pop()
        yield branch, path
        under = sorted(children.get(path, ()), reverse=True)
        for number, child in enumerate(under):
            last = number == 0
            todo.append((child, f"{below}{'└─' if last else '├─'} ", below + ("   " if last else "│  ")))


def _name(path: str) -> str:
    return path.rpartition("/")[2] or "/"


def _process(process: SeenProcess) -> str:
    number = str(process.pid)
    return process.belongs if process.belongs.endswith(f" {number}") else f"{process.belongs or name_of(process)} {number}"


def _row(group: list[Line], inside: Mapping[str, list[SeenProcess]], roots: Mapping[str, list[int]]) -> list[str]:
    branch, path = group[0]
    if len(group) > 1:
        tip = names([each for _, each in group])
        count = sum(len(inside.get(each, ())) for _, each in group)
        return [cell(f"{branch}{len(group)} more", bold=True, tip=tip), cell(f"{count} processes" if count else ""), cell()]
    there, here = [*map(_process, inside.get(path, ()))], roots.get(path, [])
    some = style.listing([style.shorten(each, 30) for each in there], 2)
    field = kind_cell("cgroup", style.listing([*map(str, here)], 2), tip=", ".join(f"cgroup:[{inode}]" for inode in here))
    return [
        cell(branch + _name(path), bold=path in inside, tip=path, longest=56),
        cell(some, tip=", ".join(there) if len(there) > 2 else "", longest=64),
        field if here else cell(),
    ]
