"""Processes below a server or a kernel, and waiting for them to end."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Any

import pytest


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    todo = [pid]
    while todo:
        for children in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            try:
                new = {int(word) for word in children.read_text().split()}
            except OSError:  # it ended meanwhile
                continue
            found |= new
            todo += new
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class Watched:
    """Processes held by pidfd, so that a number that is used again cannot stand for one of them."""

    def __init__(self, pids: set[int]):
        self.commands: dict[int, str] = {}
        for pid in pids:
            try:
                self.commands[os.pidfd_open(pid)] = f"{pid} {command_line(pid)}"
            except ProcessLookupError:
                continue

    def left(self, timeout: float) -> list[str]:
        """Those that are still alive after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        alive = dict(self.commands)
        while alive and time.monotonic() < deadline:
            poll = select.poll()
            for fd in alive:
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                del alive[fd]
        for fd in self.commands:
            os.close(fd)
        return list(alive.values())


def wait_until(condition: Any, timeout: float, explain: Any = lambda: "") -> Any:
    """What ``condition`` gives once it is true. For what has no descriptor to wait on."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s. {explain()}", pytrace=False)
        time.sleep(0.05)
    return value
