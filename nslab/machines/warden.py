"""The warden: the parent of a kernel of one's own and of its network, which outlives them just long enough to leave nothing.

It starts slirp4netns(1) and the kernel, passes on what is said between the first process inside and the client, and watches
all three by their pidfds. When one is gone it ends the rest, removes the folder in which their sockets are, and says what
happened. It is a session of its own, since Jupyter signals the whole group of a kernel. A program of its own: see ``boot``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import selectors
import shutil
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, NoReturn

from nslab import syscalls
from nslab.machines import leftovers, words
from nslab.machines.preload import image
from nslab.machines.slirp import Network, listens
from nslab.spawner.reaper import Reaper
from nslab.syscalls import guard

INIT = '#!/bin/sh\n{libraries}exec {python} -I -S -c "import sys; sys.path.insert(0, sys.argv[1]); {main}" {package} {folder}\n'
MAIN = "from nslab.machines.inside import main; main(sys.argv[2])"
GRACE = 1.0  # seconds for the kernel to write back what it has of the machine's files
LISTENING = 10.0  # seconds until slirp4netns listens, on a busy machine
MOST_FILES = 1 << 16  # descriptors of a kernel, if so many are allowed: each costs memory of the machine's kernel
FASTEST = 10_000  # new ones in a second, as by find(1)
HINTS = {
    signal.SIGKILL: ": somebody killed it, or there was no memory left",
    signal.SIGBUS: ": the folder in which the file is that is its memory, /dev/shm or TMPDIR, has no room left",
}
ENDED = {"kernel": "the kernel", "network": "slirp4netns, its network,", "client": "whoever asked for it"}


def main(control: int, client: int) -> NoReturn:
    """``control`` is the client's channel, on which a plan comes first; ``client`` its PID."""
    syscalls.allow()
    guard.own_command_line()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    watched = os.fdopen(os.pidfd_open(client), "rb", buffering=0)
    if os.getppid() != client:  # it died while we started, and the number may be somebody else's
        os._exit(0)
    guard.name_process(leftovers.WARDEN)
    os.set_inheritable(control, False)
    with contextlib.suppress(OSError):
        Warden(words.Line(os.fdopen(control, "r+b", buffering=0)), watched).keep()
    os._exit(0)


