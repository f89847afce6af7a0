"""The notebook's side: one spawner per process, started at the first need."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from nslab import procfs
from nslab.errors import NslabError, SpawnerError, Unavailable
from nslab.model import NamespaceId
from nslab.ops import Execute, IdMaps, InCgroup, Plan
from nslab.spawner import channel
from nslab.spawner.descriptor import Descriptor
from nslab.spawner.handle import Child, hung_up
from nslab.spawner.messages import OpenBorrowed, Regroup, Start, Work
from nslab.spawner.registry import Registry

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from nslab.spawner.watchdog import main; main(*map(int, sys.argv[2:]))"


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
        return self.client == os.getpid() and self.watchdog.poll() is None and not any(map(hung_up, servers))

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


@contextlib.contextmanager
def _streams_taken() -> Iterator[None]:
    """Where standard input, output or error is closed nothing else gets its number meanwhile: a new process has them anew."""
    with contextlib.ExitStack() as held:
        while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
            held.callback(os.close, fd)
        os.close(fd)
        yield


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
