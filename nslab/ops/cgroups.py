"""A cgroup of one's own: where what runs is counted, limited, and held still."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from nslab.ops.base import Context, Op


@dataclass(frozen=True)
class InCgroup(Op):
    """Be born in the cgroup (v2) ``base``/``group``/``leaf``, with ``limits``: its files, and what is written to them.

    ``base`` is there before. ``group`` is nslab's own, and no process is in it, so that ``controllers`` can be enabled there
    for the leaves: the rule of no internal processes, cgroups(7). The spawner makes both, and removes them with what is inside.
    """

    base: str
    group: str
    leaf: str
    controllers: tuple[str, ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    found: bool = False  # it is somebody else's, who made it and will remove it

    @property
    def parent(self) -> str:
        return f"{self.base}/{self.group}"

    @property
    def path(self) -> str:
        return f"{self.base}/{self.group}/{self.leaf}"

    def perform(self, context: Context) -> None:
        """Nothing: the process that runs this plan was born in it."""

    def describe(self) -> str:
        limits = ", ".join(f"{name} {value}" for name, value in self.limits)
        return f"be in the cgroup {self.path} ({limits or 'without limits'})"

    def shell(self) -> str:
        if self.found:
            return f"echo $$ > {shlex.quote(self.path)}/cgroup.procs"
        base, parent, path = map(shlex.quote, (self.base, self.parent, self.path))
        lines = [f"mkdir -p {parent}"]
        if self.controllers:
            enabled = " ".join(f"+{name}" for name in self.controllers)
            lines += [f"echo '{enabled}' > {each}/cgroup.subtree_control" for each in (base, parent)]
        lines.append(f"mkdir -p {path}")
        lines += [f"echo {shlex.quote(value)} > {path}/{name}" for name, value in self.limits]
        return "\n".join([*lines, f"echo $$ > {path}/cgroup.procs  # when all is over: rmdir {path} {parent}"])
