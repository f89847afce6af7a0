"""The walk of a packet through a lab: every interface that it passed, in order, with what NAT and routers changed."""

from __future__ import annotations

from nslab.model import KINDS
from nslab.model.packets import Hop, Walk
from nslab.render import style
from nslab.render.cells import cell, table
from nslab.render.folding import MOST, fold
from nslab.render.picture import Picture, text_table

ABOUT = (
    "A column is a node, in the order in which packets came to it. Time goes down: a line is one step, "
    "→ eth0 into a node or eth0 → out of it, with the addresses of the packet; ⚑ marks an address that NAT changed."
)


def walk(followed: Walk, title: str = "", most: int | None = MOST) -> Picture:
    """The picture of what lab.follow() saw. Past ``most`` steps the middle is folded."""
    nodes = list(dict.fromkeys(hop.node for hop in followed.hops))
    groups = fold(followed.hops, lambda hop: (hop.node, hop.interface, hop.direction), most)
    heads = [cell("ms", align="right"), *(_head(followed, node) for node in nodes), cell("packet", bold=True)]
    lines = [_row(group, nodes) for group in groups]
    graph = style.digraph()
    graph.node("walk", table([heads, *lines], border=0), shape="plain", fillcolor="transparent", tooltip=" ")
    rows = followed.rows()
    return Picture(title or f"The walk of {followed.summary()}", graph.source, text_table(rows), rows, ABOUT)


def _head(followed: Walk, node: str) -> str:
    return cell(node, bold=True, line=True, align="center", tip=f"{followed.nodes.get(node, 'node')} {node}")


def _row(group: list[Hop], nodes: list[str]) -> list[str]:
    hop, seen = group[0], group[0].packet
    if len(group) > 1:
        where = [cell("⋮" if any(each.node == node for each in group) else "", line=True, align="center") for node in nodes]
        return [cell(f"{hop.time * 1e3:.3f}", align="right"), *where, cell(f"{len(group)} more steps", bold=True)]
    step = f"→ {hop.interface}" if hop.direction == "in" else f"{hop.interface} →"
    tip = ", ".join([f"packet {hop.number}", f"{hop.direction} at {hop.interface} of {hop.node}", seen.what,
                     f"{seen.source_mac} to {seen.destination_mac}", *([f"TTL {seen.ttl}"] if seen.ttl else [])])  # fmt: skip
    said = f"{hop.number}: {seen.sender} → {seen.receiver}  {seen.protocol} {seen.what}" + (
        f", TTL {seen.ttl}" if seen.ttl else ""
    )
    lanes = [cell(step, line=True, align="center", tip=tip, colour=KINDS["net"].colour) if node == hop.node else cell(line=True)
             for node in nodes]  # fmt: skip
    nat = f"   ⚑ {', '.join(hop.changes)}" if hop.changes else ""
    return [cell(f"{hop.time * 1e3:.3f}", align="right"), *lanes, cell(said + nat, tip=tip, longest=80, bold=bool(nat))]
