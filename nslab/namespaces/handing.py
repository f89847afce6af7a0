"""Descriptors from a process that makes or enters something, hands it back, and ends."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from nslab.namespaces import privilege
from nslab.ops import Plan
from nslab.spawner import Child, Descriptor, channel, ensure
from nslab.trace import emit_script


class Ended:
    """A plan as one command of a longer script."""

    def __init__(self, plan: Plan):
        self._plan = plan

    def shell(self) -> str:
        return self._plan.script("true")


@contextlib.contextmanager
def handed_back(
    plan: Plan, name: str, count: int, *, each: int = 1, fds: Mapping[str, Any]
) -> Iterator[tuple[Child, Iterator[list[Descriptor]]]]:
    """The process that does ``plan``, and what comes from it over the socket ``name``: ``count`` times ``each`` descriptors.

    They belong to the taker. SyscallError at the end when the process has failed; it is gone then in any case.
    """
    ours, theirs = channel.pair()
    with ours:
        with theirs:
            child = ensure().start(
                plan, fds={**fds, name: theirs}, title="nslab-maker", borrowed=privilege.is_borrowed(plan), stay=True
            )
        emit_script(Ended(plan))
        try:
            yield child, _received(ours, count, each)
            child.settle()
        finally:
            child.end()


def _received(sock: socket.socket, count: int, each: int) -> Iterator[list[Descriptor]]:
    """Those that come; fewer when the process at the other end has failed."""
    for _ in range(count):
        if not (descriptors := Descriptor.received(sock, each)):
            return
        yield descriptors
