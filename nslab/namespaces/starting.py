"""How a process to steer begins: as whom, and in which namespaces."""

from __future__ import annotations

import sys

from nslab.errors import SpecError
from nslab.namespaces import privilege
from nslab.namespaces.orders import Script
from nslab.namespaces.steered import Process
from nslab.ops import Adopt, Op, Plan, SetIds, spec
from nslab.spawner import Steer, channel, ensure
from nslab.trace import Trace, record

NOBODY = 65534


def process(*, as_: str | None = None) -> Process:
    """A live process to steer by hand, one system call a cell.

    ``as_="ordinary"`` is a process without privilege, outside any user namespace of nslab's: what an ordinary user meets.
    Started by root it becomes nobody (65534); a user name instead of "ordinary" makes it that user.
    """
    if as_ is not None:
        spec.text("as_", as_)
    spawner = ensure()
    trace = Trace()
    ops: list[Op] = []
    borrowed = False
    if as_ is None:
        with record(trace):
            op = privilege.borrow(spawner)
        borrowed = op is not None
        ops += [op] if op else []
    elif privilege.is_privileged():
        ops.append(_identity(as_))
    elif as_ != "ordinary":
        raise SpecError("as_", "only root can make a process of another user; as_='ordinary' is you, without anything added")
    shown = tuple(ops)
    ops.append(Adopt(implied="what it starts ends with it"))
    mine, theirs = channel.pair()
    with theirs, record(trace):
        child = spawner.start(
            Plan(tuple(ops)),
            work=Steer(tuple(sys.path), stranger=as_ is not None),
            fds={"steer": theirs, "registry": spawner.registry},
            title="nslab-keeper",
            borrowed=borrowed,
        )
        child.settle()
    script = Script(*shown)
    trace.add_script(script)
    return Process(mine, child, trace, script, borrowed)


def _identity(name: str) -> SetIds:
    import pwd

    implied = "to be an ordinary user"
    if name == "ordinary":
        return SetIds(NOBODY, NOBODY, implied=implied)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise SpecError("as_", f"{name!r} is neither 'ordinary' nor a user of this machine") from None
    return SetIds(entry.pw_uid, entry.pw_gid, implied=implied)
