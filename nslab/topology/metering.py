"""throughput: how much one TCP connection carries from a node to another."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nslab.errors import NslabError, SpecError

if TYPE_CHECKING:
    from nslab.namespaces.running import Running
    from nslab.topology.lab import Lab

METER = Path(__file__).with_name("meter.py")
_UNITS = ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s"), (1, "bit/s"))
MOST = 600  # seconds


@dataclass(frozen=True)
class Throughput:
    """What came from ``source`` to ``target``: ``bits`` a second, of ``bytes`` in ``seconds``; headers do not count."""

    source: str
    target: str
    bytes: int
    seconds: float

    @property
    def bits(self) -> float:
        return self.bytes * 8 / self.seconds if self.seconds else 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"bits": self.bits})

    def __str__(self) -> str:
        size, unit = next((size, unit) for size, unit in _UNITS if self.bits >= size or size == 1)
        rate = f"{self.bits / size:.3g} {unit}"
        return f"{rate} from {self.source} to {self.target} ({self.bytes:,} bytes in {self.seconds:.2f} s)"

    __repr__ = __str__


def throughput(lab: Lab, one: str, two: str, seconds: float) -> Throughput:
    """Send from one to the other as fast as it goes for so long."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MOST:
        raise SpecError("seconds", f"must be a number above 0 and up to {MOST}, not {seconds!r}")
    lab.node(one)
    lab.node(two)
    if not lab.addresses[two]:
        raise SpecError(f"node {two!r}", "has no address")
    address = lab.addresses[two][0]
    meter = [sys.executable, "-I", "-S", os.fspath(METER)]
    with contextlib.ExitStack() as undo:
        receiver = lab.networks[two].popen([*meter, "receive", "6" if ":" in address else "4", str(seconds)])
        undo.callback(receiver.end)
        assert receiver.stdout
        port = receiver.stdout.readline().decode().strip()
        sender = lab.networks[one].popen([*meter, "send", address, port])
        undo.callback(sender.end)
        assert sender.stdout
        if not sender.stdout.readline():
            raise NslabError(f"there is no connection from {one} to {two}: {_words(sender)}")
        words = receiver.stdout.readline().split()
        if not words:
            raise NslabError(f"nothing more came from {one} to {two}: {_words(receiver)}")
    return Throughput(one, two, int(words[0]), float(words[1]))


def _words(meter: Running) -> str:
    """Why it has ended."""
    said = meter.stderr.read().decode().strip() if meter.stderr else ""
    return said or "the process that measured it was ended"
