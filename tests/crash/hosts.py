"""Where a victim runs: a plain Python process, or a notebook kernel that jupyter_client looks after."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import roots
from tests.crash.oracle import MARK
from tests.notebooks.kernel import Kernel

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class User:
    """Who a victim is: the command of a Python, with its environment and the checkout that it may read."""

    python: Sequence[str]
    env: Mapping[str, str]
    checkout: Path
    uid: int | None = None  # None: the one that this process is

    @classmethod
    def oneself(cls) -> User:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        return cls((sys.executable,), {**os.environ, "PATH": path}, ROOT)


class Host:
    """A running victim, with a folder of its own that close() removes. ``process`` says "ready", "works" and so on."""

    def __init__(self, user: User, seed: str, threads: int, interrupted: bool = False, doing: str = "anything"):
        self.user = user
        self.arguments = (seed, threads, int(interrupted), doing)
        self.mark = uuid.uuid4().hex
        self._folder = tempfile.TemporaryDirectory(prefix="nslab-crash-", dir="/tmp", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        if shutil.which("busybox"):
            roots.image(self.folder / "roots")  # a folder and a tar file with it
        os.mkfifo(self.folder / "events")
        (self.folder / "log").touch()
        if user.uid is not None:
            for path in (self.temporary, self.folder / "events", self.folder / "log"):
                os.chown(path, user.uid, user.uid)
        self.events = os.open(self.folder / "events", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.env = {**user.env, "TMPDIR": str(self.temporary), MARK: self.mark}
        self.heard: list[dict[str, Any]] = []
        self._pending = b""

    pid: int
    own_descriptors: frozenset[str] = frozenset()  # what it opens and closes itself

    def start(self) -> None:
        raise NotImplementedError

    def bury(self) -> None:
        """Take note of the death of the victim."""

    def close(self) -> None:
        os.close(self.events)
        self._folder.cleanup()

    def listen(self, timeout: float) -> bool:
        """Hear what the victim says within ``timeout`` seconds; whether there was anything."""
        if not select.select([self.events], [], [], max(0, timeout))[0]:
            return False
        *lines, self._pending = (self._pending + os.read(self.events, 1 << 16)).split(b"\n")
        self.heard += [json.loads(line) for line in lines]
        return True

    def said(self, event: str) -> dict[str, Any] | None:
        return next((entry for entry in self.heard if entry["event"] == event), None)

    def wait_until_said(self, *events: str, timeout: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout
        while not (said := next(filter(None, map(self.said, events)), None)):
            if not self.listen(deadline - time.monotonic()) and time.monotonic() >= deadline:
                return None
        return said

    def doings(self) -> list[str]:
        """The last things that the victim did."""
        return (self.folder / "log").read_text().split()[-4:]


class Plain(Host):
    """A script."""

    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["-m", "tests.crash.victim", str(self.folder), *map(str, self.arguments)]
        with open(self.folder / "terminal", "w+b") as terminal:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.user.python, *arguments], cwd=self.user.checkout, env=self.env,
                stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid

    def bury(self) -> None:
        if self.process:
            self.process.poll()


class Client(Plain):
    """A script that uses a lab which another process holds; the sockets of holders are in a folder of its own."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        folder = self.folder / "run"
        folder.mkdir(mode=0o700)
        if self.user.uid is not None:
            os.chown(folder, self.user.uid, self.user.uid)
        self.env["XDG_RUNTIME_DIR"] = str(folder)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What `nslab` says to another who has the same labs."""
        return subprocess.run(
            [*self.user.python, "-m", "nslab.cli", *words], cwd=self.user.checkout, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip


class Notebook(Host):
    """A cell in a kernel."""

    own_descriptors = frozenset({"socket", "anon_inode:[eventfd]", "anon_inode:[eventpoll]"})
    kernel: Kernel | None = None

    def start(self) -> None:
        python = ["setpriv", "--pdeathsig", "KILL", *self.user.python]
        self.kernel = Kernel(self.folder, python=python, env=self.env, owner=self.user.uid, cwd=self.user.checkout)
        self.pid = self.kernel.pid
        arguments = (str(self.folder), *self.arguments)
        self.cell = self.kernel.begin(f"from tests.crash import victim; victim.main(*{arguments!r})")

    def bury(self) -> None:
        if self.kernel and self.kernel.manager.provisioner and self.kernel.manager.provisioner.process:
            self.kernel.manager.provisioner.process.poll()

    def close(self) -> None:
        if self.kernel:
            self.kernel.close()
        super().close()
