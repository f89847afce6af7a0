"""Capture: what passes the interfaces of one or many networks, read by a thread of this process from packet sockets.

The sockets are opened by a throwaway process inside and belong to this one: a capture is no process, and ends with this one,
however that ends. The kernel keeps what comes while the thread is not at it, and counts what finds no more room.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nslab.errors import SpecError
from nslab.model.packets import Packet
from nslab.model.tables import table
from nslab.network import decoding, making, pcapng
from nslab.network.decoding import AUXDATA, Raw
from nslab.ops import spec
from nslab.spawner import Descriptor
from nslab.syscalls.interfaces import ETH_P_ALL

if TYPE_CHECKING:
    from nslab.network.space import Network

MOST_PACKETS = 10_000
MOST_BYTES = 64 << 20
SHOWN = 50  # rows
PROTOCOLS = ("ARP", "ICMP", "ICMPv6", "TCP", "UDP")
_ROOM = 32 << 20  # bytes that the kernel keeps for a socket, where that many may be asked for
_LONGEST = 1 << 18  # bytes of one frame; segments that a host has not cut yet come as one
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_SO_TIMESTAMPING, _SO_RCVBUFFORCE = 37, 33
_SOFTWARE_STAMPS = 0x08 | 0x10  # SOF_TIMESTAMPING_RX_SOFTWARE and _SOFTWARE: none, rather than one made when it is read
_PROBE = bytes(12) + b"\x88\xb5" + bytes(46)  # of an EtherType that is left to experiments. IEEE 802
_OUTGOING = 4
_STAMP = struct.Struct("@qq")
_PATIENCE = 0.2  # seconds
_AT_ONCE = 16

Label = Callable[[str], "tuple[str, str] | None"]
Place = Callable[["Network", str], "tuple[str, str] | None"]


@dataclass(frozen=True)
class Filter:
    """What is wanted of all that passes; () and 0 are all."""

    protocols: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    port: int = 0

    @classmethod
    def checked(cls, protocol: str | None, hosts: Sequence[str], port: int | None) -> Filter:
        """SpecError for a protocol, an address or a port that cannot be."""
        names = {name.casefold(): name for name in PROTOCOLS}
        if protocol is not None and (not isinstance(protocol, str) or protocol.casefold() not in names):
            raise SpecError("protocol", f"{protocol!r} is none of {', '.join(PROTOCOLS)}")
        if port is not None:
            spec.number("port", port, 1, 65535)
        try:
            found = tuple(str(ipaddress.ip_address(host)) for host in hosts)
        except ValueError:
            raise SpecError("host", f"{', '.join(map(str, hosts))!r} is no address") from None
        return cls((names[protocol.casefold()],) if protocol else (), found, port or 0)

    def takes(self, packet: Packet) -> bool:
        return (
            (not self.protocols or packet.protocol in self.protocols)
            and (not self.hosts or packet.source in self.hosts or packet.destination in self.hosts)
            and self.port in (0, packet.source_port, packet.destination_port)
        )

    def __bool__(self) -> bool:
        return self != Filter()


class _Intake:
    """The sockets and what came out of them; the thread knows this, and not the Capture, which may be forgotten."""

    def __init__(self, sockets: Sequence[tuple[socket.socket, Label]], wanted: Filter, most: int):
        self.sockets = list(sockets)
        self.wanted = wanted
        self.most = most
        self.frames: list[Raw] = []
        self.bytes = self.omitted = self.dropped = 0
        self.room = bytearray(_LONGEST)
        self.lock = threading.RLock()  # a finalizer may come while it is held
        self.wake = Descriptor(os.eventfd(0, os.EFD_CLOEXEC))
        self.stopped = False
        self.thread = threading.Thread(target=self._read, name="nslab-capture", daemon=True)

    def _read(self) -> None:
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        for sock, _ in self.sockets:
            poller.register(sock, select.POLLIN)
        wake = self.wake.fileno()
        while all(fd != wake for fd, _ in poller.poll()):
            self.drain()
        self._finish()

    def _finish(self) -> None:
        """Take what has come by now, and let go of the sockets; done by the thread, which nobody interrupts."""
        with self.lock:
            self.drain()
            self.count()
            self.stopped = True
            self.frames.sort(key=lambda raw: raw.time)  # of several sockets; what came at one time stays in its order
            self.wake.close()
        _close([sock for sock, _ in self.sockets])

    def drain(self) -> None:
        """Take all that has come by now."""
        with self.lock:
            for sock, label in [] if self.stopped else self.sockets:
                for raw in _received(sock, label, self.room):
                    self._keep(raw)

    def _keep(self, raw: Raw) -> None:
        if raw.data == _PROBE:  # of ours, or of a capture that has begun since
            return
        if self.wanted and not self.wanted.takes(decoding.decode(raw)):
            return
        if len(self.frames) >= self.most or self.bytes + len(raw.data) > MOST_BYTES:
            self.omitted += 1
        else:
            self.frames.append(raw)
            self.bytes += len(raw.data)

    def count(self) -> None:
        """Add what the kernel has dropped since it was asked last."""
        with self.lock:
            for sock, _ in [] if self.stopped else self.sockets:
                self.dropped += struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]

    def stop(self) -> None:
        with self.lock:
            if not self.stopped:
                os.eventfd_write(self.wake.fileno(), 1)
        if self.thread.ident is None:
            self._finish()
        elif threading.current_thread() is not self.thread:  # else a finalizer has come, and it ends in a moment
            self.thread.join()


class Capture:
    """What passes by, from the moment it is made until stop(), the end of a ``with``, or the end of what it looks at.

    ``packets`` are the frames so far, decoded; ``len()`` their number. At most ``max_packets`` and 64 MiB are kept: ``omitted``
    counts those that came after that, ``dropped`` those that the kernel had no room for.
    """

    def __init__(self, sockets: Sequence[tuple[socket.socket, Label]], wanted: Filter, max_packets: int):
        self._intake = _Intake(sockets, wanted, max_packets)
        self._decoded: list[Packet] = []
        weakref.finalize(self, self._intake.stop).atexit = False  # then all of it goes with the process
        self._intake.thread.start()

    @property
    def running(self) -> bool:
        return not self._intake.stopped

    def stop(self) -> None:
        """Take what has come by now, and hear no more; what was captured stays."""
        self._intake.stop()

    @property
    def frames(self) -> list[Raw]:
        """As they were, in the order in which they came."""
        self._intake.drain()
        with self._intake.lock:
            return sorted(self._intake.frames, key=lambda raw: raw.time)

    @property
    def packets(self) -> list[Packet]:
        """The frames in words, those that have come by now."""
        frames = self.frames
        if len(self._decoded) != len(frames):
            self._decoded = [decoding.decode(raw) for raw in frames]
        return list(self._decoded)

    @property
    def omitted(self) -> int:
        return self._intake.omitted

    @property
    def dropped(self) -> int:
        self._intake.count()
        return self._intake.dropped

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file, as pcapng for Wireshark."""
        Path(path).write_bytes(pcapng.dump(self.frames))

    def to_json(self) -> str:
        """A list of objects, without the bytes of the frames."""
        import json

        names = [name for name in Packet.__slots__ if name != "data"]
        return json.dumps([{name: getattr(packet, name) for name in names} for packet in self.packets])

    def rows(self) -> list[tuple[str, ...]]:
        """A table: milliseconds since the first frame, where, direction, from, to, protocol, what."""
        packets = self.packets
        rows: list[tuple[str, ...]] = [("ms", "where", "", "from", "to", "protocol", "what")]
        for packet in packets[:SHOWN]:
            where = f"{packet.node} {packet.interface}".strip()
            said = f"{packet.what} (checksum {packet.checksum})" if packet.checksum == "bad" else packet.what
            ends = (packet.direction, packet.sender, packet.receiver)
            rows.append((f"{(packet.time - packets[0].time) * 1000:.3f}", where, *ends, packet.protocol, said))
        return rows

    def summary(self) -> str:
        """ "12 packets, none lost"."""
        count = len(self)
        words = [f"{count} packet{'' if count == 1 else 's'}"]
        words += [f"the first {SHOWN} are shown"] if count > SHOWN else []
        words += [f"{self.omitted} more were not kept"] if self.omitted else []
        words += [f"{self.dropped} dropped by the kernel"] if self.dropped else ["none lost"] * (not self.omitted)
        return ", ".join(words) + (", capturing" if self.running else "")

    def __iter__(self) -> Iterator[Packet]:
        return iter(self.packets)

    def __len__(self) -> int:
        return len(self.frames)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        return table(self.rows(), self.summary())["text/plain"]

    def __repr__(self) -> str:
        return f"<Capture: {self.summary()}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return table(self.rows(), self.summary())


