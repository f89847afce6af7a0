"""Seeing: every namespace on the machine at one moment, and what changed between two.

A namespace is seen when something that /proc shows leads to it: a process or thread in it, a descriptor, a bind mount, or
another namespace that it owns or is the parent of. What that costs is in ``procfs.walk``; owners, parents and numbers are asked
of the kernel. What could not be seen is said, and a process that ends meanwhile is normal.
"""

from __future__ import annotations

from nslab.model.snapshot import Snapshot
from nslab.observe.discovering import Discovery


def discover(*, contents: bool = True) -> Snapshot:
    """Every namespace of every kind that this user can see, with its owner, parent, members and what else keeps it alive.

    With ``contents`` also what each isolates: names, id maps, clock offsets, mounts, interfaces, addresses, routes, listeners,
    IPC objects, the cgroup root. For what no member tells a process of the spawner goes in, and changes nothing.
    """
    found = Discovery()
    if contents:
        found.look()
    return found.snapshot()
