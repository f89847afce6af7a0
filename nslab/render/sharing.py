"""Who shares what with whom: processes in the same namespaces are one party, and parties meet at what they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import graphviz

from nslab.model import KINDS, NamespaceId
from nslab.model.snapshot import SeenProcess, Snapshot
from nslab.render import style
from nslab.render.folding import MOST, fold, names
from nslab.render.picture import Picture, text_table
from nslab.render.who import name_of, own, parties

ABOUT = (
    "Each box is a party: processes that are in the same namespaces. Lines meet at a namespace that several parties are in; "
    "what only one has, and what is the machine's, is written in its box."
)
Party = list[SeenProcess]


def sharing(snapshot: Snapshot, title: str = "", most: int | None = MOST) -> Picture:
    """Everybody who is not in the machine's namespaces only. Past ``most``, parties that are alike are folded."""
    every = parties(snapshot)
    meeting = Counter(party[0].kinds[kind] for party in every for kind in own(snapshot, party[0]))
    shared = {identity for identity, count in meeting.items() if count > 1}
    graph = style.undirected(rankdir="LR", ranksep="1.2", nodesep="0.12")
    groups = fold(every, lambda party: _alike(snapshot, party, shared), most)
    for number, group in reversed(list(enumerate(groups))):  # the engine puts what comes first at the bottom
        _party(graph, snapshot, f"p{number}", group, shared)
        process = group[0][0]
        for kind in own(snapshot, process):
            if process.kinds[kind] in shared:
                note = f"shared by {meeting[process.kinds[kind]]}"
                style.namespace_node(graph, f"{kind}_{process.kinds[kind].ino}", kind, process.kinds[kind].ino, note)
                graph.edge(f"{kind}_{process.kinds[kind].ino}", f"p{number}")
    if not every:
        graph.node("none", style.label("nobody", "every process is in the machine's namespaces"), shape="box", tooltip=" ")
    rows = [("party", "processes", *KINDS), *(_row(snapshot, party, shared) for party in every)]
    return Picture(title or f"Who shares what: {snapshot.scope}", graph.source, text_table(rows), rows, ABOUT)


def _party(graph: graphviz.Graph, snapshot: Snapshot, name: str, group: list[Party], shared: set[NamespaceId]) -> None:
    process, count = group[0][0], sum(map(len, group))
    sole = [kind for kind in own(snapshot, process) if process.kinds[kind] not in shared]
    rest = [kind for kind in KINDS if kind in process.kinds and kind not in own(snapshot, process)]
    facts = [f"alone: {' '.join(sole)}" if sole else "", f"the machine's: {' '.join(rest)}" if rest else ""]
    head = f"{len(group)} more" if len(group) > 1 else process.belongs or name_of(process)
    who = f"{count} processes" if count > 1 else f"PID {process.pid}"
    tip = names([_title(party) for party in group]) if len(group) > 1 else ", ".join(name_of(each) for each in group[0][:8])
    look = {"shape": "box", "style": "rounded,filled", "peripheries": "2" if len(group) > 1 else "1"}
    with graph.subgraph(graph_attr={"rank": "max"}) as last:
        last.node(name, style.label(head, who, *facts), tooltip=style.tooltip(tip), **look)


def _alike(snapshot: Snapshot, party: Party, shared: set[NamespaceId]) -> tuple[object, ...]:
    """Those that share the same namespaces, and have the same kinds for themselves."""
    process = party[0]
    return tuple((kind, process.kinds[kind] if process.kinds[kind] in shared else None) for kind in own(snapshot, process))


def _title(party: Party) -> str:
    return f"{party[0].pid} {party[0].belongs or name_of(party[0])}"


def _row(snapshot: Snapshot, party: Party, shared: set[NamespaceId]) -> Sequence[str]:
    cells = []
    for kind in KINDS:
        identity = party[0].kinds.get(kind)
        whose = "the machine's" if identity == snapshot.machine.get(kind) else ""
        cells.append("?" if identity is None else whose or f"{identity.ino}{' (shared)' if identity in shared else ''}")
    return (_title(party), str(len(party)), *cells)
