"""The notebook's side: one spawner per process, started at the first need, and a handle for each process it makes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from nslab import procfs, trace
from nslab.errors import DeadNamespace, NslabError, SpawnerError, SyscallError, Unavailable
from nslab.model import NamespaceId
from nslab.ops import Execute, IdMaps, InCgroup, Plan
from nslab.spawner import channel
from nslab.spawner.messages import OpenBorrowed, Regroup, Start, Work
from nslab.spawner.registry import Registry
from nslab.syscalls import decode

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from nslab.spawner.watchdog import main; main(*map(int, sys.argv[2:]))"


_ENDED = "the spawner ended; whatever it had made is gone with it."


class Descriptor:
    """A descriptor that is owned: closed by close(), at the end of a ``with``, or when nobody holds the object any more."""

    def __init__(self, fd: int):
        self._fd = fd

    @classmethod
    def received(cls, sock: socket.socket, most: int) -> list[Descriptor]:
        """Up to ``most`` that come with one byte; none when the other end is gone.

        It is awaited before it is taken: Ctrl-C ends the waiting, and hardly ever comes between a descriptor and its owner.
        """
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.poll()
        _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(most * 4), socket.MSG_CMSG_CLOEXEC)
        return [cls(fd) for _, _, block in ancillary for (fd,) in struct.iter_unpack("i", block)]

    def fileno(self) -> int:
        if self._fd < 0:
            raise ValueError("the descriptor is closed")
        return self._fd

    def detach(self) -> int:
        """Its number, for somebody else to own."""
        fd, self._fd = self._fd, -1
        return fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        if (fd := self.detach()) >= 0:
            os.close(fd)

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def readable(self, timeout: float = 0) -> bool:
        """Whether there is something to read within ``timeout`` seconds; for a pidfd, whether the process has ended."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(timeout * 1000))


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
            return self.gone is not None or _hung_up(self.reply)
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


