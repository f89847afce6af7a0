"""Bringing a lab up in the background, and ending it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from nslab.errors import NslabError
from nslab.labs import holder, messages, places
from nslab.spawner import Descriptor, channel, detached
from nslab.topology import Topology, files


def bring_up(topology: Topology, *, file: str = "", progress: Callable[[float], object] | None = None) -> dict[str, Any]:
    """Have a process of its own deploy a topology and hold it, and return what it says of the lab once that is up.

    ``file`` is where the topology is from, to be shown; ``progress`` is told how much is done, from 0 to 1. NslabError with the
    words of what failed, such as that a lab of this name is held already. On that and on an interrupt nothing is left.
    """
    places.check_name(topology.name)
    topology.resolve()
    ours, theirs = channel.pair()
    with ours, os.fdopen(os.memfd_create("nslab-log", os.MFD_CLOEXEC), "r+b") as log:
        with theirs:
            detached.start(holder.MODULE, theirs.fileno(), log)
        messages.send(ours, {"topology": files.describe(topology), "file": file})
        try:
            while "done" in (answer := messages.receive(ours)[0]):
                if progress:
                    progress(answer["done"])
        except EOFError:
            words = os.pread(log.fileno(), 1 << 16, 0).decode(errors="replace").strip()
            raise NslabError(f"the holder of the lab ended before the lab was up.\n{words}".strip()) from None
        except BaseException:
            with contextlib.suppress(OSError, EOFError):
                ours.shutdown(socket.SHUT_WR)  # which ends it
                ours.settimeout(messages.PATIENCE)
                while messages.receive(ours):
                    continue
            raise
    if "failed" in answer:
        raise NslabError(answer["failed"])
    found: dict[str, Any] = answer["up"]
    return found


def take_down(name: str) -> bool:
    """End a lab that is held, and return when nothing of it is left; False when nobody holds one of this name.

    A holder that does not end in time is killed, which its watchdog sees to.
    """
    sock = places.connect(name)
    if sock is None:
        return False
    with sock, contextlib.ExitStack() as stack:
        try:
            pidfd = stack.enter_context(Descriptor(os.pidfd_open(messages.peer(sock)[0])))
        except ProcessLookupError:
            return True
        with contextlib.suppress(NslabError):  # it has ended, or does not answer
            messages.ask(sock, "end")
        if not pidfd.readable(messages.PATIENCE):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
            pidfd.readable(messages.PATIENCE)
    for _ in places.folders():  # which removes the socket of one that was killed
        continue
    return True
