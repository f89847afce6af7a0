"""What this user may do, and the id maps that follow.

Whoever has CAP_SYS_ADMIN makes namespaces directly. Everybody else makes a user namespace first, in which all else is
made: nslab borrows one, once, and says so in the trace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nslab import procfs
from nslab.errors import SpecError, SyscallError
from nslab.model import IdRange
from nslab.ops import BecomeRoot, Borrow, Execute, IdMaps, Join, NewNamespaces, Op, Plan, SetIds, Setns
from nslab.ops.spec import MAX_ID, id_ranges
from nslab.spawner import Spawner

CAP_SYS_ADMIN = 21
WHY_BORROWED = "an ordinary user may make the other kinds only inside a user namespace"
_UNCLAIMED = (524288, 65536)  # for root without an entry in /etc/subuid: ids that no system hands out to people

MapRequest = str | Iterable[Any]


def is_privileged() -> bool:
    """Whether namespaces can be made here without a user namespace."""
    return bool(procfs.capabilities() >> CAP_SYS_ADMIN & 1)


def subordinate(which: str, etc: str = "/etc") -> list[tuple[int, int]]:
    """The ranges (first, count) of subordinate ids of this user; ``which`` is "uid" or "gid"."""
    import pwd

    names = {str(os.getuid()): None}
    with contextlib.suppress(KeyError):  # a user without a name
        names[pwd.getpwuid(os.getuid()).pw_name] = None
    return procfs.subordinate_ids(which, names, etc)


def _own(setgroups: str = "deny") -> IdMaps:
    caller = (os.geteuid(), os.getegid())
    return IdMaps((IdRange(0, caller[0], 1),), (IdRange(0, caller[1], 1),), setgroups, caller=caller)


def _with_subordinate(which: str, own: int) -> tuple[IdRange, ...]:
    lines, inside = [IdRange(0, own, 1)], 1
    for first, count in subordinate(which):
        lines.append(IdRange(inside, first, count))
        inside += count
    return tuple(lines)


def borrowable() -> IdMaps:
    """The maps of the borrowed user namespace: with the user's subordinate ids where newuidmap(1) can give them."""
    if all(map(shutil.which, ("newuidmap", "newgidmap"))) and subordinate("uid") and subordinate("gid"):
        uid, gid = _with_subordinate("uid", os.geteuid()), _with_subordinate("gid", os.getegid())
        return IdMaps(uid, gid, "allow", helpers=True)
    return _own()


def borrow(spawner: Spawner) -> Op | None:
    """The op that says where things are made: None for the privileged, else the borrowed user namespace, made at need."""
    if spawner.capabilities >> CAP_SYS_ADMIN & 1:
        return None
    if spawner.borrowed is None:
        maps = borrowable()
        try:
            spawner.borrow(maps, WHY_BORROWED)
        except SyscallError:
            if not maps.helpers:
                raise
            spawner.borrow(
                _own(), WHY_BORROWED
            )  # newuidmap(1) is there but may not: no_new_privs, a container without setuid files
    assert spawner.borrowed
    return Borrow(spawner.borrowed, implied=WHY_BORROWED)


def id_maps(uid_map: MapRequest, gid_map: MapRequest, setgroups: str | None, around: IdMaps | None) -> IdMaps:
    """The maps of a new user namespace, as its parent numbers ids.

    "single": root inside is oneself outside. "subordinate": and the ids from 1 on are the subordinate ones. Else lines of
    (inside, outside, count), outside as this process numbers ids. ``around`` are the maps of the borrowed user namespace.
    """
    uid = _ranges("uid", uid_map, os.geteuid(), around.uid if around else None)
    gid = _ranges("gid", gid_map, os.getegid(), around.gid if around else None)
    if setgroups not in (None, "allow", "deny"):
        raise SpecError("setgroups", f"{setgroups!r} is neither 'allow' nor 'deny'")
    asked = setgroups is not None
    if around and around.setgroups == "deny":
        if setgroups == "allow":
            raise SpecError("setgroups", "an ordinary user without subordinate ids must deny it. user_namespaces(7)")
        setgroups = "deny"
    single = uid_map == "single" and gid_map == "single"
    caller = (0, 0) if around else (os.geteuid(), os.getegid())
    return IdMaps(uid, gid, setgroups or ("deny" if single else "allow"), caller=caller, asked=asked)


