"""Ways to die of a held lab: of its holder, and of a client; the other one goes on."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING

from tests.crash.hosts import Client
from tests.crash.oracle import children, descendants, name

if TYPE_CHECKING:
    from tests.crash.rounds import Round

NAME = "held"


def holders() -> set[int]:
    """Those that there are, with all that is below them. Nobody's children, they are this process's by now."""
    found = [pid for pid in children(os.getpid()) if name(pid).startswith("nslab-lab")]
    return {*found, *(below for pid in found for below in descendants(pid))}


def kill_holder(turn: Round) -> None:
    """The lab is gone with all that ran in it, whoever started that; its client can bring up another one."""
    deadline = time.monotonic() + 10
    while not (found := [pid for pid in holders() if name(pid).startswith("nslab-lab")]) and time.monotonic() < deadline:
        turn.host.listen(0.001)
    recorded = turn.record()
    if not found or found[0] not in recorded.fds:
        turn.complain("there is no holder")
        return
    since = time.monotonic()
    signal.pidfd_send_signal(recorded.fds[found[0]], signal.SIGKILL)
    select.select([recorded.fds[found[0]]], [], [], 2)
    os.kill(turn.host.pid, signal.SIGUSR1)
    if said := turn.host.wait_until_said("dropped", "wrong", timeout=10):
        turn.clean(max(since, said["time"]), turn.helpers)
        os.kill(turn.host.pid, signal.SIGUSR1)
        turn.expect_recovery(10)
    else:
        turn.complain_of_silence()
    if said := turn.host.said("wrong"):
        turn.complain(said["text"])
    kill_client(turn)


def kill_client(turn: Round) -> None:
    """What it started in the lab ends; the lab goes on if it was up, and ends when it is told to."""
    assert isinstance(turn.host, Client)
    turn.record()
    since = time.monotonic()
    os.kill(turn.host.pid, signal.SIGKILL)  # our child, not waited for: the number is its own
    if not turn.clean(since, holders):
        return
    done = turn.host.command("down", NAME) if holders() else None
    if done and done.returncode and "no lab" not in done.stderr:
        turn.complain(f"nslab down: {done.stdout}{done.stderr}")
    turn.clean(time.monotonic())
