"""Of whom a picture speaks: names for processes and for the owners of namespaces, and what somebody has for himself."""

from __future__ import annotations

from dataclasses import replace

from nslab.errors import SpecError
from nslab.model.snapshot import SeenNamespace, SeenProcess, Snapshot, held_by
from nslab.render.style import listing


def name_of(process: SeenProcess) -> str:
    """Its command line, or its name; what pads a title that a process gave itself is left out."""
    return process.title().strip("\0 ") or process.name


def whose(snapshot: Snapshot, namespace: SeenNamespace) -> str:
    """To whom it belongs, or who is its first member, or what holds it."""
    if snapshot.machine.get(namespace.kind) == namespace.id:
        return "the machine's"
    leader = snapshot.by_pid.get(namespace.leader)
    return namespace.belongs or (f"{leader.pid} {name_of(leader)}" if leader else "") or held_by(namespace.holders)


def own(snapshot: Snapshot, process: SeenProcess) -> tuple[str, ...]:
    """The kinds of which it is in another namespace than the machine's."""
    return tuple(kind for kind, identity in process.kinds.items() if identity != snapshot.machine.get(kind))


def parties(snapshot: Snapshot) -> list[list[SeenProcess]]:
    """The processes that are not in the machine's namespaces only: those of a container, and of others those in the same ones.

    First in each stands who is in most namespaces of its own: init, and not who enters.
    """
    found: dict[object, list[SeenProcess]] = {}
    for process in snapshot.processes:
        if not process.kernel and process.state not in "ZX" and own(snapshot, process):  # the dead are in what is left
            found.setdefault(process.belongs or tuple(sorted(process.kinds.items())), []).append(process)
    named = sorted(found.values(), key=lambda party: not party[0].belongs)  # what has a name comes first
    return [sorted(party, key=lambda each: (-len(own(snapshot, each)), each.start, each.pid)) for party in named]


def first(snapshot: Snapshot, of: str | int) -> SeenProcess:
    """The first process of a container ("container web" or "web"), or the one with this PID. SpecError when there is none."""
    if isinstance(of, int):
        if of in snapshot.by_pid:
            return snapshot.by_pid[of]
        raise SpecError("of", f"there is no process {of} in this snapshot of {snapshot.scope}")
    inside = [party[0] for party in parties(snapshot)]
    found = [each for each in inside if each.belongs and (not of or _is(each.belongs, of))] or ([] if of else inside)
    if found:
        return found[0]
    if not of:
        raise SpecError("of", f"in this snapshot of {snapshot.scope} nobody has a namespace but the machine's")
    there = listing([each.belongs for each in inside if each.belongs]) or "none"
    raise SpecError("of", f"{of!r} is not in this snapshot of {snapshot.scope}; there are: {there}")


def only(snapshot: Snapshot, of: str | int) -> Snapshot:
    """The part of a snapshot that a container or a process has to do with: its namespaces, who is in them, the machine's."""
    found = [each for each in snapshot.processes if each.pid == of or _is(each.belongs, of)]
    mine = {identity for each in found for identity in each.kinds.values()} - set(snapshot.machine.values())
    mine |= {each.id for each in snapshot.namespaces if _is(each.belongs, of)}
    if not found and not mine:
        raise SpecError("of", f"nothing of {of!r} is in this snapshot of {snapshot.scope}")
    namespaces = tuple(each for each in snapshot.namespaces if each.id in mine or each.id in snapshot.machine.values())
    inside = tuple(each for each in snapshot.processes if each in found or mine & set(each.kinds.values()))
    return replace(snapshot, namespaces=namespaces, processes=inside, scope=f"{of}, and the machine's")


def _is(belongs: str, of: str | int) -> bool:
    return of in (belongs, belongs.partition(" ")[2])
