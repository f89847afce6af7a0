"""What was read of a namespace, as the content of a SeenNamespace."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nslab import procfs
from nslab.model import IdMap, IdRange, NamespaceId
from nslab.model.snapshot import (
    CgroupContent,
    Content,
    IpcContent,
    Listener,
    MountContent,
    NetContent,
    SeenInterface,
    TimeContent,
    UserContent,
    UtsContent,
)
from nslab.netlink import Socket
from nslab.network import listing
from nslab.network.listing import Located
from nslab.ops.visits import Inside
from nslab.spawner import Descriptor

_SLOW = ("tbf", "htb", "netem")
_STATES = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; a UDP socket without a peer has TCP_CLOSE


def uts(said: tuple[str, str]) -> UtsContent:
    return UtsContent(*said)


def time(said: str) -> TimeContent:
    """/proc/PID/timens_offsets: a clock a line, with seconds and nanoseconds."""
    rows = {row[0]: int(row[1]) + int(row[2]) / 10**9 for row in map(str.split, said.splitlines())}
    return TimeContent(rows.get("monotonic", 0.0), rows.get("boottime", 0.0))


def user(said: tuple[str, str, str]) -> UserContent:
    uid, gid, setgroups = said
    return UserContent(_map(uid), _map(gid), setgroups.strip())


def _map(text: str) -> IdMap:
    return IdMap(tuple(IdRange(*map(int, line.split())) for line in text.splitlines()))


def mnt(said: tuple[int, bytes]) -> MountContent:
    pid, text = said
    return MountContent(procfs.Mounts(text), pid)


def cgroup(inside: str, outside: str) -> CgroupContent:
    """From where a process is as seen ``inside`` and ``outside``, two texts of /proc/PID/cgroup: the rest is the root."""
    there, roots = dict(_paths(inside)), {}
    for hierarchy, path in _paths(outside):
        within = there.get(hierarchy, "?")
        if within == "/" or (path.endswith(within) and not within.startswith("/..")):
            roots[hierarchy] = (path if within == "/" else path[: -len(within)]) or "/"
    return CgroupContent(roots)


def _paths(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        yield controllers if number != "0" else "", path


def net(sock: Socket | None, located: Iterable[Located], said: Inside, peers: Mapping[int, NamespaceId]) -> NetContent:
    """``peers`` are the networks of the other ends of its veth pairs, by the index of the end here."""
    interfaces = []
    for state, _, queue in located:
        limits = listing.limits(sock, state.index) if sock and queue in _SLOW else (0, 0, 0.0)
        interfaces.append(SeenInterface(state, peers.get(state.index), *limits))
    listeners = dict.fromkeys(each for name, text in said.sockets.items() for each in _listeners(name, text))
    return NetContent(tuple(interfaces), tuple(listing.routed(said.routes)), tuple(listeners))


def _listeners(table: str, text: str) -> Iterator[Listener]:
    protocol = table.removesuffix("6")
    for line in text.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == _STATES[protocol]:
            address, _, port = local.rpartition(":")
            words = struct.pack(f"={len(address) // 8}I", *(int(address[at : at + 8], 16) for at in range(0, len(address), 8)))
            family = socket.AF_INET6 if table.endswith("6") else socket.AF_INET
            yield Listener(protocol, socket.inet_ntop(family, words), int(port, 16))


def peers(
    located: Mapping[NamespaceId, list[Located]], sockets: Mapping[NamespaceId, Socket], paths: Mapping[NamespaceId, str]
) -> dict[NamespaceId, dict[int, NamespaceId]]:  # fmt: skip
    """The networks of the other ends of veth pairs, by network and index.

    The kernel tells the index of the other end, and a number for its network; whose number that is, is asked only of those that
    have an end of that index with ours as its other end.
    """
    found: dict[NamespaceId, dict[int, NamespaceId]] = {identity: {} for identity in located}
    ends: dict[tuple[int, int], list[NamespaceId]] = {}
    for identity, interfaces in located.items():
        for state, _, _ in interfaces:
            if state.kind == "veth":
                ends.setdefault((state.index, state.peer), []).append(identity)
    for identity, interfaces in located.items():
        known: dict[int, NamespaceId] = {-1: identity}
        for state, number, _ in interfaces:
            if state.kind != "veth" or state.index in found[identity]:
                continue
            for other in ends.get((state.peer, state.index), ()) if number not in known and identity in sockets else ():
                if other != identity and _is_known_as(number, sockets[identity], paths[other]):
                    known[number] = other
                    break
            if number in known:
                found[identity][state.index] = known[number]
                found[known[number]][state.peer] = identity
    return found


def _is_known_as(number: int, sock: Socket, path: str) -> bool:
    with contextlib.suppress(OSError), Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as opened:
        return listing.number_of(sock, opened.fileno()) == number
    return False


def located(seen: Mapping[NamespaceId, Any]) -> dict[NamespaceId, list[Located]]:
    """The interfaces of the networks among these."""
    nets = {identity: said for identity, said in seen.items() if isinstance(said, Inside)}
    return {identity: listing.located(said.addresses, said.links) for identity, said in nets.items()}


def contents(
    seen: Mapping[NamespaceId, Any], kinds: Mapping[NamespaceId, str], networks: Mapping[NamespaceId, list[Located]],
    sockets: Mapping[NamespaceId, Socket], paths: Mapping[NamespaceId, str], outside: Mapping[NamespaceId, str],
) -> dict[NamespaceId, Content]:  # fmt: skip
    """The content of each namespace of which something was read; ``networks`` are those among them, ``outside`` the cgroups of
    those asked, as seen here.
    """
    others = peers(networks, sockets, paths)
    found: dict[NamespaceId, Content] = {}
    for identity, said in seen.items():
        if isinstance(said, OSError):
            continue
        with contextlib.suppress(OSError):
            match kinds[identity]:
                case "uts":
                    found[identity] = uts(said)
                case "time":
                    found[identity] = time(said)
                case "user":
                    found[identity] = user(said)
                case "mnt":
                    found[identity] = mnt(said)
                case "ipc":
                    found[identity] = IpcContent(said)
                case "cgroup":
                    found[identity] = cgroup(said, outside.get(identity, ""))
                case "net":
                    found[identity] = net(sockets.get(identity), networks[identity], said, others[identity])
    return found
