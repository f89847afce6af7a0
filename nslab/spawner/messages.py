"""What is said between the notebook, the spawner, and the processes that the spawner makes.

Requests go to the spawner, with the descriptor "reply" first among their descriptors: one end of a channel of its own, on which
all that belongs to this request is answered. An answer is (calls made since the last one, word, value):

    "made", pid              from the spawner: the process is there (of a process that ends soon, only its end is told)
    "wait", (index, pid)     before op number ``index`` of a plan that runs op by op; the answer is any message
    "ready", (work, pid)     every op of the plan is done, and the work (if any) runs: its PID as the new process knows it.
                             ``pid`` is that of the process itself, 0 when the spawner tells it
    "terminal", 0            before "ready", with the master of a terminal that the work has opened where it is
    "failed", exception      an op or the start of the work failed; nothing of it is left
    "exit", status           the work ended, with a wait status
    "gone", status           from the spawner, and the last: the process is gone, and all below it

Closing one's end of that channel ends the process and all that it started.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from nslab.ops import Borrow, Execute, IdMaps, InCgroup, Join, NewNamespaces, Op, RemoveObjects, Setns, Unpack

# What a process needs to have loaded before it begins.
ENTERS, UNPACKS, TIDIES, PROGRAMS = 1, 2, 4, 8
# With those, the first byte of a request that needs no help of the spawner; whether its process gives borrowed memory back, and
# whether it becomes a minimal init.
ALONE, RETURNS, BARE = 128, 64, 32
LITTERED = 100  # the status of a minimal init that leaves System V objects behind
# From Python 3.14 on the interpreter refuses to run on a stack that is not its own.
_ANY_STACK = sys.version_info < (3, 14)


@dataclass(frozen=True)
class Call:
    """Run a pickled Python function (descriptor "function") and leave its pickled outcome in "result".

    Where the IPC namespace is the machine's, what it makes there is noted in "registry", and removed when the process ``owner``
    has ended. ``foreign``: it runs among files that are not the machine's, from which no module is to be loaded.
    """

    path: tuple[str, ...]  # the sys.path of the caller, to find modules on
    owner: int
    foreign: bool = False


@dataclass(frozen=True)
class Steer:
    """Take orders, one by one, from the descriptor "steer"; "registry" is as for Call, and the owner the keeper itself.

    ``path`` is the sys.path of the caller. ``stranger``: it begins as another user, who may not read what is there, so that
    what functions need is loaded at once, and not when they come or before it goes away.
    """

    path: tuple[str, ...] = ()
    stranger: bool = False


Work = Execute | Call | Steer | None


@dataclass(frozen=True)
class Start:
    """Make a process by ``ops``, and let it do ``work``. ``fds`` names the descriptors of the message, in order.

    ``lone``: it ends, and all below it, when the work does. ``stay``: it remains when there is nothing left below it.
    ``bare``: it has no work, and becomes this minimal program (init or hidden), which holds no descriptor; the spawner ends it.
    """

    ops: tuple[Op, ...]
    work: Work
    fds: tuple[str, ...]
    title: str
    lone: bool = False
    stay: bool = False
    stepwise: bool = False
    bare: str = ""

    @property
    def needs(self) -> int:
        """The bits of what is to be loaded for it (see child.get_ready)."""
        made = self.lone and any(isinstance(op, NewNamespaces) and "ipc" in op.kinds for op in self.ops)
        tidies = made or any(isinstance(op, RemoveObjects) for op in self.ops)
        unpacks = any(isinstance(op, Unpack) for op in self.ops)
        programs = bool(self.bare) or self.joins_time or (isinstance(self.work, Execute) and self.work.launched)
        return ENTERS * any(op.enters for op in self.ops) | UNPACKS * unpacks | TIDIES * tidies | PROGRAMS * programs

    @property
    def joins_time(self) -> bool:
        """Whether its command joins a time namespace, which a process can that has its memory to itself."""
        return isinstance(self.work, Execute) and any(isinstance(op, Join) and "time" in op.kinds for op in self.ops)

    @property
    def mark(self) -> bytes:
        """The first byte of the request: whether a standby can do it without the spawner's help, and what it needs."""
        at = next((index for index, op in enumerate(self.ops) if isinstance(op, NewNamespaces)), -1)
        new = self.ops[at] if at >= 0 else None
        way = [op for op in self.ops[: max(at, 0)] if not isinstance(op, Borrow)]
        from_outside = isinstance(new, NewNamespaces) and new.maps is not None and not new.maps.single
        launched = isinstance(self.work, Execute) and self.work.launched
        hidden = self.bare == "hidden"
        special = not _ANY_STACK or self.stepwise or hidden or launched or any(isinstance(op, InCgroup) for op in self.ops)
        if way or from_outside or special:
            return b"."
        # A function could leave something in the memory; who joins a time namespace must have it to himself, but for a command
        # that joins it by itself; a terminal stays.
        clock = any(isinstance(op, Setns) and op.kind in ("time", "") for op in self.ops)
        if isinstance(self.work, Execute):
            returns = not (self.work.terminal or self.stay or clock)
        else:
            returns = bool(self.bare) and not clock and not any(isinstance(op, Join) and "time" in op.kinds for op in self.ops)
        return bytes([ALONE | RETURNS * returns | BARE * bool(self.bare) | self.needs])


@dataclass(frozen=True)
class OpenBorrowed:
    """Make a user namespace with these maps and a second spawner inside; descriptors "reply" and "control"."""

    maps: IdMaps
    fds: tuple[str, ...] = ("reply", "control")


@dataclass(frozen=True)
class Regroup:
    """Freeze or thaw a cgroup, and move processes into it. It is made if it is not there, and goes with the process ``owner``.

    The answer is "gone", for there is no new process.
    """

    cgroup: InCgroup
    owner: int
    pids: tuple[int, ...]
    freeze: bool
    fds: tuple[str, ...] = ("reply",)