class Spawner:
    """The connection to a spawner (and, for an ordinary user, to the one in the borrowed user namespace)."""

    def __init__(self) -> None:
        self.client = os.getpid()
        self.env = dict(os.environ)
        self.cwd = os.getcwd()  # and so that of everything it starts, unless told otherwise
        with _streams_taken():
            self._begin()
        self.machine: Mapping[str, NamespaceId] = procfs.namespaces()
        self.capabilities = procfs.capabilities()  # what the spawner may do
        self._borrowed: socket.socket | None = None
        self._borrowed_child: Child | None = None
        self.group = f"nslab-{self.client}-{os.urandom(3).hex()}"  # the name of the cgroup above all of its leaves
        self.borrowed: IdMaps | None = None  # the maps of the borrowed user namespace, once there is one
        self._lock = threading.Lock()

    def _begin(self) -> None:
        self.control, theirs = channel.pair()
        self.log = os.fdopen(os.memfd_create("nslab-log", os.MFD_CLOEXEC), "r+b")
        self._noted = Descriptor(Registry.new())
        self.registry = Registry(self._noted.fileno())  # of what is made in the machine's own IPC namespace
        folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        with theirs:
            command = [sys.executable, "-I", "-S", "-c", _BOOT, folder]
            command += map(str, (theirs.fileno(), self.client, self._noted.fileno()))
            self.watchdog = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log, start_new_session=True,
                pass_fds=[theirs.fileno(), self._noted.fileno()],
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        servers = [self.control] + ([self._borrowed] if self._borrowed else [])
        return self.client == os.getpid() and self.watchdog.poll() is None and not any(map(_hung_up, servers))

    def start(
        self, plan: Plan, *, work: Work = None, fds: Mapping[str, Any], title: str = "nslab-run", borrowed: bool = False,
        lone: bool = False, stay: bool = False, stepwise: bool = False, bare: str = "",
    ) -> Child:  # fmt: skip
        """Ask for a process. ``fds`` are the descriptors that plan and work need, by name; they stay the caller's."""
        if isinstance(work, Execute) and work.env == self.env:
            work = replace(work, env=None)  # it has that itself
        mine, theirs = channel.pair()
        channel.name_senders(mine)
        child = Child(mine, self.words)
        child.spawner = self
        with theirs:
            everything = {"reply": theirs, **fds}
            request = Start(plan.ops, work, tuple(everything), title, lone, stay, stepwise, bare)
            self._send(self._borrowed if borrowed else self.control, request, everything, request.mark)
        return child

    @property
    def borrowed_pid(self) -> int:
        """The PID of the spawner in the borrowed user namespace, 0 as long as there is none."""
        return self._borrowed_child.pid if self._borrowed_child else 0

    @property
    def borrowed_user(self) -> NamespaceId | None:
        """The borrowed user namespace, None as long as there is none."""
        return procfs.namespace(self.borrowed_pid, "user") if self.borrowed_pid else None

    def borrow(self, maps: IdMaps, why: str) -> None:
        """Have the user namespace of an ordinary user, with a spawner inside; once. Its steps are marked ``why``."""
        with self._lock:
            if self._borrowed:
                return
            mine, theirs = channel.pair()
            control, far = channel.pair()
            child = Child(mine, self.words)
            child.why = why
            with theirs, far:
                self._send(self.control, OpenBorrowed(maps), {"reply": theirs, "control": far})
            child.wait_for(lambda: child.pid or child.error)
            if child.error:
                control.close()
                child.raise_error()
            self._borrowed, self._borrowed_child, self.borrowed = control, child, maps

    def regroup(self, cgroup: InCgroup, owner: int, pids: Iterable[int], *, freeze: bool, borrowed: bool) -> None:
        """Have processes moved into a cgroup that goes when the process ``owner`` ends, and the cgroup frozen or thawed."""
        mine, theirs = channel.pair()
        child = Child(mine, self.words)
        with theirs:
            request = Regroup(cgroup, owner, tuple(pids), freeze)
            self._send(self._borrowed if borrowed else self.control, request, {"reply": theirs})
        child.wait_for(lambda: child.gone is not None)
        child.raise_error()

    def _send(self, sock: socket.socket | None, message: Any, fds: Mapping[str, Any], mark: bytes = b".") -> None:
        numbers = [fd.fileno() if hasattr(fd, "fileno") else fd for fd in fds.values()]
        try:
            if sock is None:
                raise BrokenPipeError
            channel.send(sock, message, numbers, mark)
        except OSError as error:
            closed = sock is not None and sock.fileno() < 0  # by another thread, which has started a new spawner
            if not closed and not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise
            raise SpawnerError(f"the spawner is gone; the next call starts a new one.{self.words()}") from None

    def words(self) -> str:
        """What the spawner wrote to its standard error: nothing, as long as all is well."""
        if self.log.closed:
            return ""
        words = os.pread(self.log.fileno(), 1 << 16, 0).decode(errors="replace")
        return f"\n{words}" if words else ""

    def pids(self) -> set[int]:
        """The PIDs of the watchdog and what it keeps: the spawner, and the one in the borrowed user namespace."""
        found = {self.watchdog.pid}
        with contextlib.suppress(OSError):
            found |= {*procfs.children(self.watchdog.pid)}
        if self._borrowed_child:
            found.add(self._borrowed_child.pid)
        return found

    def close(self) -> None:
        """End the spawner and everything it made, and return when they are gone."""
        self.control.close()
        if self._borrowed:
            self._borrowed.close()
        if self.client == os.getpid():
            self.watchdog.wait()
        self.log.close()
        self._noted.close()


def _by(sender: int, calls: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The calls, with the number of their sender where that made them; see guard.SENDER."""
    return [(*call[:6], call[6] or sender, *call[7:]) for call in calls]


@contextlib.contextmanager
def _streams_taken() -> Iterator[None]:
    """Where standard input, output or error is closed nothing else gets its number meanwhile: a new process has them anew."""
    with contextlib.ExitStack() as held:
        while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
            held.callback(os.close, fd)
        os.close(fd)
        yield


def _hung_up(sock: socket.socket) -> bool:
    """Whether nobody is at the other end any more."""
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(0))


_current: Spawner | None = None
_starting = threading.Lock()


def ensure() -> Spawner:
    """The spawner of this process, started now if there is none or the last one died."""
    global _current
    with _starting:
        if _current is None or not _current.alive:
            if _current is not None and _current.client == os.getpid():
                _current.close()
            if not sys.executable:
                raise NslabError("sys.executable is empty: nslab needs the path of this Python to start its spawner.")
            if not os.path.isdir("/proc/self/ns"):
                raise Unavailable("there is no /proc, which tells all that nslab knows", "as root: mount -t proc proc /proc")
            try:
                _current = Spawner()
            except OSError as error:
                why = ""
                if error.errno == errno.EAGAIN:
                    from nslab.hints.facts import TOO_MANY  # which no file may be left to load for other reasons

                    why = f"\n  {TOO_MANY}"
                raise SpawnerError(f"the spawner could not be started: {error}.{why}") from error
        return _current


def running_pids() -> set[int]:
    """The PIDs of this process's watchdog and spawners; empty when there are none."""
    return _current.pids() if _current is not None and _current.alive else set()


def shutdown() -> None:
    """End this process's spawner, if there is one, with everything it made."""
    global _current
    with _starting:
        if _current is not None:
            _current.close()
            _current = None
