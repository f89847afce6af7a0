"""The names of nodes: a host name for each, and the files by which the others are found under theirs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence

from nslab.container import mounts
from nslab.model.layout import Layout
from nslab.namespaces import Namespace, handing, privilege
from nslab.ops import Mount, NewNamespaces, Op, Plan, SetPropagation, Unshare
from nslab.ops.nodes import NewHostnames, ShowTexts
from nslab.spawner import ensure

WHY_MOUNTS = "for the command alone: its own /sys, and files in which the names of the lab are"
WHY_PRIVATE = "else these mounts would show up outside, where a mount is shared"
WHY_NAMES = "so that the names of the nodes resolve, and others fail at once"
WHY_HOSTNAMES = "each node has a host name"
WHY_SYSFS = "else /sys/class/net would show the interfaces of the machine"
SYSFS = Mount("sysfs", "/sys", "sysfs", ("MS_NOSUID", "MS_NODEV", "MS_NOEXEC"), implied=WHY_SYSFS)
RESOLVER = "# No name server can be reached from this node; the names of the lab are in /etc/hosts.\n"


def addresses(layout: Layout) -> dict[str, tuple[str, ...]]:
    """What the name of each node stands for: the first address of each family, without its length, on a link that is up."""
    found: dict[str, tuple[str, ...]] = {name: () for name, role in layout.nodes.items() if role != "switch"}
    links = sorted(layout.links, key=lambda link: not link.up)
    for end in (end for link in links for end in link.ends if end.node in found):
        for address in (text.split("/")[0] for text in end.addresses):
            if not any((":" in address) == (":" in other) for other in found[end.node]):
                found[end.node] = tuple(sorted((*found[end.node], address), key=lambda text: ":" in text))
    return found


def texts(addresses: Mapping[str, Iterable[str]], resolver: str) -> dict[str, str]:
    """The files by which names are resolved."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for name, found in addresses.items() for address in found]
    return {"/etc/hosts": "\n".join(lines) + "\n", "/etc/resolv.conf": resolver}


def inside(texts: Mapping[str, str]) -> tuple[Op, ...]:
    shown = tuple((os.path.realpath(path), text) for path, text in texts.items() if os.path.isfile(path))
    ops: list[Op] = [
        Unshare(("mnt",), implied=WHY_MOUNTS),
        SetPropagation("private", implied=WHY_PRIVATE),
        SYSFS,
    ]
    if shown:
        ops.append(ShowTexts(shown, mounts.choose_stage(path for path, _ in shown), implied=WHY_NAMES))
    return tuple(ops)


def hostnames(names: Sequence[str]) -> list[Namespace]:
    """A UTS namespace for each name, made by one process that ends."""
    borrow = privilege.borrow(ensure())
    plan = Plan((*([borrow] if borrow else []), NewNamespaces(()), NewHostnames(tuple(names), "names", implied=WHY_HOSTNAMES)))
    found: list[Namespace] = []
    with contextlib.ExitStack() as undo:
        with handing.handed_back(plan, "names", len(names), fds={}) as (_, given):
            for (descriptor,) in given:
                found.append(Namespace("uts", descriptor))
                undo.callback(found[-1].close)
        undo.pop_all()
    return found
