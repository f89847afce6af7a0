"""One process, several numbers: PIDs through nested PID namespaces, ids through the maps of user namespaces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nslab.model import IdRange, NamespaceId
from nslab.model.snapshot import SeenNamespace, SeenProcess, Snapshot, UserContent
from nslab.render import style
from nslab.render.cells import cell, kind_cell, table
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table
from nslab.render.who import name_of, whose

ABOUT_PIDS = "Each table is a PID namespace, with the numbers that processes have in it. A line joins those of one process."
ABOUT_IDS = (
    "Each table is a user namespace, with the ids that exist in it and what each is called one level up, where the line leads. "
    "What is not mapped there is nobody (65534)."
)


def pids(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """Processes that have more than one PID, with their number in each PID namespace from the machine's down to their own."""
    nested = [each for each in snapshot.processes if len(each.pids) > 1 and "pid" in each.kinds]
    groups = fold(nested, lambda process: (tuple(_chain(snapshot, process)[:-1]), process.name), most)
    graph = style.digraph(rankdir="LR", ranksep="1.0")
    heads: dict[str, list[list[str]]] = {}
    lines: dict[str, list[list[str]]] = {}
    for number, group in enumerate(groups):
        places = [_name(namespace) for namespace in _chain(snapshot, group[0])]
        last = {process.kinds["pid"] for process in group}
        if len(last) > 1:
            places[-1] = f"more{number}"
            heads[places[-1]] = [[kind_cell("pid", f"{len(last)} more", tip=names([str(each.ino) for each in last]))]]
        tip = names([f"{each.pid} {name_of(each)}" for each in group]) if len(group) > 1 else name_of(group[0])
        for level, place in enumerate(places):
            text = f"{len(group)} more {group[0].name}" if len(group) > 1 else f"{group[0].pids[level]}  {group[0].name}"
            lines.setdefault(place, []).append([cell(text, port=f"p{number}", tip=tip)])
            heads.setdefault(place, _head(snapshot, "pid", _chain(snapshot, group[0])[level]))
        for above, below in pairwise(places):
            graph.edge(f"{above}:p{number}:e", f"{below}:p{number}:w", arrowhead="none")
    for place, inside in lines.items():
        graph.node(place, table([*heads[place], *inside]), shape="plain", fillcolor="transparent", tooltip=" ")
    if not nested:
        graph.node("none", style.label("every process has one PID", "there is no PID namespace but the machine's"), shape="box")
    depth = max((len(each.pids) for each in nested), default=1)
    rows: list[Sequence[str]] = [("process", "here", *(f"level {level}" for level in range(1, depth)), "belongs to")]
    for each in nested:
        rows.append((name_of(each), *map(str, each.pids), *[""] * (depth - len(each.pids)), each.belongs))
    return Picture(title or f"PIDs: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT_PIDS)


def _chain(snapshot: Snapshot, process: SeenProcess) -> list[NamespaceId]:
    """The PID namespaces in which it has a number, the reader's first, as far as they are known."""
    chain = [process.kinds["pid"]]
    while len(chain) < len(process.pids):
        above = snapshot.by_id.get(chain[0])
        if above is None or above.parent is None:
            break
        chain.insert(0, above.parent)
    return chain if len(chain) == len(process.pids) else [snapshot.machine["pid"], process.kinds["pid"]]


def ids(snapshot: Snapshot, title: str = "", most: int | None = MOST, which: str = "uid") -> Picture:
    """The uid (or gid) maps of the user namespaces: which id is which, one level up and as the reader numbers it."""
    users = snapshot.of_kind("user")
    groups = fold(users, lambda each: (each.parent, _lines(each, which) if len(_lines(each, which)) > 1 else 0), most)
    drawn = {group[0].id for group in groups}
    graph = style.digraph(rankdir="RL", ranksep="1.2")
    rows: list[Sequence[str]] = [("user namespace", "whose", "inside", "one level up", "here", "count", "setgroups")]
    for group in groups:
        user, above = group[0], snapshot.by_id.get(group[0].parent) if group[0].parent else None
        lines = [_range_row(line, _up(above, which, line)) for line in _lines(user, which)] or [[cell(_unmapped(user))]]
        more = [
            [cell(f"and {len(group) - 1} more like it", tip=names([f"{each} {whose(snapshot, each)}" for each in group[1:]]))]
        ]
        label = table([*_head(snapshot, "user", user.id), *(more if len(group) > 1 else []), *lines])
        graph.node(_name(user.id), label, shape="plain", fillcolor="transparent", tooltip=" ")
        for line in _lines(user, which) if above and above.id in drawn else ():
            ports = [f":{_port(up)}:e" for up in _meets(line, _lines(above, which))]
            for port in ports or [""]:
                look = "solid" if port else "dashed"
                graph.edge(f"{_name(user.id)}:{_port(line)}:w", f"{_name(user.parent)}{port}", penwidth="1.2", style=look)
    for user in users:
        above = snapshot.by_id.get(user.parent) if user.parent else None
        setgroups = user.content.setgroups if isinstance(user.content, UserContent) else ""
        for line in _lines(user, which):
            numbers = (str(line.inside), _up(above, which, line), str(line.outside), str(line.count))
            rows.append((str(user), whose(snapshot, user), *numbers, setgroups))
    return Picture(title or f"{which.capitalize()}s: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT_IDS)


def _head(snapshot: Snapshot, kind: str, namespace: NamespaceId) -> list[list[str]]:
    """The first rows of the table of a namespace: its kind and number, and whose it is."""
    seen = snapshot.by_id.get(namespace)
    note = whose(snapshot, seen) if seen else ""
    return [[kind_cell(kind, str(namespace.ino))], *([[cell(note)]] if note else [])]


def _unmapped(user: SeenNamespace) -> str:
    return "nothing mapped yet" if isinstance(user.content, UserContent) else "nobody is there to tell its map"


def _range_row(line: IdRange, up: str) -> list[str]:
    text = _span(line.inside, line.count)
    called = _span(int(up), line.count) if up.isdigit() else up.strip("-")
    tip = f"{text} inside is {_span(line.outside, line.count)} as the reader numbers ids"
    return [cell(f"{text} is {called} outside" if called else text, port=_port(line), tip=tip)]


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first} to {first + count - 1}"


def _lines(user: SeenNamespace | None, which: str) -> tuple[IdRange, ...]:
    content = user.content if user else None
    if not isinstance(content, UserContent):
        return ()
    return (content.uid_map if which == "uid" else content.gid_map).lines


def _meets(line: IdRange, above: Sequence[IdRange]) -> list[IdRange]:
    """Those lines of the map above that have some of the same ids outside."""
    return [up for up in above if up.outside < line.outside + line.count and line.outside < up.outside + up.count]


def _up(above: SeenNamespace | None, which: str, line: IdRange) -> str:
    """What the first id of a line is called one level up."""
    if above is None or not isinstance(above.content, UserContent):
        return "-"
    number = (above.content.uid_map if which == "uid" else above.content.gid_map).inside(line.outside)
    return "not mapped" if number is None else str(number)


def _port(line: IdRange) -> str:
    return f"i{line.inside}"


def _name(identity: NamespaceId | None) -> str:
    return f"n_{identity.dev}_{identity.ino}" if identity else "none"
