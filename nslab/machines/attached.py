"""A command in a kernel of one's own whose standard streams are those of this process."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from typing import Any

from nslab.errors import CommandTimeout, NslabError
from nslab.machines.own import BOOTING, BootError, OwnKernel
from nslab.namespaces import Result
from nslab.namespaces.attached import END_OF_FILE, every_key, signals_here
from nslab.namespaces.running import check_timeout
from nslab.namespaces.streams import LONGEST
from nslab.spawner import Descriptor


def attached(command: Sequence[str], *, terminal: bool, timeout: float | None = None, **options: Any) -> int:
    """Boot, run the command, carry its bytes and the signals that come here; its exit status, 128 + N for a signal.

    With ``terminal`` it has one, of the size of that here, which passes on every key. While it boots a terminal says so.
    """
    check_timeout(timeout)
    begin = time.monotonic()
    deadline = None if timeout is None else begin + timeout
    try:
        undo = contextlib.ExitStack()
        for descriptor in _stand_ins():
            undo.enter_context(descriptor)
        with undo, signals_here() as signals, OwnKernel(command, terminal=_size() if terminal else None, **options) as own:
            with _progress(own):
                stopped_by = _boot(own, signals.fileno(), deadline)
            if stopped_by:
                return 128 + stopped_by
            with every_key() if terminal else contextlib.nullcontext():
                status = _carry(own, signals.fileno(), terminal, deadline)
    except TimeoutError:
        result = Result(tuple(command), -signal.SIGKILL, "", "", 0, time.monotonic() - begin, True)
        raise CommandTimeout(f"{' '.join(command)!r} was still running after {timeout:g} s, and was ended", result) from None
    return status if status >= 0 else 128 - status


def _boot(own: OwnKernel, signals: int, deadline: float | None) -> int:
    """Until it is up; 0, or the number of the signal that came before. TimeoutError when the deadline did."""
    last = min(time.monotonic() + BOOTING, deadline or math.inf)
    while not own.is_up and own.over is None:
        try:
            own.wait_up(_show, last - time.monotonic(), signals)
        except BootError:
            if deadline and time.monotonic() >= deadline:
                raise TimeoutError from None
            raise
        if select.select([signals], [], [], 0)[0] and (numbers := set(os.read(signals, 64)) - {signal.SIGWINCH}):
            return min(numbers)
    return 0


def _carry(own: OwnKernel, signals: int, terminal: bool, deadline: float | None) -> int:
    """Until it is over; its status. TimeoutError when the deadline came first."""
    reading = True
    if terminal:
        own.send(size=_size())  # it may have changed meanwhile
    while own.over is None:
        poller = select.poll()
        poller.register(own, select.POLLIN)
        poller.register(signals, select.POLLIN)
        if reading and own.room:
            poller.register(0, select.POLLIN)
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        for fd, _ in poller.poll(None if left is None else min(left * 1000, LONGEST)):
            if fd == own.fileno():
                own.receive(_show)
            elif fd == signals:
                for number in os.read(signals, 64):
                    if number == signal.SIGWINCH:
                        own.send(size=_size())
                    else:
                        own.signal(number)
            else:
                data = _read(min(4096, own.room))
                reading = bool(data)
                own.give(data or (END_OF_FILE if terminal else b""))
    if "ended" not in own.over:
        raise NslabError(own.explanation())
    return int(own.over["ended"])


def _stand_ins() -> Iterator[Descriptor]:
    """/dev/null in place of each of 0 to 2 that is closed: the next file would get the number, and be taken for that stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            yield Descriptor(os.open(os.devnull, os.O_RDWR))  # the lowest number that is free: this one


def _read(most: int) -> bytes:
    try:
        return os.read(0, most)
    except OSError:  # there is no standard input
        return b""


def _show(name: str, data: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody looks any more
        while data:
            data = data[os.write(1 if name == "out" else 2, data) :]


def _size() -> tuple[int, int]:
    """Rows and columns of the terminal here."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 24, 80
    return rows, columns


@contextlib.contextmanager
def _progress(own: OwnKernel) -> Iterator[None]:
    """One line on a terminal while it boots, which goes when it is up."""
    if not os.isatty(2):
        yield
        return
    print("booting a kernel of your own ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