class Warden:
    def __init__(self, client: words.Line, watched: IO[bytes]):
        self.client = client
        self.selector = selectors.DefaultSelector()
        self.selector.register(client, selectors.EVENT_READ, "client says")
        self.selector.register(watched, selectors.EVENT_READ, "client")
        self.pids: dict[str, int] = {}
        self.console: deque[str] = deque(maxlen=40)
        self.said: dict[str, Any] = {}  # how the command ended, or why there is none
        self.inside: words.Line | None = None
        self.network: Network | None = None
        self.started = self.forgetting = False
        self.ending = 0.0  # by when, once the end was asked for
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.most_files = min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.most_files, hard))

    def keep(self) -> None:
        """From the plan to the end of all, and of the folder."""
        first = self.client.receive()
        if not first:
            return
        self.folder = folder = Path(first[0]["folder"], leftovers.PREFIX + os.urandom(4).hex())
        why = ""
        try:
            folder.mkdir(0o700)
            (folder / leftovers.LOCK).touch()
            with open(folder / leftovers.LOCK) as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                self.client.send(folder=str(folder))
                self._start(first[0])
                why = self._watch()
        except (OSError, RuntimeError) as error:
            why = str(error)
        finally:
            Reaper().end_orphans()
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.client.send(over={"why": why, "console": "\n".join(self.console), **self.said})

    def _start(self, plan: dict[str, Any]) -> None:
        folder = self.folder
        python, package = plan["python"], plan["package"]
        inside, path = plan["inside"], os.environ.get("LD_LIBRARY_PATH")
        libraries = f"export LD_LIBRARY_PATH={_quoted(path)}\n" if path else ""
        (folder / words.PLAN).touch(0o600)
        (folder / words.PLAN).write_text(json.dumps(inside))
        quoted = {"python": _quoted(python), "package": _quoted(package), "libraries": libraries}
        (folder / "init").write_text(INIT.format(main=MAIN, folder=folder, **quoted))
        (folder / "init").chmod(0o700)
        self.ports = plan["ports"]
        env = {"HOME": str(folder), "PATH": os.environ.get("PATH", os.defpath), "TMPDIR": plan["memory_folder"]}
        interfaces = []
        ours, theirs = socket.socketpair()
        with theirs, image() as library:
            os.set_inheritable(library.fileno(), True)
            env["LD_PRELOAD"] = f"/proc/self/fd/{library.fileno()}"
            if inside["network"]:
                self.network = Network(plan["slirp"], folder, plan["cidr"], inside["network"]["address"])
                self._run("network", self.network.command, env)
                self._wait_for(self.network.wire)
                interfaces = [f"vec0:transport=bess,dst={self.network.wire},depth=64"]
            os.set_inheritable(theirs.fileno(), True)
            boot = [
                plan["kernel"], "rootfstype=hostfs", "root=/dev/root", "ro", f"mem={plan['memory']}", f"init={folder}/init",
                "con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{theirs.fileno()}", "quiet", *interfaces, *plan["hardware"],
            ]  # fmt: skip
            self._run("kernel", boot, env)
        self.inside = words.Line(os.fdopen(ours.detach(), "r+b", buffering=0))
        self.selector.register(self.inside, selectors.EVENT_READ, "inside says")

    def _run(self, name: str, argv: list[str], env: dict[str, str]) -> None:
        """Start a program, which ends with us; what it writes is the console's."""
        reads, writes = os.pipe()
        output, theirs = os.fdopen(reads, "rb", buffering=0), os.fdopen(writes, "wb", buffering=0)
        warden = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != warden:
                    os._exit(0)
                os.setsid()
                null = os.fdopen(os.open(os.devnull, os.O_RDWR), "r+b", buffering=0)
                for number, file in enumerate((null, theirs, theirs)):
                    os.dup2(file.fileno(), number)
                for number in range(1, signal.NSIG):
                    with contextlib.suppress(OSError, ValueError):
                        signal.signal(number, signal.SIG_DFL)
                os.execve(argv[0], argv, env)
            except OSError as error:
                os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
            finally:
                os._exit(127)
        theirs.close()
        self.pids[name] = pid
        self.selector.register(os.fdopen(os.pidfd_open(pid), "rb", buffering=0), selectors.EVENT_READ, name)
        self.selector.register(output, selectors.EVENT_READ, "console")

    def _wait_for(self, path: Path) -> None:
        """Until slirp4netns listens at a socket that it makes: soon, or it ends, or who asked for it does.

        Nothing tells when: inotify(7) would of the file, which is there before anybody listens.
        """
        found = {key.data: key.fd for key in self.selector.get_map().values()}
        network, ends = found["network"], select.poll()
        for fd in (network, found["client"]):
            ends.register(fd, select.POLLIN)
        deadline = time.monotonic() + LISTENING
        while not listens(path):
            for fd, _ in ends.poll(2):
                raise RuntimeError(self._cause("network") if fd == network else "whoever asked for it has ended")
            if time.monotonic() > deadline:
                raise RuntimeError(f"slirp4netns made no network in {LISTENING:.0f} seconds")

    # -- while it runs --------------------------------------------------------------------------------------------------

    def _watch(self) -> str:
        """Until one of them is gone; what happened, in words, or "" for what was asked for."""
        why, look = "", 0.0
        while True:
            if self.ending and self.ending <= time.monotonic():
                return why
            pause = min(0.5, self.most_files / 2 / FASTEST)
            events = self.selector.select(min(pause, self.ending - time.monotonic()) if self.ending else pause)
            if time.monotonic() >= look:
                look = time.monotonic() + pause
                self._spare_files()
            gone = ""
            for key, _ in events:
                match key.data:
                    case "console":
                        self._note(key.fileobj)
                    case "client says":
                        why = self._pass_down() or why
                    case "inside says":
                        self._pass_up()
                    case name:
                        gone = gone or name
            if "ended" in self.said or "failed" in self.said or "synced" in self.said:
                return why
            if gone == "client":
                self._end()
                self.selector.unregister(next(key.fileobj for key in self.selector.get_map().values() if key.data == gone))
            elif gone:
                return why or self._cause(gone)

    def _spare_files(self) -> None:
        """Have the kernel forget files that nobody has open before it runs out: each that it knows costs a descriptor."""
        files = f"/proc/{self.pids['kernel']}/fd"
        if self.forgetting:
            return
        with contextlib.suppress(OSError):  # it has just ended
            self.forgetting = (os.stat(files).st_size or len(os.listdir(files))) > self.most_files // 2  # a size since 6.2
            if self.forgetting:
                self._tell(forget=True)

    def _tell(self, **message: Any) -> None:
        """To the first process inside, if it is there still."""
        with contextlib.suppress(OSError):
            if self.inside:
                self.inside.send(**message)

    def _note(self, file: Any) -> None:
        data = file.read(1 << 16)
        if not data:
            self.selector.unregister(file)
            return
        text = data.decode(errors="replace")
        partial = self.console.pop() if self.console and not self.console[-1].endswith("\n") else ""
        self.console.extend((partial + text.replace("\r", "")).splitlines(keepends=True))

    def _pass_down(self) -> str:
        """From the client to the first process inside; the end, if that is asked for or it has gone."""
        for message in self.client.receive():
            if "end" in message:
                self._end()
                return str(message["end"])
            self._tell(**message)
        if self.client.closed:
            self.selector.unregister(self.client)
            self._end()
        return ""

    def _end(self) -> None:
        """Have the machine's files written back, and be done a second later at most; at once when nothing has run yet."""
        if not self.ending:
            self.ending = time.monotonic() + (GRACE if self.started else 0)
            self._tell(sync=True)

    def _pass_up(self) -> None:
        assert self.inside
        for message in self.inside.receive():
            if {"ended", "failed", "synced"} & set(message):
                self.said |= message
            elif "connected" in message:
                self.client.send(ready=self._forward())
            elif "forgotten" in message:
                self.forgetting = False
            elif not self.client.closed:
                if "started" in message:
                    self.started = True  # so all that is in the folder has been read, or is connected
                    shutil.rmtree(self.folder, ignore_errors=True)
                    leftovers.sweep(str(self.folder.parent))
                with contextlib.suppress(OSError):
                    self.client.send(**message)
        if self.inside.closed:
            self.selector.unregister(self.inside)

    def _forward(self) -> list[int]:
        """Ports on 127.0.0.1 that lead to those inside; it takes orders from when it has noticed the kernel on."""
        assert self.network
        self._wait_for(self.network.orders)
        return [self.network.forward(*pair) for pair in self.ports]

    def _cause(self, name: str) -> str:
        """What became of a process, in words."""
        for key in list(self.selector.get_map().values()):  # what it said last
            if key.data == "console":
                os.set_blocking(key.fd, False)
                self._note(key.fileobj)
        _, status = os.waitpid(self.pids[name], 0)
        code = os.waitstatus_to_exitcode(status)
        for text in self.console:
            if "Kernel panic" in text:
                return f"{ENDED[name]} gave up: {text[text.index('Kernel panic') :].strip()}"
        if code < 0:
            return f"{ENDED[name]} was ended by {signal.Signals(-code).name}{HINTS.get(signal.Signals(-code), '')}"
        if name == "kernel" and self.started and not code:
            return "it was switched off from inside"
        return f"{ENDED[name]} ended with status {code}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def boot(control: int, client: int) -> list[str]:
    """The command that starts a warden."""
    package = str(Path(__file__).parents[2])
    code = "import sys; sys.path.insert(0, sys.argv[1]); from nslab.machines.warden import main; main(*map(int, sys.argv[2:]))"
    return [sys.executable, "-I", "-S", "-c", code, package, str(control), str(client)]