def start(networks: Mapping[Network, str], place: Place, wanted: Filter, max_packets: int) -> Capture:
    """Capture in networks: each with the name of the one interface that is heard, or "" for all of them.

    ``place`` says for a network and the name of an interface what it is called (node, interface), None when it is not wanted.
    """
    spec.number("max_packets", max_packets, 1, 10**7)
    sockets = making.packet_sockets(list(networks))
    try:
        for sock in sockets:
            _prepare(sock)
        _await_stamps(sockets[0])
        for sock, interface in zip(sockets, networks.values(), strict=True):
            if interface:
                sock.bind((interface, ETH_P_ALL))
    except BaseException:
        _close(sockets)
        raise
    labels = [partial(place, network) for network in networks]
    found = Capture(list(zip(sockets, labels, strict=True)), wanted, max_packets)
    for network in networks:
        network.captures.add(found)
    return found


def _close(sockets: Sequence[socket.socket]) -> None:
    """Close them side by side: the kernel lets each wait until no processor looks at it any more, some 10 ms."""
    from concurrent.futures import ThreadPoolExecutor

    if len(sockets) > 1:
        with contextlib.suppress(RuntimeError), ThreadPoolExecutor(_AT_ONCE) as pool:  # no more threads at the end of a script
            for sock in sockets:
                pool.submit(sock.close)
    for sock in sockets:
        sock.close()


