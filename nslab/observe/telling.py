"""The parts of a Snapshot, from what is known."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from errno import ENOSYS

from nslab import procfs
from nslab.model import KINDS, NamespaceId
from nslab.model.snapshot import Holder, SeenNamespace, SeenProcess, Unseen
from nslab.observe import belonging
from nslab.observe.asking import Answers, owner_uid
from nslab.observe.known import Known

_INITIAL_PID = 0xEFFFFFFC  # the inode of the PID namespace that the machine was started with
_CAP_SYS_PTRACE = 19  # who has it is shown all processes


def namespaces(known: Known) -> Iterator[SeenNamespace]:
    """Each, by kind, in the order of KINDS, and inode."""
    order = list(KINDS)
    below = _below(known)
    for answers in sorted(known.found.values(), key=lambda each: (order.index(each.kind), each.id)):
        members = tuple(sorted(known.members.get(answers.id, ())))
        since, leader = known.leaders.get(answers.id, (0, 0))
        yield SeenNamespace(
            kind=answers.kind, id=answers.id, number=answers.number, identity=_identity(answers, since if leader else None),
            owner=answers.owner, owner_uid=owner_uid(answers, known.found), parent=answers.parent, members=members,
            leader=leader, holders=tuple(_holders(known, answers.id, () if members else below.get(answers.id, ()))),
            belongs=known.labels.get(answers.id, ""), content=known.contents.get(answers.id),
        )  # fmt: skip


def _below(known: Known) -> dict[NamespaceId, list[Holder]]:
    """What keeps an owner or a parent alive: each namespace that it owns or is the parent of."""
    found: dict[NamespaceId, list[Holder]] = {}
    for each in known.found.values():
        name = f"{each.kind}:[{each.id.ino}]"
        if each.parent:
            found.setdefault(each.parent, []).append(Holder("parent", 0, name))
        if each.owner and each.owner != each.parent:
            found.setdefault(each.owner, []).append(Holder("owner", 0, name))
    return found


def _holders(known: Known, identity: NamespaceId, below: tuple[Holder, ...] | list[Holder]) -> Iterator[Holder]:
    for each in known.references.get(identity, ()):
        yield Holder(each.sort, each.pid, each.detail)
    yield from below


def processes(known: Known) -> Iterator[SeenProcess]:
    """Each, by PID, and whose it is."""
    whose = {key: belonging.label_of(kinds, known.labels) for key, kinds in {id(k): k for k in known.kinds.values()}.items()}
    for each in known.walk.processes:
        kinds = known.kinds[each.pid]
        yield SeenProcess(
            each.pid, each.ppid, each.name, each.state, each.start, each.uid, each.command, each.exe, each.exe_deleted,
            each.kernel, kinds, each.pids, each.cgroup, whose[id(kinds)],
        )  # fmt: skip


def unseen(known: Known) -> Iterator[Unseen]:
    """What this user could not see, with why. proc(5), on hidepid"""
    if known.walk.refused:
        why = f"{_who()} may not see their namespaces, threads and descriptors"
        yield Unseen(f"of {len(known.processes)} processes", known.walk.refused, why)
    if known.walk.closed:
        yield Unseen("processes", known.walk.closed, f"{_who()} may not see which descriptors they have")
    if known.unasked:
        yield Unseen("namespaces", known.unasked, f"{_who()} may not open them, to ask for owner and parent")
    for kind, count in Counter(known.found[each].kind for each in known.unread).items():
        yield Unseen(f"{kind} namespaces", count, f"what they isolate is not known, since {_who()} may not enter them")
    if known.silent:
        why = f"{_who()} may not ask which network they are in, and nothing else may lead to that"
        yield Unseen("sockets", known.silent, why)
    if known.unlisted == ENOSYS:
        what = "namespaces to which no process, mount or socket leads"
        yield Unseen(what, 0, "this kernel does not list them (listns, Linux 6.19)")
    hiding = [each for each in procfs.mountinfo("self") if each.target == "/proc"][-1:]  # the uppermost
    for option in hiding[0].super_options if hiding and not procfs.capabilities() >> _CAP_SYS_PTRACE & 1 else ():
        if option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off"):
            yield Unseen("processes", 0, f"/proc is mounted with {option}, and does not show those of others")
    if known.machine["pid"].ino != _INITIAL_PID:
        yield Unseen("processes", 0, "the PID namespace of the reader is not the machine's, and shows only what is in it")


def _identity(answers: Answers, since: int | None) -> str:
    """Numbers are never used again. Where the kernel has none, a namespace is as old as its oldest member, at least."""
    if answers.number:
        return f"{answers.kind} {answers.number}"
    return f"{answers.kind}:[{answers.id.ino}]" + ("" if since is None else f" since {since}")


def _who() -> str:
    return f"uid {os.geteuid()}"
