"""What was read of a namespace, as the content of a SeenNamespace."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
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
    return MountContent(tuple(procfs.parse_mount(line) for line in text.split(b"\n") if line), pid)


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


def net(
    sock: Socket, tables: Mapping[str, str], peer: Callable[[int], NamespaceId | None], identity: NamespaceId
) -> NetContent:
    """``peer`` says which namespace has this number here."""
    interfaces = []
    for state, number, queue in listing.located(sock):
        other = None
        if state.kind == "veth":
            other = peer(number) if number >= 0 else identity
        limits = listing.limits(sock, state.index) if queue in _SLOW else (0, 0, 0.0)
        interfaces.append(SeenInterface(state, other, *limits))
    listeners = dict.fromkeys(each for name, text in tables.items() for each in _listeners(name, text))
    return NetContent(tuple(interfaces), tuple(listing.routes(sock)), tuple(listeners))


def _listeners(table: str, text: str) -> Iterator[Listener]:
    protocol = table.removesuffix("6")
    for line in text.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == _STATES[protocol]:
            address, _, port = local.rpartition(":")
            words = struct.pack(f"={len(address) // 8}I", *(int(address[at : at + 8], 16) for at in range(0, len(address), 8)))
            family = socket.AF_INET6 if table.endswith("6") else socket.AF_INET
            yield Listener(protocol, socket.inet_ntop(family, words), int(port, 16))


class Peers:
    """Which network is behind a number that another one knows it by: asked of the kernel, each pair at most once."""

    def __init__(self, sockets: Mapping[NamespaceId, Socket], paths: Mapping[NamespaceId, str]):
        self._sockets, self._paths = sockets, paths
        self._known: dict[NamespaceId, dict[int, NamespaceId]] = {}
        self._left: dict[NamespaceId, list[NamespaceId]] = {}

    def of(self, identity: NamespaceId) -> Callable[[int], NamespaceId | None]:
        """For the network ``identity``."""
        return lambda number: self._find(identity, number)

    def _find(self, identity: NamespaceId, number: int) -> NamespaceId | None:
        known = self._known.setdefault(identity, {})
        left = self._left.setdefault(identity, [each for each in self._sockets if each != identity])
        while number not in known and left:
            other = left.pop()
            with contextlib.suppress(OSError), Descriptor(os.open(self._paths[other], os.O_RDONLY | os.O_CLOEXEC)) as opened:
                if (found := listing.number_of(self._sockets[identity], opened.fileno())) >= 0:
                    known[found] = other
        return known.get(number)


def contents(
    seen: Mapping[NamespaceId, Any], kinds: Mapping[NamespaceId, str], sockets: Mapping[NamespaceId, Socket],
    paths: Mapping[NamespaceId, str], outside: Mapping[NamespaceId, str],
) -> dict[NamespaceId, Content]:  # fmt: skip
    """The content of each namespace of which something was read; ``outside`` are the cgroups of those asked, as seen here."""
    peers = Peers(sockets, paths)
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
                case "net" if identity in sockets:
                    found[identity] = net(sockets[identity], said, peers.of(identity), identity)
    return found
