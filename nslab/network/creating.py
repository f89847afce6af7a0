"""create: new network namespaces, one or many at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from nslab.namespaces import privilege
from nslab.network import making
from nslab.network.space import Network
from nslab.ops import NewNamespaces, Op, SetUp, WriteFile, spec
from nslab.ops.networks import NewNetworks
from nslab.spawner import ensure

MOST = 100_000
WHY_LOOPBACK = "without it not even 127.0.0.1 can be reached"
WHY_NO_DAD = "else an IPv6 address could not be used for a second or two, and each would be announced to every port of a bridge"
_ACCEPT_DAD = "/proc/sys/net/ipv6/conf/default/accept_dad"


def create(*, loopback: bool = True, sysctls: Mapping[str, int | str] | None = None) -> Network:
    """A new network namespace that descriptors hold, its loopback up; ``sysctls`` are set before anything is in it."""
    return create_many(1, loopback=loopback, sysctls=sysctls)[0]


def create_many(
    count: int, *, loopback: bool = True, sysctls: Mapping[str, int | str] | None = None,
    told: Callable[[], object] | None = None,
) -> list[Network]:  # fmt: skip
    """``count`` of them, made by one process, which ends: each is two descriptors of this one. unshare(2)

    For many of them the soft limit RLIMIT_NOFILE of this process is raised; Unavailable when the hard one is too low.
    IPv6 addresses are used without a search for duplicates (net.ipv6.conf.default.accept_dad 0). ``told`` is called
    after each.
    """
    spec.number("count", count, 1, MOST)
    inside: list[SetUp | WriteFile] = []
    if os.path.exists(_ACCEPT_DAD):
        inside.append(WriteFile(_ACCEPT_DAD, "0", implied=WHY_NO_DAD))
    inside += [WriteFile(path, text) for path, text in spec.sysctls(sysctls, ("net",)).items()]
    inside += [SetUp("lo", implied=WHY_LOOPBACK)] if loopback else []
    borrow = privilege.borrow(ensure())
    making.make_room(2 * count)
    before: list[Op] = [borrow] if borrow else []
    ops = (*before, NewNamespaces(()), NewNetworks(count, making.FD, tuple(inside)))
    return [Network(*each) for each in making.handed_back(ops, {}, count, told)]
