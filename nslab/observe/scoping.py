"""A part of a snapshot: what a container, a lab or a process and all below it have to do with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nslab.errors import SpecError
from nslab.model import NamespaceId
from nslab.model.snapshot import SeenNamespace, Snapshot
from nslab.observe.belonging import BORROWED


def scoped(snapshot: Snapshot, thing: Any) -> Snapshot:
    """The part of it that is about a Container, a Process, a lab, or the process with this PID and all below that.

    It has the namespaces in which those processes are, and what these belong to; those that they hold; and those processes.
    """
    if isinstance(thing, int) and not isinstance(thing, bool):
        if thing not in snapshot.by_pid:
            raise SpecError("of", f"there is no process {thing} that can be seen")
        return of_processes(snapshot, _below(snapshot, thing), f"process {thing} and all below it")
    common = set(snapshot.machine.values()) | {each.id for each in snapshot.namespaces if each.belongs == BORROWED}
    if hasattr(thing, "held"):
        own = set(thing.held()) - common
    elif hasattr(thing, "namespaces"):
        own = set(thing.namespaces.ids().values()) - common
    else:
        raise SpecError("of", f"must be a Container, a Process, a lab or a PID, not {type(thing).__name__}")
    pids = {each.pid for each in snapshot.processes if own & set(each.kinds.values())}
    if (pid := getattr(thing, "pid", 0)) in snapshot.by_pid:  # also when nothing is its own
        pids.add(pid)
        own |= {each.id for each in snapshot.namespaces if pid in _awaited(each)}
    label = next((each.belongs for each in snapshot.namespaces if each.id in own and each.belongs), repr(thing))
    return _part(snapshot, pids, own, label)


def of_processes(snapshot: Snapshot, pids: set[int], label: str) -> Snapshot:
    """The part that is about these processes."""
    held = (each.id for each in snapshot.namespaces if any(holder.pid in pids for holder in each.holders))
    return _part(snapshot, pids, held, label)


def _below(snapshot: Snapshot, pid: int) -> set[int]:
    """The PIDs of a process and of its descendants."""
    children: dict[int, list[int]] = {}
    for each in snapshot.processes:
        children.setdefault(each.ppid, []).append(each.pid)
    found, todo = {pid}, [pid]
    while todo:
        new = [child for child in children.get(todo.pop(), ()) if child not in found]
        found |= set(new)
        todo += new
    return found


def _part(snapshot: Snapshot, pids: set[int], ids: Iterable[NamespaceId], label: str) -> Snapshot:
    wanted = set(ids)
    for pid in pids:
        wanted |= set(snapshot.by_pid[pid].kinds.values())
    todo = list(wanted)
    while todo:  # their owners and parents, up to those of the machine
        each = snapshot.by_id.get(todo.pop())
        above = {each.owner, each.parent} - {None, *wanted} if each else set()
        todo += [found for found in above if found]
        wanted |= {found for found in above if found}
    common = set(snapshot.machine.values())
    namespaces = (_ours(each, pids) if each.id in common else each for each in snapshot.namespaces if each.id in wanted)
    processes = tuple(each for each in snapshot.processes if each.pid in pids)
    return replace(snapshot, scope=label, namespaces=tuple(namespaces), processes=processes)


def _awaited(namespace: SeenNamespace) -> set[int]:
    """Those whose next child will be the first in it."""
    return {each.pid for each in namespace.holders if each.sort == "children"}


def _ours(namespace: SeenNamespace, pids: set[int]) -> SeenNamespace:
    """One of the machine's, without what others hold of it."""
    return replace(namespace, holders=tuple(each for each in namespace.holders if each.pid in pids))
