"""Commands that run somewhere else, waited for (complete) or not (Running)."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from nslab import procfs
from nslab.errors import CommandTimeout, DeadNamespace, SpawnerError, SpecError
from nslab.namespaces.result import Result, ended
from nslab.namespaces.streams import Collector, Sink, Streams, drain, pump, to_notebook
from nslab.spawner import Child

MAX_OUTPUT = 1 << 20  # bytes of each stream that are kept


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
        late = not pump(child, streams, collector, data, deadline, lone)
        if late:
            child.end()
            drain(streams, collector)
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
        return f"<{' '.join(self.args)!r}, PID {self.pid}, {'running' if code is None else ended(code)}>"
