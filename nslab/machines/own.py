"""A Linux kernel of one's own, as an ordinary process, in which one command runs."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nslab.errors import CommandTimeout, NslabError, SpecError
from nslab.machines import leftovers, needs, warden, words
from nslab.namespaces import Result
from nslab.namespaces.running import check_timeout
from nslab.ops import spec

ADDRESS, GATEWAY, RESOLVER, CIDR = "100.64.255.100", "100.64.255.2", "100.64.255.3", "100.64.255.0/24"
HOSTNAME = "own-kernel"
BOOTING = 60.0  # seconds until it must have booted, on a busy machine
WINDOW = 3072  # bytes of input on their way: a serial line with more than 4,095 that nobody took yet stands still
NOT_PASSED = {"XDG_RUNTIME_DIR", "TMPDIR", "TMP", "TEMP", "LD_PRELOAD"}  # of the machine
COVERED = ("/tmp", "/run", "/var/run", "/dev", "/proc", "/sys")  # what a kernel has its own of

# On the console each time, or of use only to who works on the kernel: what it was doing, in calls and registers.
UNTOLD = re.compile(
    r"SELinux|Waiting for connection|tapfd|BESS mode|mmapper_init|ubd device 0|Core dump limits|^Aborted|reboot: System halted"
    r"|\[<[0-9a-f]+>\]|\+0x[0-9a-f]+/0x|^Call Trace|^Modules linked in|^Stack:|^R[A-Z0-9]{2}:|^Pid:|^CPU:|^[0-9a-f]{8,} "
)
LEVEL = re.compile(r"<\d>|^\[ *\d+\.\d+\] *")

Listener = Callable[[str, bytes], None]


class BootError(NslabError):
    """A kernel of one's own that did not come up; with the last lines of its console."""