def _prepare(sock: socket.socket) -> None:
    """Have the time of each frame and what the kernel knows of it, and as much room as may be."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _SOFTWARE_STAMPS)
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    with contextlib.suppress(PermissionError):  # more than net.core.rmem_max only for root
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)


def _await_stamps(sock: socket.socket) -> None:
    """Wait until frames have a time: the kernel begins some milliseconds after the first socket of the machine wants it.

    So frames are sent to oneself, over the loopback interface of that network, until one has.
    """
    deadline = time.monotonic() + _PATIENCE
    room = bytearray(len(_PROBE))
    while time.monotonic() < deadline:
        try:
            sock.sendto(_PROBE, ("lo", 0x88B5))
        except OSError:  # it is down, or gone: those that have no time get that at which they are read
            return
        if any(raw.stamped for raw in _received(sock, lambda _: ("", ""), room)):
            return
        select.select([], [], [], 0.0005)


def _received(sock: socket.socket, label: Label, room: bytearray) -> Iterator[Raw]:
    """The frames that have come by now, but those that ``label`` knows no place for."""
    while True:
        try:
            count, beside, _, address = sock.recvmsg_into([room], 256)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENETDOWN:
                raise
            continue  # it was turned off, and may be turned on again
        where = label(address[0])
        if where is None:
            continue
        stamp, status, length, data = 0, 0, count, bytes(room[:count])
        for _, kind, value in beside:
            if kind == _SO_TIMESTAMPING:
                seconds, nanoseconds = _STAMP.unpack_from(value)
                stamp = seconds * 10**9 + nanoseconds
            elif kind == _PACKET_AUXDATA:
                status, length, _, _, _, tag, protocol = AUXDATA.unpack(value)
                data = decoding.with_vlan(data, status, tag, protocol)
                length += len(data) - count
        direction = "out" if address[2] == _OUTGOING else "in"
        yield Raw(stamp or time.time_ns(), *where, direction, status, length, data, stamp > 0)
