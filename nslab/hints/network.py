"""What the kernel's answer to a netlink request means."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EBUSY, EEXIST, EHOSTUNREACH, EINVAL, ELOOP, ENETDOWN, ENETUNREACH, ENODEV, EPERM, ESRCH
from typing import Any

_RULES: dict[tuple[str, int], str] = {
    ("RTM_NEWLINK", EEXIST): "an interface of this name is there already, in the network where it was to be made.",
    ("RTM_NEWLINK", EBUSY): "an interface with this index is there already, or it belongs to another bridge or parent.",
    ("RTM_NEWLINK", ENODEV): "the interface, or the one that it was to lie upon, is gone.",
    ("RTM_NEWLINK", EINVAL): "this kind of interface cannot have such a value, or cannot lie upon that parent.",
    ("RTM_NEWLINK", ELOOP): "a bridge cannot be a port of a bridge.",
    ("RTM_DELLINK", ENODEV): "the interface is gone; a veth pair goes as a whole, also with the namespace of one end.",
    ("RTM_GETLINK", ENODEV): "the interface is gone; a veth pair goes as a whole, also with the namespace of one end.",
    ("RTM_NEWADDR", EEXIST): "the interface has this address already.",
    ("RTM_NEWADDR", EINVAL): "the interface takes no such address: IPv6 needs an MTU of 1280 at least.",
    ("RTM_DELADDR", EADDRNOTAVAIL): "the interface has no such address.",
    ("RTM_NEWROUTE", EEXIST): "there is such a route already; replace=True takes its place, another metric stands beside it.",
    ("RTM_NEWROUTE", ENETUNREACH): "the router (via) is in no subnet of an interface that is up: addresses first, then routes.",
    (
        "RTM_NEWROUTE",
        EHOSTUNREACH,
    ): "the router (via) is in no subnet of an interface that is up: addresses first, then routes.",
    ("RTM_NEWROUTE", ENETDOWN): "the interface is down, and has no routes as long as it is.",
    ("RTM_NEWROUTE", EINVAL): "the source address is none of this network, or the router is this network itself.",
    ("RTM_DELROUTE", ESRCH): "there is no such route.",
}


def explain_network(call: str, errno: int, message: str = "", **_: Any) -> str:
    """The hint, and after it the kernel's own words."""
    hint = _RULES.get((call, errno), "")
    if errno == EPERM:
        hint = "it needs CAP_NET_ADMIN in the user namespace that owns this network: make networks with network.create()."
    return "\n".join([hint] * bool(hint) + [f"the kernel's words: {message}"] * bool(message))
