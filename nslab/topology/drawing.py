"""The picture of a topology, or of a lab as it is now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nslab import render
from nslab.errors import SpecError

if TYPE_CHECKING:
    from nslab.topology.lab import Lab
    from nslab.topology.node import Node
    from nslab.topology.topology import Topology


def draw(
    what: Topology | Lab, *, title: str, routes: bool, fold: bool | None, unfold: Iterable[Node | str]
) -> render.Picture:  # fmt: skip
    """See Topology.draw. Of a lab that is running the kernel is asked which interfaces are down."""
    from nslab.topology.lab import Lab

    layout = what.layout if isinstance(what, Lab) else what.resolve()
    names = [str(node) for node in ([unfold] if isinstance(unfold, str) else unfold)]
    for name in names:
        if name not in layout.nodes:
            raise SpecError("unfold", f"node {name!r} is not in this topology")
    down = _down(what) if isinstance(what, Lab) and what.running else frozenset[tuple[str, str]]()
    topology = what.topology if isinstance(what, Lab) else what
    containers = {node.name: ", ".join(_own(node.asked)) for node in topology if node.asked}
    return render.draw_layout(layout, title, down=down, containers=containers, routes=routes, fold=fold, unfold=names)


def _own(asked: Mapping[str, Any]) -> Iterable[str]:
    """What a container has of its own, in the words in which it was asked for: "mnt pid", "rootfs busybox", "limits"."""
    if kinds := asked.get("isolate"):
        yield kinds
    if rootfs := asked.get("rootfs"):
        yield f"rootfs {os.fspath(rootfs)}"
    yield from (word for word in ("mounts", "limits", "hardened") if word in asked)


def _down(lab: Lab) -> frozenset[tuple[str, str]]:
    """The interfaces that are turned off, or are not there any more, each by its node and name."""
    up = {node: {each.name for each in network.links() if each.up} for node, network in lab.networks.items()}
    fabric = {each.name for each in lab.fabric.links() if each.up} if lab.fabric else set[str]()
    ends = (end for link in lab.layout.links for end in link.ends)
    return frozenset((end.node, end.interface) for end in ends if end.interface not in up.get(end.node, fabric))
