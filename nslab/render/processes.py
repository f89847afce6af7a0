"""The tree of processes, with a column for each kind of namespace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nslab.model import KINDS
from nslab.model.snapshot import SeenProcess, Snapshot
from nslab.render import style
from nslab.render.cells import cell, kind_cell, table
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table
from nslab.render.who import name_of, own

ABOUT = (
    "A row is a process, below its parent. A column is a kind: a coloured field has the number of a namespace that is not the "
    "machine's, a dot stands for the machine's own."
)
Line = tuple[str, SeenProcess]  # the branches before its name, and the process


def processes(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """The process tree of a snapshot, kernel threads left out. Past ``most`` rows, siblings that are alike are folded."""
    lines = list(_tree(snapshot))
    shown = _shown(snapshot, lines, most)
    heads = [cell("process", bold=True), *(kind_cell(kind) for kind in KINDS)]
    graph = style.digraph()
    graph.node("tree", table([heads, *(_row(snapshot, group) for group in shown)], padding=2, border=0), shape="plain",
               fillcolor="transparent", tooltip=" ")  # fmt: skip
    rows = [("process", "uid", "belongs to", *KINDS)]
    for branch, each in lines:
        numbers = (_number(snapshot, each, kind) for kind in KINDS)
        rows.append((f"{branch}{each.pid} {name_of(each)}", str(each.uid), each.belongs, *numbers))
    return Picture(title or f"Processes: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT)


def _tree(snapshot: Snapshot) -> Iterator[Line]:
    """Depth first, with the branches drawn in characters."""
    children: dict[int, list[SeenProcess]] = {}
    mine = {each.pid: each for each in snapshot.processes if not each.kernel}
    for each in mine.values():
        children.setdefault(each.ppid if each.ppid in mine and each.ppid != each.pid else 0, []).append(each)
    todo = [(each, "", "") for each in reversed(children.get(0, []))]
    while todo:
        each, branch, below = todo.pop()
        yield branch, each
        under = children.get(each.pid, [])
        for number, child in reversed(list(enumerate(under, 1))):
            last = number == len(under)
            todo.append((child, f"{below}{'└─' if last else '├─'} ", below + ("   " if last else "│  ")))


def _shown(snapshot: Snapshot, lines: list[Line], most: int | None) -> list[list[Line]]:
    """The rows. What has no namespace but the machine's, nor anything below it that has, is folded first, into the last row."""
    if most is None or len(lines) <= most:
        return [[line] for line in lines]
    wanted: set[int] = set()
    for _, process in lines:
        above: SeenProcess | None = process if own(snapshot, process) else None
        while above and above.pid not in wanted:
            wanted.add(above.pid)
            above = snapshot.by_pid.get(above.ppid)
    rest = [line for line in lines if line[1].pid not in wanted]
    room = max(0, most - len(wanted) - 1)  # for some of the others
    kept = {line[1].pid for line in rest[:room]} | wanted
    folded = fold([line for line in lines if line[1].pid in kept], lambda line: _alike(snapshot, line[1]), most - 1)
    return [*folded, *([rest[room:]] if rest[room:] else [])]


def _alike(snapshot: Snapshot, process: SeenProcess) -> tuple[object, ...]:
    """Siblings of one name in the same namespaces, or each in ones of its own of the same kinds."""
    kinds, parent = own(snapshot, process), snapshot.by_pid.get(process.ppid)
    place = parent.name if parent and kinds else process.ppid
    return (process.name, kinds, place, tuple(process.command[:1]))


def _row(snapshot: Snapshot, group: list[Line]) -> list[str]:
    branch, process = group[0]
    if len(group) > 1:
        tip = names([f"{each.pid} {name_of(each)}" for _, each in group])
        alike = len({each.name for _, each in group}) == 1
        text = f"{branch}{len(group)} more {process.name if alike else 'processes'}"
        return [cell(text, bold=True, tip=tip, longest=56), *(cell("") for _ in KINDS)]
    tip = f"PID {process.pid}, uid {process.uid}, {process.belongs or 'of nobody in particular'}: {name_of(process)}"
    text = f"{process.pid} {name_of(process)}"
    return [cell(branch + text, tip=tip, longest=56), *(_field(snapshot, process, kind) for kind in KINDS)]


def _field(snapshot: Snapshot, process: SeenProcess, kind: str) -> str:
    number = _number(snapshot, process, kind)
    if number in ("", "?"):
        return cell("·" if not number else "?", align="center", tip="the machine's" if not number else "it may not be read")
    return cell(number, colour=KINDS[kind].colour, align="center", tip=f"{kind}:[{number}]")


def _number(snapshot: Snapshot, process: SeenProcess, kind: str) -> str:
    """The inode of its namespace, "" for the machine's, "?" where it may not be read."""
    kinds: Mapping[str, object] = process.kinds
    if kind not in kinds:
        return "?"
    return "" if process.kinds[kind] == snapshot.machine.get(kind) else str(process.kinds[kind].ino)
