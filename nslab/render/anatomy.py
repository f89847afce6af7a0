"""One container, kind by kind: what it has for itself, and what is the machine's."""

from __future__ import annotations

from nslab.model import KINDS
from nslab.model.snapshot import SeenNamespace, SeenProcess, Snapshot
from nslab.render import style
from nslab.render.contents import lines
from nslab.render.picture import Picture, text_table
from nslab.render.who import first, name_of

ABOUT = (
    "On the left is what it has for itself, with what is in there, on the right what it shares with the machine: a change is "
    "seen by all. ✚ marks what is another's too."
)


def anatomy(snapshot: Snapshot, of: str | int = "", title: str = "") -> Picture:
    """What of a container, or of a process, is its own. ``of``: "container web", "web" or a PID; else the first there is."""
    process = first(snapshot, of)
    graph = style.digraph(rankdir="LR", ranksep="0.8", nodesep="0.1")
    name = process.belongs or name_of(process)
    facts = [
        f"PID {process.pid}",
        *(f"PID {pid} inside" for pid in process.pids[-1:] if pid != process.pid),
        f"uid {process.uid}",
    ]
    graph.node(
        "self", style.label(name, *facts), shape="box", style="rounded,filled,bold", tooltip=style.tooltip(name_of(process))
    )
    rows = [("kind", "whose", "namespace", "what is in it")]
    sides: dict[str, list[tuple[str, SeenNamespace]]] = {"its own": [], "the machine's": []}
    for kind in KINDS:
        seen = snapshot.by_id.get(process.kinds[kind]) if kind in process.kinds else None
        if seen is None:
            rows.append((kind, "?", "-", "it may not be read"))
            continue
        whose = "the machine's" if snapshot.machine.get(kind) == seen.id else "its own"
        sides[whose].append((kind, seen))
        rows.append((kind, whose, str(seen), "; ".join(lines(snapshot, seen))))
    for number, (whose, found) in enumerate(sides.items()):
        with graph.subgraph(
            name=f"cluster_{number}", graph_attr=style.frame(f"{name}: {whose}" if not number else whose)
        ) as side:
            for kind, seen in reversed(found):
                others = _others(snapshot, seen, process)
                content = [*lines(snapshot, seen), *([f"✚ with {style.listing(others, 3)}"] if others and not number else [])]
                style.namespace_node(side, kind, kind, seen.id.ino, *content)
        for kind, _ in reversed(found):
            ends = (kind, "self") if not number else ("self", kind)
            graph.edge(*ends, arrowhead="none", **({"penwidth": "2.4"} if not number else {"style": "dashed"}))
    return Picture(title or f"Anatomy of {name}", graph.source, text_table(rows), rows, ABOUT)


def _others(snapshot: Snapshot, namespace: SeenNamespace, process: SeenProcess) -> list[str]:
    """Who else is in a namespace, by what they belong to."""
    members = (snapshot.by_pid[pid] for pid in namespace.members if pid in snapshot.by_pid)
    return [each for each in dict.fromkeys(member.belongs for member in members) if each and each != process.belongs]
