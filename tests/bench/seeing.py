"""discover() beside lsns, on a machine with a crowd of processes and namespaces. Whatever else runs there both look at.

What counts is the time that somebody waits, since two processes share the work; so nothing else should run meanwhile. The time
on processors, which is told besides, is that of all who worked.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nslab
import nslab.spawner

HERE = Path(__file__).resolve().parent
TURNS = 9
CROWD, LARGE, NAMESPACES = 1100, 3300, 300

Result = tuple[str, str, float | None, float, str]  # what, measured, the value that the limit is on, limit, unit


def seeing() -> Iterator[Result]:
    """The cheapest of some turns each, one after the other."""
    if os.geteuid() or not shutil.which("lsns"):
        yield "discover() against lsns", "needs root and lsns: apt-get install util-linux", None, 0.5, "x"
        return
    with crowd(CROWD):
        times = _turns({"lsns": _lsns, "walk": lambda: nslab.discover(contents=False), "all": nslab.discover})
    with crowd(LARGE):
        large = _turns({"walk": lambda: nslab.discover(contents=False), "all": nslab.discover})
    size = f"{CROWD} processes, {NAMESPACES} namespaces"
    for name, what in (("walk", "discover(contents=False)"), ("all", "discover()")):
        yield f"{what}, {size}, against lsns", _both(times[name], times["lsns"]), times[name][0] / times["lsns"][0], 0.5, "x"
        measured, ratio = _both(large[name], times[name]), large[name][0] / times[name][0]
        yield f"{what}, {LARGE} processes against {CROWD}", measured, ratio, 3.3, "x"


def _both(one: tuple[float, float], other: tuple[float, float]) -> str:
    waited, used = (f"{mine * 1e3:.0f} / {its * 1e3:.0f} ms" for mine, its in zip(one, other, strict=True))
    return f"{waited} (on processors {used})"


def _turns(contenders: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Seconds that each took, and seconds on processors."""
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(TURNS):
        for name, contender in contenders.items():
            start, used = time.perf_counter(), _used()
            contender()
            end = time.perf_counter()
            times.setdefault(name, []).append((end - start, _used() - used))
    return {name: (min(waited for waited, _ in found), min(used for _, used in found)) for name, found in times.items()}


def _used() -> float:
    """Seconds on a processor, of this process, what it waited for, and what its spawner has buried."""
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + waited.ru_utime + waited.ru_stime
    for pid in nslab.spawner.running_pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return total


def _lsns() -> None:
    subprocess.run(["lsns"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def crowd(processes: int) -> Iterator[None]:
    """So many processes, a part of them in NAMESPACES namespaces of their own."""
    command = [sys.executable, "-S", str(HERE / "crowd.py"), str(processes), str(NAMESPACES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout and made.stdout.readline() == "ready\n", "the crowd could not be made"
            yield
        finally:
            made.kill()
