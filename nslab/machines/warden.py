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
import selectors
import shutil
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, NoReturn

from nslab import procfs, syscalls
from nslab.machines import words
from nslab.machines.regsets import image
from nslab.spawner.reaper import Reaper
from nslab.syscalls import guard

PREFIX, LOCK = "nslab-own-", "lock"  # of the folder; of the file in it that a warden holds
INIT = '#!/bin/sh\n{libraries}exec {python} -I -S -c "import sys; sys.path.insert(0, sys.argv[1]); {main}" {package} {folder}\n'
MAIN = "from nslab.machines.inside import main; main(sys.argv[2])"
GRACE = 1.0  # seconds for the kernel to write back what it has of the machine's files
STALE = 60.0  # seconds after which a folder that nobody holds is somebody's who was killed
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
    guard.name_process("nslab-warden")
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
        self.ending = 0.0  # by when, once the end was asked for

    def keep(self) -> None:
        """From the plan to the end of all, and of the folder."""
        first = self.client.receive()
        if not first:
            return
        sweep(first[0]["folder"])
        folder = Path(first[0]["folder"], PREFIX + os.urandom(4).hex())
        folder.mkdir(0o700)
        why = ""
        try:
            (folder / LOCK).touch()
            with open(folder / LOCK) as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                self.client.send(folder=str(folder))
                self._start(first[0], folder)
                why = self._watch()
        except (OSError, RuntimeError) as error:
            why = str(error)
        finally:
            Reaper().end_orphans()
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.client.send(over={"why": why, "console": "\n".join(self.console), **self.said})

    def _start(self, plan: dict[str, Any], folder: Path) -> None:
        python, package = plan["python"], plan["package"]
        inside, path = plan["inside"], os.environ.get("LD_LIBRARY_PATH")
        libraries = f"export LD_LIBRARY_PATH={_quoted(path)}\n" if path else ""
        (folder / words.PLAN).touch(0o600)
        (folder / words.PLAN).write_text(json.dumps(inside))
        quoted = {"python": _quoted(python), "package": _quoted(package), "libraries": libraries}
        (folder / "init").write_text(INIT.format(main=MAIN, folder=folder, **quoted))
        (folder / "init").chmod(0o700)
        self.ports = plan["ports"]
        self.api, self.address = folder / "api", ""
        env = {"HOME": str(folder), "PATH": os.environ.get("PATH", os.defpath), "TMPDIR": plan["memory_folder"]}
        interfaces = []
        if inside["network"]:
            network = folder / "net"
            options = [f"--api-socket={self.api}", "--target-type=bess", f"--cidr={plan['cidr']}", "--disable-host-loopback"]
            self._run("network", [plan["slirp"], *options, str(network)], env)
            _wait_for(network, self.pids["network"])
            interfaces = [f"vec0:transport=bess,dst={network},depth=64"]
            self.address = inside["network"]["address"]
        ours, theirs = socket.socketpair()
        with theirs, image() as regsets:
            for inherited in (theirs, regsets):
                os.set_inheritable(inherited.fileno(), True)
            line = theirs.fileno()
            boot = [
                plan["kernel"], "rootfstype=hostfs", "root=/dev/root", "ro", f"mem={plan['memory']}", f"init={folder}/init",
                "con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{line}", "quiet", *interfaces, *plan["hardware"],
            ]  # fmt: skip
            self._run("kernel", boot, {**env, "LD_PRELOAD": f"/proc/self/fd/{regsets.fileno()}"})
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

    # -- while it runs --------------------------------------------------------------------------------------------------

    def _watch(self) -> str:
        """Until one of them is gone; what happened, in words, or "" for what was asked for."""
        why = ""
        while True:
            left = self.ending - time.monotonic() if self.ending else None
            if left is not None and left <= 0:
                return why
            events = self.selector.select(left)
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
            elif gone and gone != "client":
                return why or self._cause(gone)

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
            if self.inside:
                self.inside.send(**message)
        if self.client.closed:
            self.selector.unregister(self.client)
            self._end()
        return ""

    def _end(self) -> None:
        """Have the machine's files written back, and be done a second later at most."""
        if not self.ending and self.inside:
            self.ending = time.monotonic() + GRACE
            self.inside.send(sync=True)

    def _pass_up(self) -> None:
        assert self.inside
        for message in self.inside.receive():
            if {"ended", "failed", "synced"} & set(message):
                self.said |= message
            elif "connected" in message:
                self.client.send(ready=self._forward())
            elif not self.client.closed:
                with contextlib.suppress(OSError):
                    self.client.send(**message)
        if self.inside.closed:
            self.selector.unregister(self.inside)

    def _forward(self) -> list[int]:
        """Have slirp4netns listen on 127.0.0.1 for each port; the numbers there, other ones where somebody has taken them.

        It takes orders from when it has noticed the kernel on.
        """
        _wait_for(self.api, self.pids["network"])
        return [self._forwarded(outside, inside) or self._forwarded(_free_port(), inside) for outside, inside in self.ports]

    def _forwarded(self, outside: int, inside: int) -> int:
        request = {
            "proto": "tcp", "host_addr": "127.0.0.1", "host_port": outside, "guest_addr": self.address, "guest_port": inside,
        }  # fmt: skip
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.api))
            sock.sendall(json.dumps({"execute": "add_hostfwd", "arguments": request}).encode())
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
        return outside if b'"error"' not in answer else 0

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
                return f"{ENDED[name]} gave up: {text.strip()}"
        if code < 0:
            hint = ": somebody killed it, or there was no memory left" if code == -signal.SIGKILL else ""
            return f"{ENDED[name]} was ended by {signal.Signals(-code).name}{hint}"
        return f"{ENDED[name]} ended with status {code}"


def sweep(parent: str) -> None:
    """Remove the folders of wardens of this user who were killed together with all that would have removed them."""
    for folder in Path(parent).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            info = folder.lstat()
            if info.st_uid != os.geteuid() or time.time() - info.st_mtime < STALE:
                continue
            with open(folder / LOCK) as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                clear(folder)


def clear(folder: Path) -> None:
    """End what is left of a kernel whose warden was killed, by the folder that its processes name, and remove that.

    Those that ran programs inside are let go when the kernel that traced them dies: they would go on in this one.
    """
    name = os.fsencode(folder)
    for pid in procfs.pids():
        with contextlib.suppress(OSError), os.fdopen(os.pidfd_open(pid), "rb", buffering=0) as process:
            if name in Path(f"/proc/{pid}/cmdline").read_bytes():
                signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for(path: Path, pid: int) -> None:
    """Until a child of ours listens at a socket that it makes: soon, or it ends."""
    deadline = time.monotonic() + 10
    while not _listens(path):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) or time.monotonic() > deadline:
            raise RuntimeError("slirp4netns made no network")
        time.sleep(0.002)


def _listens(path: Path) -> bool:
    """Whether somebody listens there, as the kernel's list says: a connection would be taken for the one."""
    with open("/proc/self/net/unix", "rb") as file:
        return any(line.split()[3] == b"00010000" for line in file if line.rstrip().endswith(b" " + os.fsencode(path)))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def boot(control: int, client: int) -> list[str]:
    """The command that starts a warden."""
    package = str(Path(__file__).parents[2])
    code = "import sys; sys.path.insert(0, sys.argv[1]); from nslab.machines.warden import main; main(*map(int, sys.argv[2:]))"
    return [sys.executable, "-I", "-S", "-c", code, package, str(control), str(client)]
