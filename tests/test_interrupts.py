"""Ctrl-C at any point of a deploy or a change: all of it is undone, and nothing is left."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import nslab
from nslab import Topology
from tests.crash.oracle import descendants, is_standby
from tests.test_changing import _bigger, told, wide

POINTS = 5
ROOMS = tuple(str(Path(nslab.__file__).parent / room) for room in ("topology", "network", "container"))


@contextmanager
def interrupted(at: int | None = None) -> Iterator[list[int]]:
    """A KeyboardInterrupt at the call of the function with this number, of those that make labs; how many there were.

    A signal could come between the system call that opens two descriptors and the instruction that keeps them.
    """
    calls = [0]

    def trace(frame: FrameType, event: str, _: Any) -> None:
        plain = not frame.f_code.co_name.startswith(("<", "__del__"))  # Python loses what is raised in some of these
        if event == "call" and plain and frame.f_code.co_filename.startswith(ROOMS):
            calls[0] += 1
            if calls[0] == at:
                raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield calls
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)


def held() -> tuple[Counter[str], int]:
    """What is open, and how many processes are below this one but those that a spawner keeps ahead."""
    gc.collect()
    open_now: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            open_now[os.readlink(f"/proc/self/fd/{number}").split(":[")[0]] += 1
        except OSError:
            continue
    return open_now, sum(not is_standby(pid) for pid in descendants(os.getpid()))


def of_all_sorts() -> Topology:
    lab = wide()
    lab.link(lab.host("box", isolate="pid"), "s")
    return lab


@pytest.mark.parametrize("point", range(POINTS))
def test_a_deploy_that_is_interrupted_leaves_nothing(point: int) -> None:
    lab = of_all_sorts()
    with interrupted() as calls:
        lab.deploy()
    lab.destroy()
    before = held()
    with interrupted(int(calls[0] * (point + 0.5) / POINTS)):
        lab.deploy()
    assert not lab.running
    assert held() == before
    with lab.deploy():
        assert lab["box"].run("hostname").stdout == "box\n"


@pytest.mark.requires("tool:ip")
@pytest.mark.parametrize("point", range(POINTS))
def test_a_change_that_is_interrupted_leaves_what_there_was(point: int) -> None:
    lab, wanted = of_all_sorts(), _bigger()
    wanted.host("second", isolate="pid")
    with lab.deploy() as running:
        with interrupted() as calls:
            lab.apply(wanted)
        lab.apply(of_all_sorts())
        before, code = told(running), lab.to_python()
        open_before = held()
        done: list[object] = []
        with interrupted(int(calls[0] * (point + 0.5) / POINTS)):
            done.append(lab.apply(wanted))
        assert not done
        if "box" in running.layout.nodes:  # else it was done, but for letting go of what was before
            assert held() == open_before
            assert told(running) == before
            assert lab.to_python() == code
        lab.apply(wanted)
        assert lab["second"].run("hostname").stdout == "second\n"
