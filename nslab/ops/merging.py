"""For the script: what the kernel is asked one after the other, and one command does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nslab.model import KINDS
from nslab.ops.base import Op
from nslab.ops.cgroups import InCgroup
from nslab.ops.spaces import Borrow, Join, NewNamespaces, NewTime, Nsenter, Setns, shifting


def merged(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """A cgroup first; a borrowed user namespace and what is below it by one unshare, joins by one nsenter.

    That opens all its files first: whoever is in another user namespace already may not be allowed to.
    """
    ops = (*(op for op in ops if isinstance(op, InCgroup)), *(op for op in ops if not isinstance(op, InCgroup)))
    if ops and isinstance(ops[0], InCgroup):
        return (ops[0], *merged(ops[1:]))
    if ops and isinstance(ops[0], Borrow) and ops[0].path:
        ops = (Setns("", "user", ops[0].path), *(op for op in ops[1:] if not isinstance(op, Join) or op.kinds))
    joins = tuple(itertools.takewhile(lambda op: isinstance(op, Setns) and op.kind and op.path, ops))
    if len(joins) > 1:
        return (Nsenter(joins), *_timed(ops[len(joins) :]))
    if len(ops) > 1 and isinstance(ops[0], Borrow) and isinstance(ops[1], NewNamespaces):
        below = ops[1]
        if below.kinds and "user" not in below.kinds:
            kinds = tuple(kind for kind in KINDS if kind == "user" or kind in below.kinds)
            return _timed((replace(below, kinds=kinds, maps=ops[0].maps), *ops[2:]))
    return _timed(ops)


def _timed(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """A time namespace by the unshare(1) that makes the others, where it writes the id maps too."""
    time = next((op for op in ops if isinstance(op, NewTime)), None)
    new = next((op for op in ops if isinstance(op, NewNamespaces)), None)
    if not time or not new or (new.maps and not new.maps.single):
        return ops
    return tuple(_NewWithTime(new.kinds, new.maps, offsets=time.offsets) if op is new else op for op in ops if op is not time)


@dataclass(frozen=True)
class _NewWithTime(NewNamespaces):
    """Both as one command: only a script has it."""

    offsets: Mapping[str, int] = field(kw_only=True)

    def _options(self) -> list[str]:
        return [*super()._options(), "--time", *([] if "pid" in self.kinds else ["--fork"])]

    def shell(self) -> str:
        return shifting(super().shell(), self.offsets)
