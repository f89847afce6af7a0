"""Network namespaces from the process that makes or enters them: as descriptors, with a netlink socket of each."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nslab import netlink
from nslab.errors import Unavailable
from nslab.namespaces import Namespace, handing, joining
from nslab.ops import Op, Plan
from nslab.ops.networks import HandBackPacketSocket
from nslab.spawner import ensure
from nslab.trace import Step

if TYPE_CHECKING:
    from nslab.network.space import Network

FD = "networks"  # the name of the socket over which they are handed back
_SPARE = 256  # descriptors for all else
_AT_ONCE = 100  # networks that one process enters, one after the other: so many descriptors fit into a request


class Made(NamedTuple):
    """One that was handed back, and the steps that made it."""

    namespace: Namespace
    socket: netlink.Socket
    steps: list[Step]


def make_room(count: int) -> None:
    """Raise the soft limit of this process so that so many more descriptors fit; what the spawner starts keeps the old one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(map(int, os.listdir("/proc/self/fd"))) + count + _SPARE
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise Unavailable(
            f"this process may have {hard} open files (RLIMIT_NOFILE), and would need {wanted}",
            f"start it with more: ulimit -Hn {wanted}, a line in /etc/security/limits.conf, or LimitNOFILE= of its service",
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def handed_back(
    ops: tuple[Op, ...], fds: Mapping[str, Any], count: int, told: Callable[[], object] | None = None
) -> list[Made]:
    """Those that a process hands back which does ``ops`` and ends; ``told`` is called after each."""
    found: list[Made] = []
    try:
        with handing.handed_back(Plan(ops), FD, count, each=2, fds=fds) as (child, given):
            for namespace, sock in given:
                found.append(Made(Namespace("net", namespace), netlink.Socket(socket.socket(fileno=sock.detach())), []))
                if told:
                    told()
    except BaseException:
        for each in found:
            each.namespace.close()
            each.socket.close()
        raise
    number = 0
    for step in child.steps:  # each has those by which it was made; the first also those that led there
        number += step.call == "unshare"
        found[max(number - 1, 0)].steps.append(step)
    return found


def packet_sockets(networks: Sequence[Network]) -> list[socket.socket]:
    """A packet socket of each, opened by a process that enters them all and ends; each hears everything from then on."""
    found: list[socket.socket] = []
    try:
        for first in range(0, len(networks), _AT_ONCE):
            found += _packet_sockets(networks[first : first + _AT_ONCE])
    except BaseException:
        for each in found:
            each.close()
        raise
    return found


def _packet_sockets(networks: Sequence[Network]) -> list[socket.socket]:
    spawner = ensure()
    ops: list[Op] = []
    fds: dict[str, Any] = {}
    for number, network in enumerate(networks):
        network.check_open()
        (target,) = joining.checked(network.joins(), ()).values()
        if not number:
            way = joining.way({"net": target}, spawner)
            ops, fds = list(way.ops), dict(way.fds)
        else:
            fds[f"net{number}"] = target.descriptor
            ops.append(target.op(f"net{number}", ("net",)))
        ops.append(HandBackPacketSocket(FD))
    found: list[socket.socket] = []
    try:
        with handing.handed_back(Plan(tuple(ops)), FD, len(networks), fds=fds) as (_, given):
            found += (socket.socket(fileno=descriptor.detach()) for (descriptor,) in given)
    except BaseException:
        for each in found:
            each.close()
        raise
    return found
