"""Commands that run somewhere else: their streams, their end, and what is left to look at."""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import IO, Any

from nslab import procfs
from nslab.errors import CommandError, CommandTimeout, DeadNamespace, SpawnerError, SpecError
from nslab.spawner import Child, Descriptor

MAX_OUTPUT = 1 << 20
MAX_SHOWN = 1 << 20  # bytes of a stream that go into a cell: a front end that is flooded freezes
LONGEST = 1 << 30  # milliseconds that one poll(2) may take
_STYLE = "font-family:var(--jp-code-font-family,monospace);margin:0;white-space:pre-wrap"  # some pages give <pre> no font

Sink = Callable[[str, str], None]


@dataclass(frozen=True)
class Result:
    """What a command that ended leaves behind, in the words of subprocess.

    ``stdout`` and ``stderr`` are str (bytes with text=False), cut at ``max_output`` bytes each, ``omitted`` counts the bytes
    beyond. ``returncode`` is negative for a signal. ``duration`` is in seconds.
    """

    args: tuple[str, ...]
    returncode: int
    stdout: Any
    stderr: Any
    omitted: int = 0
    duration: float = 0.0
    streamed: bool = field(default=False, repr=False)

    @property
    def truncated(self) -> bool:
        """Whether there was more output than was kept."""
        return self.omitted > 0

    @property
    def lines(self) -> list[str]:
        """stdout, split into lines."""
        text = self.stdout if isinstance(self.stdout, str) else self.stdout.decode(errors="replace")
        return text.splitlines()

    def check(self) -> Result:
        """This result, or CommandError when the command failed."""
        if self.returncode != 0:
            raise CommandError(f"{' '.join(self.args)!r} {_ended(self.returncode)}{_tail(self.stderr)}", self)
        return self

    def _status(self) -> str:
        parts = [] if self.returncode == 0 else [_ended(self.returncode)]
        return "; ".join(parts + ([f"{self.omitted} bytes omitted"] if self.omitted else []))

    def __str__(self) -> str:
        shown = [] if self.streamed else [_text(self.stdout).rstrip("\n"), _text(self.stderr).rstrip("\n")]
        status = self._status()
        return "\n".join([part for part in shown if part] + ([f"[{status}]"] if status else []))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        blocks = []
        if not self.streamed:
            for text, colour in ((_text(self.stdout), "inherit"), (_text(self.stderr), "#D55E00")):
                if text:
                    blocks.append(f'<pre style="{_STYLE};color:{colour}">{escape(text.rstrip())}</pre>')
        if status := self._status():
            blocks.append(f'<div style="color:#D55E00"><b>{escape(status)}</b></div>')
        return {"text/plain": str(self), "text/html": "".join(blocks) or '<span style="opacity:.6">(no output)</span>'}


def _text(output: str | bytes) -> str:
    return output if isinstance(output, str) else output.decode(errors="backslashreplace")


def _tail(output: str | bytes) -> str:
    text = _text(output).rstrip()
    return f":\n{text[-2000:]}" if text else ""


def _ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


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


def complete(
    start: Callable[[Mapping[str, Any]], Child], words: tuple[str, ...], *, lone: bool, input: str | bytes | None = None,
    timeout: float | None = None, check: bool = False, text: bool = True, stream: bool | Sink = False, tty: bool = False,
    attach: bool = False, max_output: int = MAX_OUTPUT,
) -> Result:  # fmt: skip
    """Start a command, wait for its end, and return its Result.

    With ``lone`` all that it left behind has ended too. Interrupting the wait, or a timeout (in seconds), ends the command.
    """
    data = checked(input, timeout, stream, max_output)
    if attach:
        from nslab.namespaces import attached

        if data is not None or stream:
            raise SpecError("attach", "goes with neither input nor stream: the streams are those of this process")
        result = attached.complete(start, words, lone=lone, tty=tty, timeout=timeout)
        return result.check() if check else result
    sink = to_notebook if stream is True else stream or None
    collector = Collector(max_output, sink)
    streams = Streams(tty=tty, stdin=data is not None)
    begin = time.monotonic()
    deadline = None if timeout is None else begin + timeout
    child = None
    try:
        child = start(streams.theirs)
        streams.handed_over()
        if tty:
            streams.take_terminal(child, timeout)
        late = not _pump(child, streams, collector, data, deadline, lone)
        if late:
            child.end()
            _drain(streams, collector)
    except BaseException:
        if child:
            child.end()
        raise
    finally:
        streams.close()
    child.raise_error()
    if not (late or child.ready or child.status is not None):
        raise SpawnerError("the process that was to run the command was killed before it had begun.")
    code = os.waitstatus_to_exitcode(child.status) if child.status is not None else -signal.SIGKILL
    outputs = (collector.output("stdout", text), collector.output("stderr", text))
    result = Result(words, code, *outputs, collector.omitted, time.monotonic() - begin, sink is not None)
    if late:
        raise CommandTimeout(f"{' '.join(words)!r} was still running after {timeout:g} s, and was ended", result)
    return result.check() if check else result