class OwnKernel:
    """A kernel at work for one command, from boot to end; also a context manager, at whose end it is gone.

    ``write`` are folders of the machine that are seen as they are; all else of its files is read-only below an overlay, and
    what is written there is gone at the end. ``ports`` are pairs: a port on 127.0.0.1 of the machine, and one inside.
    ``terminal`` is the size (rows, columns) of one, for a command that wants that. ``files`` are texts, by their path inside.
    Without ``modules_first`` the command does not wait for modules that modprobe(8) would load when they are needed.
    """

    def __init__(
        self, command: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None,
        write: Sequence[str] = (), memory: str = needs.MEMORY, network: bool = True,
        ports: Iterable[tuple[int, int]] = (), terminal: tuple[int, int] | None = None, files: Mapping[str, str] | None = None,
        hardware: Sequence[str] = (), modules_first: bool = True,
    ):  # fmt: skip
        self.args, variables = spec.argv(command), spec.environment(env)
        for argument, path in (("cwd", cwd), *(("write", path) for path in write)):
            if path is not None:
                spec.folder_there(argument, spec.text(argument, path))
        found = needs.find(memory)
        self._wanted = list(ports)
        here = os.path.realpath(cwd or os.getcwd())
        package = str(Path(__file__).parents[2])
        paths = [here, package, sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), *sys.path]
        paths += os.environ.get("LD_LIBRARY_PATH", "").split(":")
        seen = {os.path.realpath(path) for path in paths if os.path.isdir(path)}
        writable = sorted({os.path.realpath(path) for path in write})
        if "/" in writable:
            raise SpecError("write", "the whole machine cannot be written to: say which folders")
        covered = [path for path in sorted(seen - set(writable)) if path.startswith(tuple(f"{each}/" for each in COVERED))]
        inside = {
            "command": self.args, "cwd": here, "write": writable, "covered": covered, "modules": found.modules,
            "env": {name: value for name, value in variables.items() if name not in NOT_PASSED},
            "hostname": HOSTNAME, "files": {"/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}\n", **(files or {})},
            "network": {"name": "vec0", "address": ADDRESS, "prefix": 24, "gateway": GATEWAY, "resolver": RESOLVER}
            if network
            else None,
            "terminal": terminal, "modules_first": modules_first,
        }  # fmt: skip
        plan = {
            "kernel": found.kernel, "slirp": found.network, "folder": found.folder, "memory_folder": found.memory_folder,
            "memory": memory, "ports": self._wanted, "cidr": CIDR, "python": sys.executable, "package": package,
            "inside": inside, "hardware": list(hardware),
        }  # fmt: skip
        self.ports: list[int] = []  # on the machine's 127.0.0.1, once they are there
        self.progress = "kernel"
        self.started = False
        self.over: dict[str, Any] | None = None  # when all is gone: how the command ended ("ended"), what happened ("why")
        self.asked = False  # whether the end was asked for
        self._untaken = 0
        self._folder = ""
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                warden.boot(theirs.fileno(), os.getpid()), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=None, start_new_session=True, pass_fds=[theirs.fileno()], cwd="/",
            )  # fmt: skip
        self._line = words.Line(os.fdopen(ours.detach(), "r+b", buffering=0))
        self._line.put(words.json_line(plan))

    # -- talking to it ------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._line.fileno()

    def send(self, **message: Any) -> None:
        """A word to it (see ``words``); nothing when it is gone."""
        with self._lock, contextlib.suppress(OSError):
            self._line.send(**message)

    def signal(self, number: int) -> None:
        """To the process group of the command."""
        self.send(signal=int(number))

    def receive(self, hear: Listener | None = None) -> None:
        """Take what has come, after waiting for something; ``hear`` gets the output: hear("out", b"...")."""
        for message in self._line.receive():
            match message:
                case {"out": text} | {"err": text}:
                    if hear:
                        hear(next(iter(message)), words.data(text))
                case {"folder": path}:
                    self._folder = path
                case {"progress": word}:
                    self.progress = word
                case {"ready": ports}:
                    self.ports = ports
                case {"started": _}:
                    self.started = True
                case {"taken": count}:
                    self._untaken -= count
                case {"over": over}:
                    self.process.wait()
                    self.over = over
        if self._line.closed and self.over is None:
            self.process.wait()
            if self._folder:
                leftovers.clear(Path(self._folder))
            self.over = {"why": "its warden was ended", "console": ""}

    @property
    def is_up(self) -> bool:
        """Whether the command has been started, and its ports are there."""
        return self.started and len(self.ports) == len(self._wanted)

    def wait_up(self, hear: Listener | None = None, timeout: float = BOOTING, unless: int | None = None) -> None:
        """Until it has booted and the command was started; BootError when that does not happen.

        Or until something can be read from the descriptor ``unless``.
        """
        deadline = time.monotonic() + timeout
        while not self.is_up and self.over is None:
            if not self.readable(deadline - time.monotonic(), unless):
                if unless is not None and select.select([unless], [], [], 0)[0]:
                    return
                self.close()
                assert self.over is not None
                self.over["why"] = f"it had not booted after {timeout:.0f} seconds, and came as far as: {self.progress}"
            else:
                self.receive(hear)
        if self.over is not None and "ended" not in self.over:
            raise BootError(self.explanation())

    def give(self, data: bytes) -> None:
        """Input for the command; b"" is its end. What it does not take yet is waited for, as ``room`` says."""
        text = words.text(data)
        self._untaken += len(text)
        self.send(**{"in": text})

    @property
    def room(self) -> int:
        """How many bytes of input may be given now."""
        left = WINDOW - self._untaken
        return left * 3 // 4 if left >= WINDOW // 4 else 0

    def close(self, why: str = "") -> None:
        """End it, after it has written back what it has of the machine's files; returns when all of it is gone."""
        self.end(why)
        while self.over is None:
            if not self.readable(10):
                self.process.kill()
            self.receive()

    def end(self, why: str = "") -> None:
        """The same, without waiting."""
        self.asked = True
        self.send(end=why)

    def __enter__(self) -> OwnKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            if self.over is None:
                self.end()

    def explanation(self) -> str:
        """What happened, with the last lines of the console when it did not come up."""
        over = self.over or {}
        why = over.get("failed") or over.get("why") or f"{self.args[0]} ended with status {over.get('ended')}"
        if self.started:
            return f"the kernel of your own has ended: {why}"
        said_last = [LEVEL.sub("", line.strip()).strip() for line in over.get("console", "").splitlines()]
        lines = [line for line in said_last if line and line not in why and not UNTOLD.search(line)][-12:]
        said = "\n  ".join(["\nits console said last:", *lines]) if lines else ""
        return f"the kernel of your own did not come up: {why}{said}"

    def readable(self, timeout: float, unless: int | None = None) -> bool:
        """Whether it says something within ``timeout`` seconds, and before something can be read from ``unless``."""
        poller = select.poll()
        poller.register(self, select.POLLIN)
        if unless is not None:
            poller.register(unless, select.POLLIN)
        return any(fd == self.fileno() for fd, _ in poller.poll(max(0, timeout) * 1000))


def run_in_own_kernel(
    command: Sequence[str], *, timeout: float | None = None, stdin: bytes = b"", text: bool = True, **options: Any
) -> Result:
    """Boot a kernel, run a command in it as its root, and return the Result. ``options`` are those of OwnKernel.

    CommandTimeout when it takes longer than ``timeout`` seconds, booting not counted; BootError when it does not come up.
    """
    check_timeout(timeout)
    got = {"out": bytearray(), "err": bytearray()}
    start = time.monotonic()

    def hear(name: str, data: bytes) -> None:
        got[name].extend(data)

    with OwnKernel(command, **options) as own:
        own.wait_up(hear)
        deadline = None if timeout is None else time.monotonic() + timeout
        view, sent_end = memoryview(stdin), False
        while own.over is None:
            if view and (room := own.room):
                own.give(bytes(view[:room]))
                view = view[room:]
                continue
            if not view and not sent_end:
                own.give(b"")
                sent_end = True
            if deadline is not None and not own.readable(deadline - time.monotonic()):
                own.close()
                result = _result(own, -signal.SIGKILL, got, start, text)
                raise CommandTimeout(f"{' '.join(command)!r} did not end within {timeout} seconds", result)
            own.receive(hear)
    if "ended" not in own.over:
        raise NslabError(own.explanation())
    return _result(own, own.over["ended"], got, start, text)


def _result(own: OwnKernel, status: int, got: Mapping[str, bytearray], start: float, text: bool) -> Result:
    out, err = (bytes(got[name]).decode(errors="replace") if text else bytes(got[name]) for name in ("out", "err"))
    return Result(own.args, status, out, err, duration=time.monotonic() - start)
