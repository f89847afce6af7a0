"""Commands whose standard streams are those of this process: for a program in a terminal, not for a notebook.

What is no terminal (a file, a pipe) is handed over as it is. A terminal never is: whoever held it could write into its input
queue (TIOCSTI), as if the user had typed. Instead, bytes are carried to and fro, between it and pipes or a pseudo-terminal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import threading
import time
import tty as terminals
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nslab.errors import CommandTimeout
from nslab.namespaces.result import Result
from nslab.namespaces.streams import LONGEST, Streams
from nslab.spawner import Child, Descriptor

PASSED_ON = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
)  # fmt: skip
NAMES = ("stdin", "stdout", "stderr")
END_OF_FILE = b"\x04"  # as it is typed in a terminal


class Attached(Streams):
    """The streams of this process, by the numbers 0 to 2, or pipes to carry the bytes of those that are a terminal."""

    def __init__(self) -> None:
        self.ours: dict[str, Descriptor] = {}
        self.theirs: dict[str, Descriptor] = {}
        for number, name in enumerate(NAMES):
            try:
                if os.isatty(number):
                    out, into = os.pipe()
                    ends = (Descriptor(out), Descriptor(into))
                    self.theirs[name], self.ours[name] = ends if name == "stdin" else ends[::-1]
                else:
                    self.theirs[name] = Descriptor(os.dup(number))
            except OSError:  # this process has none
                self.theirs[name] = Descriptor(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))


def complete(
    start: Callable[[Mapping[str, Any]], Child], words: tuple[str, ...], *, lone: bool, tty: bool, timeout: float | None
) -> Result:
    """Start a command, carry its bytes and the signals that come here, and return its Result, without output.

    With ``tty`` it has a pseudo-terminal of the size of the terminal here, which passes on every key.
    """
    begin = time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = None
    with contextlib.ExitStack() as undo:
        streams = undo.enter_context(contextlib.closing(Streams(tty=True, stdin=True) if tty else Attached()))
        signals = undo.enter_context(signals_here())
        if tty:
            undo.enter_context(every_key())
            _same_size(streams)
        try:
            child = start(streams.theirs)
            streams.handed_over()
            if tty:
                streams.take_terminal(child, timeout)
                _same_size(streams)
            in_time = _Bridge(child, streams, signals, tty, lone).run(None if timeout is None else begin + timeout)
            if not in_time:
                child.end()
        except BaseException:
            if child:
                child.end()
            raise
    child.raise_error()
    code = os.waitstatus_to_exitcode(child.status) if child.status is not None else -signal.SIGKILL
    result = Result(words, code, "", "", 0, time.monotonic() - begin, True)
    if not in_time:
        raise CommandTimeout(f"{' '.join(words)!r} was still running after {timeout:g} s, and was ended", result)
    return result


class _Bridge:
    """Carries bytes until the command has ended: from standard input to it, from it to standard output and error."""

    def __init__(self, child: Child, streams: Streams, signals: Descriptor, tty: bool, lone: bool):
        self.child = child
        self.streams = streams
        self.signals = signals
        self.tty = tty
        self.lone = lone
        self.into = streams.ours.get("stdin")
        self.typed = b""  # read here and not yet taken there
        self.ended = False  # there is no more to read here
        self.outputs = {
            streams.ours[name].fileno(): number for number, name in enumerate(NAMES) if number and name in streams.ours
        }
        for fd in [*self.outputs, *([self.into.fileno()] if self.into else [])]:
            os.set_blocking(fd, False)

    def over(self) -> bool:
        child = self.child
        return child.gone is not None or (child.status is not None and not self.lone and not child.error)

    def run(self, deadline: float | None) -> bool:
        """False when the deadline came before the end."""
        while not self.over():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for fd, _ in self._poller().poll(None if left is None else min(left * 1000, LONGEST)):
                self._serve(fd)
        for fd in list(self.outputs):
            while self.outputs.get(fd) and select.select([fd], [], [], 0)[0]:
                self._show(fd)
        return True

    def _poller(self) -> select.poll:
        poller = select.poll()
        for fd in (self.child.reply.fileno(), self.signals.fileno(), *self.outputs):
            poller.register(fd, select.POLLIN)
        if self.into and self.typed:
            poller.register(self.into.fileno(), select.POLLOUT)
        elif self.into and not self.ended:
            poller.register(0, select.POLLIN)
        return poller

    def _serve(self, fd: int) -> None:
        if fd == self.child.reply.fileno():
            self.child.advance(0)
        elif fd == self.signals.fileno():
            for number in os.read(fd, 512):
                self._pass_on(number)
        elif fd in self.outputs:
            self._show(fd)
        elif fd == 0:
            self._read()
        else:
            self._type()

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGWINCH and self.tty:
            _same_size(self.streams)
        elif pidfd := self.child.pidfd:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd.fileno(), number)

    def _show(self, fd: int) -> None:
        """Take output and write all of it; an end, or nobody to show it to, ends the stream."""
        try:
            data = os.read(fd, 65536)
            target = self.outputs[fd] if data else self.outputs.pop(fd)
            while data:
                data = data[os.write(target, data) :]
        except BlockingIOError:
            return
        except OSError:  # a pseudo-terminal that nobody holds any more, or a terminal here that is gone
            self.outputs.pop(fd, None)

    def _read(self) -> None:
        try:
            self.typed = os.read(0, 4096)
        except OSError:
            self.typed = b""
        self.ended = not self.typed
        if self.ended and self.tty:
            self.typed = END_OF_FILE
        elif self.ended and self.into:
            self.into.close()
            self.into = None

    def _type(self) -> None:
        assert self.into
        try:
            self.typed = self.typed[os.write(self.into.fileno(), self.typed) :]
        except BlockingIOError:
            return
        except OSError:  # it does not read any more
            self.typed, self.into = b"", None


@contextlib.contextmanager
def signals_here() -> Iterator[Descriptor]:
    """A descriptor from which the numbers of the signals can be read that come meanwhile, instead of what they do else."""
    out, into = os.pipe()
    with Descriptor(out) as numbers, Descriptor(into):
        if threading.current_thread() is not threading.main_thread():  # it gets none
            yield numbers
            return
        os.set_blocking(into, False)
        before = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in PASSED_ON}
        try:
            yield numbers
        finally:
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(before)


@contextlib.contextmanager
def every_key() -> Iterator[None]:
    """The terminal here takes no key for itself: Ctrl-C and the others go to the pseudo-terminal."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        terminals.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _same_size(streams: Streams) -> None:
    """The pseudo-terminal is as large as the terminal here; whoever uses it is told by SIGWINCH."""
    with contextlib.suppress(OSError):  # there is none here
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(streams.ours["stdout"].fileno(), termios.TIOCSWINSZ, size)
