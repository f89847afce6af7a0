"""Tiers beside each other. A lane is a process that runs some of them in turn, and is handed what they leave.

So none is blamed for the processes of another. What a tier prints is kept whole, and comes in the order of the tiers; that of
the first one that is not over comes as it is written. Lanes are not in our process group: Ctrl-C reaches us, we interrupt each
lane, that interrupts its pytest, and all undo what they have made.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.crash.oracle import become_subreaper
from tests.tier import Tier, interrupt

FORK = multiprocessing.get_context("fork")
LOOK = 0.2  # seconds between two looks at what is written


class Lane:
    """The process, the pipe that tells what is over, and the tiers that are not."""

    def __init__(self, tiers: Sequence[Tier], folder: Path, work: Callable[[Tier], None]):
        self.left = list(tiers)
        self.pipe, writer = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_work, args=(self.left, folder, work, writer))
        self.process.start()
        writer.close()

    def receive(self) -> None:
        """Take over what the next tier has come to; at the end of the pipe, that the others will come to nothing."""
        try:
            vars(self.left[0]).update(vars(self.pipe.recv()))
            self.left.pop(0)
        except EOFError:
            for tier in self.left:
                tier.problems.append("not run: the process of its lane has ended")
            self.left.clear()

    def close(self) -> None:
        self.process.join(60)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_in_lanes(tiers: Sequence[Tier], folder: Path, work: Callable[[Tier], None]) -> None:
    """Do ``work`` for each tier, those of one lane one after the other; ``folder`` is where what they print goes."""
    sys.stdout.flush()  # a fork has what is not yet written, too
    numbers = sorted({tier.lane for tier in tiers})
    lanes = [Lane([tier for tier in tiers if tier.lane == number], folder, work) for number in numbers]
    try:
        for tier in tiers:
            _show(tier, folder, lanes)
    finally:
        for lane in lanes:
            if lane.left and lane.process.is_alive() and lane.process.pid:
                os.kill(lane.process.pid, signal.SIGINT)  # all at once
        for lane in lanes:
            lane.close()


def _show(tier: Tier, folder: Path, lanes: Sequence[Lane]) -> None:
    """What a tier prints, up to its end; meanwhile others may come to theirs."""
    path = folder / f"{tier.name}.out"
    path.touch()
    with path.open("rb") as file:
        while True:
            is_over = not any(tier in lane.left for lane in lanes)
            os.write(sys.stdout.fileno(), file.read())
            if is_over:
                return
            pipes = {lane.pipe: lane for lane in lanes if lane.left}
            for pipe in wait(list(pipes), LOOK):
                pipes[pipe].receive()  # type: ignore[index]


def _work(tiers: Sequence[Tier], folder: Path, work: Callable[[Tier], None], pipe: Connection) -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGINT, 0, 0, 0)  # who started us may be killed
    become_subreaper()
    try:
        for tier in tiers:
            output = os.open(folder / f"{tier.name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.close(output)
            work(tier)
            sys.stdout.flush()
            pipe.send(tier)
    except KeyboardInterrupt:
        interrupt()
        sys.exit(130)
