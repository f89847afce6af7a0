"""Child: the handle of a process that the spawner made, and what comes on its channel."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nslab import trace
from nslab.errors import DeadNamespace, SpawnerError, SyscallError
from nslab.spawner import channel
from nslab.spawner.descriptor import Descriptor
from nslab.syscalls import decode

if TYPE_CHECKING:
    from nslab.spawner.client import Spawner

_ENDED = "the spawner ended; whatever it had made is gone with it."


class Child:
    """A process that the spawner made, and what it has said so far. Dropping the handle ends the process.

    ``pid`` is its PID; ``work_pid`` that of the command or function that it runs, as it numbers it. ``status`` is the wait
    status of the work, ``gone`` that of the process itself.
    """

    def __init__(self, reply: socket.socket, last_words: Callable[[], str] = str):
        self.reply = reply
        self._last_words = last_words  # of the spawner, should it die
        self.pid = 0
        self._pidfd: Descriptor | None = None
        self.ready = False
        self.waiting: int | None = None
        self.work_pid = 0
        self.worker = 0  # the PID of a process that runs a function, once it has begun
        self.status: int | None = None
        self.gone: int | None = None
        self.error: BaseException | None = None
        self.terminal: Descriptor | None = None  # the master of one that the work has opened where it is; the taker closes it
        self.spawner: Spawner | None = None
        self.steps: list[trace.Step] = []
        self._early: list[tuple[Any, ...]] = []
        self.why = ""  # marks every step as implied, for this reason
        self._lock = threading.RLock()

    def advance(self, timeout: float | None = None) -> bool:
        """Take the next message; False when none came within ``timeout`` seconds (None: for ever)."""
        with self._lock:
            if self.gone is not None:
                return False
            poller = select.poll()
            poller.register(self.reply, select.POLLIN)
            if not poller.poll(None if timeout is None else min(max(0, timeout * 1000), 1 << 30)):
                return False
            try:
                message, fds, sender = channel.received(self.reply)
                message = (_by(sender, message[0]), *message[1:])
                if message[1] == "works":
                    self.worker = sender
                    return True
                if fds:
                    self.terminal = Descriptor(fds[0])
            except EOFError:
                message = ([], "gone", int(signal.SIGKILL))
                self.error = self.error or SpawnerError(_ENDED + self._last_words())
            calls, word, value = message
            early = self._early
            if word == "gone" and calls and not self.pid:  # its making was not told before
                early.insert(0, (calls, "made", 0))
                message = ([], word, value)
            early.append(message)
            said = word in ("ready", "wait") and value[1]
            if (
                self.pid or said or word in ("made", "gone")
            ):  # the new process may speak before the spawner says that it is there
                early.sort(key=lambda each: each[1] != "made")
                while early:
                    self._take(early.pop(0))
            return True

    def _take(self, message: tuple[Any, ...]) -> None:
        calls, word, value = message
        for call in calls:
            step = decode.step(*call)
            if not step.pid:
                step = step._replace(pid=self.pid)
            if self.why:
                step = step._replace(implied=self.why)
            self.steps.append(step)
            trace.emit(step)
        if word == "made":
            self.pid = value
        elif word == "wait":
            self.waiting, pid = value
            self.pid = pid or self.pid
        elif word == "ready":
            self.ready = True
            self.work_pid, pid = value
            self.pid = pid or self.pid
        elif word == "failed":
            self.error = value
            if isinstance(value, SyscallError) and (value.call, value.errno) == ("setns", errno.ESRCH):
                self.error = DeadNamespace("the process whose namespaces were to be joined has just ended.")
            elif isinstance(value, SyscallError) and value.errno == errno.ENOMEM and self._joined_pid():
                self.error = DeadNamespace(value.hint)  # it is not memory that is missing
            elif isinstance(value, SyscallError):
                value.steps = tuple(step for step in self.steps if not step.errno)
        elif word == "exit":
            self.status = value
            self._not_by_itself(value)
        elif word == "gone":
            self.gone = value
            self.reply.close()
            if self.status is None:
                self._not_by_itself(value)

    def _not_by_itself(self, status: int) -> None:
        """Who was killed when the spawner was has not just ended: one of two servers may live long enough to say so."""
        if status == signal.SIGKILL and self.error is None and self.spawner and not self.spawner.alive:
            self.error = SpawnerError(_ENDED + self._last_words())

    def _joined_pid(self) -> bool:
        return any(step.call == "setns" and "CLONE_NEWPID" in step.args[1] for step in self.steps)

    @property
    def pidfd(self) -> Descriptor | None:
        """A descriptor that stands for the process; None when it is gone."""
        if self.gone is not None:
            return None
        if self._pidfd is None:
            self.wait_for(lambda: self.pid or self.gone is not None)
            self._pidfd = self._open(self.pid)
        return self._pidfd

    @property
    def is_over(self) -> bool:
        """Whether it is gone, be it that nobody has heard that yet: the spawner then closes its end."""
        try:
            return self.gone is not None or hung_up(self.reply)
        except ValueError:  # somebody heard it at this moment, and closed ours
            return True

    def work_pidfd(self) -> Descriptor | None:
        """The same for the work, of a process that is not in a PID namespace of its own; None when that has ended."""
        return self._open(self.work_pid)

    def _open(self, pid: int) -> Descriptor | None:
        if self.gone is not None or not pid:
            return None
        try:
            opened = Descriptor(os.pidfd_open(pid))
        except ProcessLookupError:
            return None
        while self.advance(0):  # its number is nobody else's as long as its end has not been told
            pass
        return None if self.gone is not None or (pid == self.work_pid and self.status is not None) else opened

    def wait_for(self, condition: Callable[[], Any], timeout: float | None = None) -> bool:
        """Take messages until ``condition()`` holds or all is over; whether it holds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not condition():
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or (self.gone is not None and not condition()):
                return bool(condition())
            self.advance(left)
        return True

    def settle(self) -> None:
        """Wait until the plan is done; raise what it failed with."""
        self.wait_for(lambda: (self.ready and self.pid) or self.error)
        if self.error:
            self.wait_for(lambda: self.gone is not None, 5)
            self.raise_error()
        if not self.ready:
            raise SpawnerError(f"the new process ended before it was ready (wait status {self.gone}).")

    def raise_error(self) -> None:
        """Raise what went wrong, if anything did, and forget it: its traceback would keep alive all that it passes."""
        error, self.error = self.error, None
        try:
            if error:
                raise error
        finally:
            del error

    def go_on(self) -> None:
        """Let a plan that runs op by op do the op that it waits before; nothing happens when the process is gone."""
        self.waiting = None
        if self.gone is not None:
            return
        with contextlib.suppress(BrokenPipeError):
            channel.send(self.reply, ("go",))

    def kill(self) -> None:
        """Have it end, and all below it, without waiting for that; end() does."""
        if pidfd := self.pidfd:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)

    def end(self, *, politely: bool = False) -> None:
        """End the process and all below it, and return when nothing of it is left; ``politely`` it may say something before."""
        known = self.wait_for(lambda: self.pid or self.gone is not None, 1)
        if not known:  # an interrupt came at the instant when its PID was received, and that was lost
            self.gone = int(signal.SIGKILL)
            self.reply.close()  # which ends it too
        if pidfd := self.pidfd:
            with contextlib.suppress(ProcessLookupError):
                if politely and self.ready:
                    signal.pidfd_send_signal(pidfd.fileno(), signal.SIGTERM)
                    self.wait_for(lambda: self.gone is not None, 1)
                if self.gone is None:
                    signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
        self.wait_for(lambda: self.gone is not None, 5)
        if self.gone is not None and self._pidfd:
            self._pidfd.close()


def _by(sender: int, calls: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The calls, with the number of their sender where that made them; see guard.SENDER."""
    return [(*call[:6], call[6] or sender, *call[7:]) for call in calls]


def hung_up(sock: socket.socket) -> bool:
    """Whether nobody is at the other end any more."""
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(0))
