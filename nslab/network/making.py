"""Network namespaces from the process that makes or enters them: as descriptors, with a netlink socket of each."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nslab import netlink
from nslab.errors import Unavailable
from nslab.namespaces import Namespace, joining, privilege
from nslab.ops import Op, Plan
from nslab.ops.networks import HandBackPacketSocket
from nslab.spawner import Descriptor, ensure
from nslab.trace import Step, emit_script

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


class Ended:
    """A plan as one command of a longer script."""

    def __init__(self, plan: Plan):
        self._plan = plan

    def shell(self) -> str:
        return self._plan.script("true")


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
    spawner, plan = ensure(), Plan(ops)
    found: list[Made] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = spawner.start(
                plan, fds={**fds, FD: theirs}, title="nslab-maker", borrowed=privilege.is_borrowed(plan), stay=True
            )
        emit_script(Ended(plan))
        try:
            for each in _received(ours, count):
                found.append(each)
                if told:
                    told()
            child.settle()
        except BaseException:
            for each in found:
                each.namespace.close()
                each.socket.close()
            raise
        finally:
            child.end()
    number = 0
    for step in child.steps:  # each has those by which it was made; the first also those that led there
        number += step.call == "unshare"
        found[max(number - 1, 0)].steps.append(step)
    return found


def _received(channel: socket.socket, count: int) -> Iterator[Made]:
    """Those that come, up to ``count``; fewer when the process at the other end has failed."""
    for _ in range(count):
        if not (descriptors := Descriptor.received(channel, 2)):
            return
        namespace, sock = descriptors
        yield Made(Namespace("net", namespace), netlink.Socket(socket.socket(fileno=sock.detach())), [])


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
    plan = Plan(tuple(ops))
    found: list[socket.socket] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = spawner.start(
                plan, fds={**fds, FD: theirs}, title="nslab-maker", borrowed=privilege.is_borrowed(plan), stay=True
            )
        emit_script(Ended(plan))
        try:
            for _ in networks:
                if not (descriptors := Descriptor.received(ours, 1)):
                    break
                found.append(socket.socket(fileno=descriptors[0].detach()))
            child.settle()
        except BaseException:
            for each in found:
                each.close()
            raise
        finally:
            child.end()
    return found
