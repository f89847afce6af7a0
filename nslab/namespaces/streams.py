"""The streams of a command: the ends of its pipes, what is carried to and fro, and what is kept of it."""

from __future__ import annotations

import codecs
import math
import os
import select
import sys
import time
from collections.abc import Callable

from nslab.spawner import Child, Descriptor

MAX_SHOWN = 1 << 20  # bytes of a stream that go into a cell: a front end that is flooded freezes
LONGEST = 1 << 30  # milliseconds that one poll(2) may take

Sink = Callable[[str, str], None]


class Streams:
    """Standard input, output and error of a command: the ends to hand over (``theirs``), and ours.

    Input is /dev/null unless there is some to give; a terminal (``tty``) is one pseudo-terminal for all three. Where that would
    have no name, among the files of another root, the command opens another one there.
    """

    def __init__(self, *, tty: bool = False, stdin: bool = False):
        self.ours: dict[str, Descriptor] = {}
        self.theirs: dict[str, Descriptor] = {}
        if tty:
            master, slave = os.openpty()
            self.ours["stdout"] = Descriptor(master)
            self.theirs["stdin"] = Descriptor(slave)
            self.theirs |= {name: Descriptor(os.dup(slave)) for name in ("stdout", "stderr")}
            if stdin:
                self.ours["stdin"] = Descriptor(os.dup(master))
            return
        if stdin:
            out, into = os.pipe()
            self.theirs["stdin"], self.ours["stdin"] = Descriptor(out), Descriptor(into)
        else:
            self.theirs["stdin"] = Descriptor(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for name in ("stdout", "stderr"):
            out, into = os.pipe()
            self.ours[name], self.theirs[name] = Descriptor(out), Descriptor(into)

    def handed_over(self) -> None:
        """The command has its ends: close ours of them, so that an end of file can be seen."""
        for descriptor in self.theirs.values():
            descriptor.close()

    def take_terminal(self, child: Child, timeout: float | None) -> None:
        """Have our end of the terminal that the command has opened, if it has; it says so before it runs."""
        child.wait_for(lambda: child.ready or child.error, timeout)
        if child.terminal:
            with child.terminal:
                for name, old in self.ours.items():
                    self.ours[name] = Descriptor(os.dup(child.terminal.fileno()))
                    old.close()

    def close(self) -> None:
        self.handed_over()
        for descriptor in self.ours.values():
            descriptor.close()


class Collector:
    """Keeps the first ``limit`` bytes of each stream, counts the rest, and passes it on as it comes.

    A notebook or terminal gets no more than is kept, and at most MAX_SHOWN bytes of each; a function of one's own gets all.
    """

    def __init__(self, limit: int, sink: Sink | None):
        self.limit = limit
        self.sink = sink
        self._room: dict[str, float] = dict.fromkeys(
            ("stdout", "stderr"), min(limit, MAX_SHOWN) if sink is to_notebook else math.inf
        )
        self.kept = {"stdout": bytearray(), "stderr": bytearray()}
        self.omitted = 0
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in self.kept} if sink else {}

    def take(self, name: str, data: bytes) -> None:
        kept = self.kept[name]
        room = self.limit - len(kept)
        kept += data[:room]
        self.omitted += max(0, len(data) - room)
        self._show(name, data)

    def finish(self) -> None:
        """There is no more: show what looked like the beginning of a character."""
        for name in self._decoders:
            self._show(name, b"", final=True)

    def _show(self, name: str, data: bytes, final: bool = False) -> None:
        if not self.sink or self._room[name] < 0:  # it was cut
            return
        room = self._room[name]
        self._room[name] -= len(data)
        cut = self._room[name] < 0
        if text := self._decoders[name].decode(data[: int(room)] if cut else data, final):
            self.sink(text, name)
        if cut:
            self.sink(f"\n[{name}: {min(self.limit, MAX_SHOWN)} bytes shown, the rest omitted]\n", name)

    def output(self, name: str, text: bool) -> str | bytes:
        data = bytes(self.kept[name])
        return data.decode(errors="replace") if text else data


def to_notebook(text: str, name: str) -> None:
    """Show output in the cell (or terminal) that called."""
    stream = getattr(sys, name)
    stream.write(text)
    stream.flush()


def pump(child: Child, streams: Streams, collector: Collector, data: bytes | None, deadline: float | None, lone: bool) -> bool:
    """Carry bytes to and fro until the command has ended; False when the deadline came first."""
    poller = select.poll()
    names = {}
    if child.gone is None:
        poller.register(child.reply, select.POLLIN)
        names[child.reply.fileno()] = "reply"
    for name, descriptor in streams.ours.items():
        names[descriptor.fileno()] = name
        poller.register(descriptor, select.POLLOUT if name == "stdin" else select.POLLIN)
        os.set_blocking(descriptor.fileno(), False)
    pending = memoryview(data or b"")

    def over() -> bool:
        return child.gone is not None if lone or child.error else child.status is not None or child.gone is not None

    while not over():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        for fd, _ in poller.poll(None if left is None else min(left * 1000, LONGEST)):
            name = names[fd]
            if name == "reply":
                child.advance(0)
                if child.gone is not None:
                    poller.unregister(fd)
            elif name == "stdin":
                pending = _give(fd, pending)
                if not pending:
                    poller.unregister(fd)
                    streams.ours["stdin"].close()
            elif not _get(fd, name, collector):
                poller.unregister(fd)
    drain(streams, collector)
    return True


def _give(fd: int, pending: memoryview) -> memoryview:
    try:
        return pending[os.write(fd, pending[:65536]) :] if pending else pending
    except BlockingIOError:
        return pending
    except (BrokenPipeError, OSError):  # it does not read (any more)
        return pending[:0]


def _get(fd: int, name: str, collector: Collector) -> bool:
    """Take what there is; False at the end of the stream."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return True
    except OSError:  # a pseudo-terminal whose other end is closed
        return False
    if data:
        collector.take(name, data)
    return bool(data)


def drain(streams: Streams, collector: Collector) -> None:
    """Take what was written before the end; a daemon that keeps the stream open is not waited for."""
    for name in ("stdout", "stderr"):
        if name in streams.ours:
            descriptor = streams.ours[name]
            while descriptor.readable() and _get(descriptor.fileno(), name, collector):
                pass
    collector.finish()
