"""The clocks of a process beside one's own: which of them a time namespace shifts, and by how much."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nslab.model import tables
from nslab.model.words import shift

NOTES = {
    "monotonic": "a time namespace may shift it; the time since some start, without sleep",
    "boottime": "a time namespace may shift it; the time since boot, with sleep",
    "uptime": "/proc/uptime, which follows boottime",
    "realtime": "the wall clock: one for the whole machine, no time namespace shifts it",
}


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock at one moment, as seen inside and outside, in seconds."""

    name: str
    inside: float
    outside: float

    @property
    def offset(self) -> float:
        """Inside minus outside, in seconds, rounded to a tenth."""
        return round(self.inside - self.outside, 1) + 0.0


class Clocks(Mapping[str, Clock]):
    """``clocks["boottime"].offset``: monotonic, boottime, uptime and realtime, shown as a table. time_namespaces(7)"""

    def __init__(self, ask: Callable[[], Mapping[str, float]]):
        """``ask`` reads them inside."""
        before, inside, after = read_clocks(), ask(), read_clocks()
        # The wall clock, one for all, says how long ago inside was read; it is the same when it was read in between.
        passed = after["realtime"] - inside["realtime"]
        outside = {name: value - passed for name, value in after.items()}
        outside["realtime"] = min(max(inside["realtime"], before["realtime"]), after["realtime"])
        self._clocks = {name: Clock(name, inside[name], outside[name]) for name in NOTES if name in inside and name in outside}

    def __getitem__(self, name: str) -> Clock:
        return self._clocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clocks)

    def __len__(self) -> int:
        return len(self._clocks)

    def _rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        yield "clock", "inside", "outside", "offset", ""
        for clock in self.values():
            show = _date if clock.name == "realtime" else _duration
            offset = shift(clock.offset) if clock.offset else "none"
            yield clock.name, show(clock.inside), show(clock.outside), offset, NOTES[clock.name]

    def __str__(self) -> str:
        return tables.text(list(self._rows()))

    def __repr__(self) -> str:
        return f"<Clocks: {', '.join(f'{clock.name} {shift(clock.offset)}' for clock in self.values())}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return tables.table(list(self._rows()))


def read_clocks() -> dict[str, float]:
    """The clocks as this process sees them, in seconds; without uptime where there is no /proc."""
    found = {
        "monotonic": time.clock_gettime(time.CLOCK_MONOTONIC),
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
        "realtime": time.clock_gettime(time.CLOCK_REALTIME),
    }
    try:
        with open("/proc/uptime") as file:
            found["uptime"] = float(file.read().split()[0])
    except OSError:
        pass
    return found


def _duration(seconds: float) -> str:
    """ "1 day 02:03:04.56"."""
    days, rest = divmod(round(seconds * 100), 8_640_000)
    text = f"{rest // 360_000:02}:{rest // 6_000 % 60:02}:{rest % 6_000 / 100:05.2f}"
    return f"{days} day{'s' if days != 1 else ''} {text}" if days else text


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
