"""What the kernel has, tried where it harms nothing: in a network made for that, and gone at once."""

from __future__ import annotations

from contextvars import Context
from functools import cache

from nslab.errors import SpecError, Unavailable
from nslab.network import batching
from nslab.network.batching import HOW, unavailable

_QUEUES = ("netem", "tbf", "htb")


def has(feature: str) -> bool:
    """Whether this kernel has netem, tbf, htb, veth, bridge, macvlan, dummy, vlan or "vlan filtering".

    It is tried once, outside of any trace.
    """
    if feature not in HOW:
        raise SpecError("feature", f"{feature!r} is none of {', '.join(HOW)}")
    return _tried(feature)


def require(feature: str) -> None:
    """Unavailable, with the way to get it, unless the kernel has it."""
    if not has(feature):
        raise unavailable(feature)


@cache
def _tried(feature: str) -> bool:
    return Context().run(_try, feature)


def _try(feature: str) -> bool:
    from nslab.network import creating, shaping

    with creating.create() as scratch:
        try:
            if feature in _QUEUES:
                lo = scratch.interface("lo")
                rate, delay, method = (None, "1ms", "tbf") if feature == "netem" else ("1mbit", None, feature)
                shape = shaping.checked(rate, delay, None, None, None, "50ms", method, 65536)
                batching.do(scratch, shaping.requests(lo.index, "lo", shape))
            elif feature == "veth":
                scratch.veth("v0", scratch, "v1")
            elif feature in ("macvlan", "vlan"):
                parent = scratch.veth("v0", scratch, "v1")[0]
                scratch.macvlan("v2", parent) if feature == "macvlan" else scratch.vlan("v2", parent, 2)
            elif feature == "vlan filtering":
                scratch.veth("v0", scratch, "v1", master=scratch.bridge("v2"))[0].join_vlan(2)
            else:
                getattr(scratch, feature)("v0")
        except Unavailable:
            return False
    return True