def check_timeout(timeout: Any) -> None:
    """SpecError unless it is a number of seconds, or None."""
    if timeout is not None and not (isinstance(timeout, int | float) and not math.isnan(timeout)):
        raise SpecError("timeout", f"must be a number of seconds, not {timeout!r}")
    if timeout is not None and timeout < 0:
        raise SpecError("timeout", "must be at least 0 seconds")


def checked(given: Any, timeout: Any, stream: Any, max_output: Any) -> bytes | None:
    """The input as bytes; SpecError when one of these cannot be."""
    check_timeout(timeout)
    if not isinstance(max_output, int) or max_output < 0:
        raise SpecError("max_output", "must be at least 0 bytes, a whole number")
    if not isinstance(stream, bool) and not callable(stream):
        raise SpecError("stream", "must be True, False or a function of text and the name of the stream")
    if isinstance(given, str):
        return given.encode()
    if given is None or isinstance(given, bytes | bytearray | memoryview):
        return given if given is None else bytes(given)
    raise SpecError("input", f"must be text or bytes, not {type(given).__name__}")


def _pump(child: Child, streams: Streams, collector: Collector, data: bytes | None, deadline: float | None, lone: bool) -> bool:
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
    _drain(streams, collector)
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


def _drain(streams: Streams, collector: Collector) -> None:
    """Take what was written before the end; a daemon that keeps the stream open is not waited for."""
    for name in ("stdout", "stderr"):
        if name in streams.ours:
            descriptor = streams.ours[name]
            while descriptor.readable() and _get(descriptor.fileno(), name, collector):
                pass
    collector.finish()


class Running:
    """A command that was started and not waited for: subprocess.Popen's words, with both of its PIDs.

    ``stdin``, ``stdout`` and ``stderr`` are binary files. ``pid`` is its PID outside.
    """

    def __init__(self, start: Callable[[Mapping[str, Any]], Child], words: tuple[str, ...], *, stdin: bool = False):
        self.args = words
        streams = Streams(stdin=stdin)
        try:
            self._child = start(streams.theirs)
            streams.handed_over()
            self._child.settle()
        except BaseException:
            streams.close()
            raise
        self.pid = self._child.work_pid
        self._files: dict[str, IO[bytes]] = {
            name: os.fdopen(os.dup(descriptor.fileno()), "wb" if name == "stdin" else "rb", 0 if name == "stdin" else -1)
            for name, descriptor in streams.ours.items()
        }
        streams.close()
        self.stdin, self.stdout, self.stderr = (self._files.get(name) for name in ("stdin", "stdout", "stderr"))

    @property
    def pid_inside(self) -> int:
        """Its PID as the innermost PID namespace numbers it. DeadNamespace once it has ended."""
        try:
            return int(procfs.status(self.pid)["NSpid"].split()[-1])
        except (FileNotFoundError, ProcessLookupError):
            raise DeadNamespace(f"process {self.pid} has ended.") from None

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """The return code, None while it runs."""
        while self._child.status is None and self._child.advance(0):
            pass
        if self._child.status is not None:
            return os.waitstatus_to_exitcode(self._child.status)
        return None if self._child.gone is None else -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end (at most ``timeout`` seconds, then CommandTimeout), and return its return code."""
        self._child.wait_for(lambda: self._child.status is not None or self._child.gone is not None, timeout)
        code = self.poll()
        if code is None:
            raise CommandTimeout(f"{' '.join(self.args)!r} is still running after {timeout:g} s")
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if pidfd := self._child.work_pidfd():
            with pidfd, contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd.fileno(), number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """End it and all that it started (outside a PID namespace), and close its streams."""
        self._child.end()
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()

    def __repr__(self) -> str:
        code = self.poll()
        return f"<{' '.join(self.args)!r}, PID {self.pid}, {'running' if code is None else _ended(code)}>"
