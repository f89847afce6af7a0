"""Slowing an interface down: rate by tbf or htb, delay, jitter and loss by netem. tc(8), tc-tbf(8), tc-htb(8), tc-netem(8)

What is shaped is what leaves by the interface. As a plan, from the root of the queue to its leaf:

    tbf or htb (rate) ── netem (delay, jitter, loss)
"""

from __future__ import annotations

import errno
import math
import re
import shlex
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nslab import netlink
from nslab.errors import SpecError
from nslab.model.layout import RATES, TIMES, in_units
from nslab.netlink import CREATE, EXCL, Request, attribute

METHODS = ("tbf", "htb")
ROOT, TOP, CLASS, LEAF = 0xFFFFFFFF, 0x10000, 0x10001, 0x20000  # handles: the root; 1:, 1:1 and 2:
_ETHERNET = 1  # linklayer of a ratespec: no table of times is needed
_HEADER = 14  # bytes of Ethernet that the MTU does not count, but the shaper does
_TICK = 64  # nanoseconds
_FAST = 10**9  # bits a second that a queue of netem is sized for when there is no rate
_LONGEST = 0xFFFFFFFF


@dataclass(frozen=True)
class Shape:
    """What is asked for, checked: bits a second, microseconds, a percentage; ``burst`` in bytes and ``queue`` in microseconds.

    ``warnings`` is what the kernel has said about it.
    """

    rate: int
    delay: int
    jitter: int
    loss: float
    burst: int
    queue: int
    method: str
    mtu: int
    warnings: list[str]

    @property
    def limit(self) -> int:
        """Packets that netem must be able to hold: half as many again as are under way at full rate, and 10,000 at least."""
        under_way = (self.rate or _FAST) * (self.delay + self.jitter) / 10**6 / (8 * self.mtu)
        return min(max(10_000, math.ceil(under_way * 1.5)), _LONGEST)

    @property
    def quantum(self) -> int:
        """Bytes that htb takes from a class at a time: the kernel warns of less than 1,000 and more than 200,000."""
        return min(max(self.rate // 80, self.mtu + _HEADER), 200_000)


def checked(rate: Any, delay: Any, jitter: Any, loss: Any, burst: int | None, queue: Any, method: str, mtu: int) -> Shape:
    """From text ("10mbit", "5ms", "1%") or numbers (bits a second, microseconds, percent); SpecError for what cannot be."""
    if method not in METHODS:
        raise SpecError("method", f"{method!r} is neither tbf nor htb")
    bits = _quantity("rate", rate, RATES, 8000, 10**12)
    times = [
        _quantity(name, value, TIMES, 0, 10**9) for name, value in (("delay", delay), ("jitter", jitter), ("queue", queue))
    ]
    lost = _percentage(loss)
    if times[1] > times[0]:
        raise SpecError(
            "jitter", f"{in_units(times[1], TIMES)} is more than the delay: packets cannot arrive before they were sent"
        )
    if not (bits or times[0] or lost):
        raise SpecError("shape", "needs a rate, a delay or a loss; unshape() takes away what there is")
    frame = mtu + _HEADER
    if burst is None:
        burst = max(bits // 8 // 250, frame)  # what has to be sent at once by a kernel that looks 250 times a second
    elif isinstance(burst, bool) or not isinstance(burst, int) or not frame <= burst <= _LONGEST:
        raise SpecError(
            "burst", f"must be at least {frame} bytes, one full frame: a longer one would never be sent; not {burst!r}"
        )
    return Shape(bits, times[0], times[1], lost, burst, times[2], method, mtu, [])


def _quantity(name: str, value: Any, units: Mapping[str, int], least: int, most: int) -> int:
    if value is None or value == 0:
        return 0
    number = value
    if isinstance(value, str):
        found = re.fullmatch(rf"(\d+(?:\.\d+)?) *({'|'.join(units)})", value)
        number = round(float(found[1]) * units[found[2]]) if found else None
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise SpecError(
            name,
            f"{value!r} is no number with one of {', '.join(units)}, from {in_units(least, units)} to {in_units(most, units)}",
        )
    return number


def _percentage(value: Any) -> float:
    number = value
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?) *%", value)
        number = float(found[1]) if found else None
    if value is not None and (isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 100):
        raise SpecError("loss", f"{value!r} is no percentage from 0 to 100, as '1.5%' or 1.5")
    return float(number or 0)


def requests(index: int, name: str, shape: Shape) -> list[Request]:
    """The requests that shape an interface that has no queue of ours yet."""
    made: list[Request] = []
    if shape.rate:
        made += _tbf(index, name, shape) if shape.method == "tbf" else _htb(index, name, shape)
    if shape.delay or shape.loss:
        made.append(_netem(index, name, shape))
    return made


def remove(index: int, name: str) -> Request:
    """Take the whole queue away."""
    body = _tcmsg(index, 0, ROOT)
    return Request(netlink.DELQDISC, body, (f"index {index}", "root"), f"tc qdisc del dev {shlex.quote(name)} root")


def _tcmsg(index: int, handle: int, parent: int) -> bytes:
    return struct.pack("=BxxxiIII", 0, index, handle, parent, 0)


def _speed(shape: Shape) -> bytes:
    """struct tc_ratespec."""
    return struct.pack("=BBHhHI", 0, _ETHERNET, 0, -1, 0, min(shape.rate // 8, _LONGEST))


def _queue(index: int, name: str, kind: str, place: tuple[int, int], options: bytes | Sequence[bytes], words: str) -> Request:
    handle, parent = place
    body = _tcmsg(index, handle, parent) + attribute(1, kind) + attribute(2, options)
    where = "root" if parent == ROOT else f"parent {parent >> 16:x}:{parent & 0xFFFF:x}"
    text = f"{where} handle {handle >> 16:x}: {kind} {words}".rstrip()
    shell = f"tc qdisc add dev {shlex.quote(name)} {text}"
    return Request(netlink.NEWQDISC, body, (f"index {index}", text), shell, CREATE | EXCL, needs=kind, absent=errno.ENOENT)


def _tbf(index: int, name: str, shape: Shape) -> list[Request]:
    waiting = max(shape.rate * shape.queue // 8 // 10**6, 10 * (shape.mtu + _HEADER))
    length = min(shape.burst + waiting, _LONGEST)
    ticks = shape.burst * 8 * 10**9 // shape.rate // _TICK
    parameters = _speed(shape) + bytes(12) + struct.pack("=III", length, min(ticks, _LONGEST), 0)
    options = [attribute(1, parameters), attribute(6, shape.burst)]
    options += [attribute(4, struct.pack("=Q", shape.rate // 8))] if shape.rate // 8 > _LONGEST else []
    words = f"rate {shape.rate}bit burst {shape.burst} limit {length}"
    return [_queue(index, name, "tbf", (TOP, ROOT), options, words)]


def _htb(index: int, name: str, shape: Shape) -> list[Request]:
    top = _queue(index, name, "htb", (TOP, ROOT), [attribute(2, struct.pack("=5I", 3, 10, 1, 0, 0))], "default 1")
    ticks = min(max(shape.burst * 8 * 10**9 // shape.rate // _TICK, 1), _LONGEST)
    parameters = _speed(shape) * 2 + struct.pack("=5I", ticks, ticks, shape.quantum, 0, 0)
    options = [attribute(1, parameters)]
    if shape.rate // 8 > _LONGEST:
        options += [attribute(number, struct.pack("=Q", shape.rate // 8)) for number in (6, 7)]
    body = _tcmsg(index, CLASS, TOP) + attribute(1, "htb") + attribute(2, options)
    text = f"parent 1: classid 1:1 htb rate {shape.rate}bit burst {shape.burst} cburst {shape.burst} quantum {shape.quantum}"
    shell = f"tc class add dev {shlex.quote(name)} {text}"
    return [top, Request(netlink.NEWTCLASS, body, (f"index {index}", text), shell, CREATE | EXCL)]


def _netem(index: int, name: str, shape: Shape) -> Request:
    """tc_netem_qopt, and after it the times in nanoseconds."""
    loss = round(shape.loss / 100 * _LONGEST)
    ticks = [min(value * 1000 // _TICK, _LONGEST) for value in (shape.delay, shape.jitter)]
    options = struct.pack("=6I", ticks[0], shape.limit, loss, 0, 0, ticks[1])
    for number, value in ((10, shape.delay), (11, shape.jitter)):
        options += attribute(number, struct.pack("=q", value * 1000)) if value else b""
    words = f"limit {shape.limit}"
    words += f" delay {shape.delay}us" + (f" {shape.jitter}us" if shape.jitter else "") if shape.delay else ""
    words += f" loss {shape.loss:g}%" if shape.loss else ""
    return _queue(index, name, "netem", (LEAF, CLASS) if shape.rate else (LEAF, ROOT), options, words)