def _ranges(which: str, asked: MapRequest, own: int, around: tuple[IdRange, ...] | None) -> tuple[IdRange, ...]:
    argument = f"{which}_map"
    if asked == "single":
        return (IdRange(0, 0 if around else own, 1),)
    if asked == "subordinate":
        if around:
            if len(around) == 1:
                raise SpecError(argument, f"this user has no subordinate ids: an entry in /etc/sub{which} and newuidmap(1)")
            return tuple(
                IdRange(line.inside, line.inside, line.count) for line in around
            )  # no line may span two of the parent's
        first, count = (subordinate(which) or [_UNCLAIMED])[0]
        return (IdRange(0, first, count),)
    if isinstance(asked, str):
        raise SpecError(argument, f"{asked!r} is neither 'single', 'subordinate' nor lines of (inside, outside, count)")
    lines = id_ranges(argument, asked)
    return tuple(_translate(argument, which, line, around, own) for line in lines) if around else lines


def _translate(argument: str, which: str, line: IdRange, around: tuple[IdRange, ...], own: int) -> IdRange:
    """The same line with ``outside`` as the borrowed user namespace numbers it."""
    for known in around:
        if known.outside <= line.outside and line.outside + line.count <= known.outside + known.count:
            return IdRange(line.inside, known.inside + line.outside - known.outside, line.count)
    if len(around) == 1:
        rule = f"may write one line, of length 1, that maps the own {which} ({own}); {tuple(line)} is something else"
        raise SpecError(argument, f"an ordinary user without subordinate ids {rule}. user_namespaces(7)")
    raise SpecError(
        argument, f"{tuple(line)} lies outside the own {which} ({own}) and the subordinate ranges in /etc/sub{which}"
    )


def fit(work: Execute, ops: tuple[Op, ...]) -> Execute:
    """The same work; its script leaves the groups alone where setgroups(2) is denied after these ops.

    SpecError for a user who is in no line of the maps that are made by these ops.
    """
    maps = maps_of(ops)
    for op in work.before:
        if isinstance(op, SetIds) and maps and not any(isinstance(op, Join | Setns) for op in ops):
            _must_be_mapped(op, maps)
    if not work.before or not maps or maps.setgroups != "deny":
        return work
    return replace(work, before=tuple(replace(op, denied=True) if isinstance(op, SetIds) else op for op in work.before))


def _must_be_mapped(ids: SetIds, maps: IdMaps) -> None:
    for which, number, ranges in (("uid", ids.uid, maps.uid), ("gid", ids.gid, maps.gid)):
        if not any(0 <= number - line.inside < line.count for line in ranges):
            raise SpecError(
                "user",
                f"{which} {number} is in no line of the id map, so it is nobody inside "
                f"({'; '.join(' '.join(map(str, line)) for line in ranges)}: inside, outside, count).\n"
                "what to do: isolate='user ...' with uid_map='subordinate', which maps a whole range, or lines with that id.",
            )


def maps_of(ops: tuple[Op, ...]) -> IdMaps | None:
    """The id maps of the user namespace that these ops end up in; None for the machine's own."""
    maps = [op.maps for op in ops if isinstance(op, NewNamespaces | Borrow | BecomeRoot) and op.maps]
    return maps[-1] if maps else None


def identity(user: str | int) -> SetIds:
    """Who to be: a user name of the machine with its groups, or a uid with the gid of the same number."""
    import pwd

    if isinstance(user, int):
        if not 0 <= user <= MAX_ID:
            raise SpecError("user", f"{user} is no user id; they lie between 0 and {MAX_ID}")
        return SetIds(user, user)
    if not isinstance(user, str):
        raise SpecError("user", f"must be a name or a number, not {type(user).__name__}")
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SpecError("user", f"this machine has no user {user!r}") from None
    groups = tuple(os.getgrouplist(user, entry.pw_gid))
    return SetIds(entry.pw_uid, entry.pw_gid, groups)


def is_borrowed(plan: Plan) -> bool:
    """Whether a plan is for the spawner in the borrowed user namespace."""
    return bool(plan.ops) and isinstance(plan.ops[0], Borrow)
