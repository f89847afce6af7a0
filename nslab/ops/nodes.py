"""What a node without a process needs: a host name that a descriptor holds, and its own view of a few files."""

from __future__ import annotations

import os
import shlex
import socket
from dataclasses import dataclass
from typing import ClassVar

from nslab import syscalls
from nslab.model import KINDS
from nslab.ops.base import Context, Op
from nslab.ops.places import opened
from nslab.syscalls import guard


@dataclass(frozen=True)
class NewHostnames(Op):
    """A new UTS namespace for each of ``names``, which is its host name, handed back over the socket named ``fd``.

    A namespace that the process has left lives on by its descriptor.
    """

    names: tuple[str, ...]
    fd: str

    def perform(self, context: Context) -> None:
        with socket.socket(fileno=os.dup(context.fds[self.fd])) as way:
            for name in self.names:
                syscalls.unshare(KINDS["uts"].flag)
                syscalls.sethostname(os.fsencode(name))
                with opened("/proc/self/ns/uts", os.O_RDONLY) as namespace:
                    socket.send_fds(way, [b"u"], [namespace])

    def describe(self) -> str:
        return f"make UTS namespaces, and hand back a descriptor of each: {len(self.names)}"

    def shell(self) -> str:
        return f"# no standard tool: {len(self.names)} UTS namespaces that only descriptors hold"


@dataclass(frozen=True)
class ShowTexts(Op):
    """Show texts at the paths of files that are there: ``texts`` are (path, text). They lie in memory: no file is left behind.

    For a moment a tmpfs lies over the folder ``stage``, in which none of them may be. ``make`` makes files that are missing.
    """

    texts: tuple[tuple[str, str], ...]
    stage: str = "/run"
    make: bool = False
    changes: ClassVar[str] = "mnt"

    def perform(self, context: Context) -> None:
        for path, _ in self.texts if self.make else ():
            guard.invoke("open", (path, "O_CREAT"), _make, path)
        syscalls.mount("tmpfs", self.stage, "tmpfs", 0, "mode=755")
        for number, (path, text) in enumerate(self.texts):
            file = f"{self.stage}/{number}"
            guard.invoke("write", (file, f"{len(text)} characters"), _write, file, text)
            syscalls.mount(file, path, None, syscalls.mount_flags("MS_BIND"))
        syscalls.umount2(self.stage, 2)  # MNT_DETACH: what is shown stays

    def describe(self) -> str:
        return f"show texts of our own at {', '.join(path for path, _ in self.texts)}"

    def shell(self) -> str:
        stage = shlex.quote(self.stage)
        lines = [f"[ -e {shlex.quote(path)} ] || : > {shlex.quote(path)}" for path, _ in self.texts if self.make]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {stage}")
        for number, (path, text) in enumerate(self.texts):
            file = shlex.quote(f"{self.stage}/{number}")
            lines.append(f"printf %s {shlex.quote(text)} > {file}; chmod 644 {file}; mount --bind {file} {shlex.quote(path)}")
        return "\n".join([*lines, f"umount --lazy {stage}"])


@dataclass(frozen=True)
class RewriteTexts(Op):
    """Give files that ShowTexts has made other texts."""

    texts: tuple[tuple[str, str], ...]

    def perform(self, context: Context) -> None:
        for path, text in self.texts:
            guard.invoke("write", (path, f"{len(text)} characters"), _write, path, text, os.O_TRUNC)

    def describe(self) -> str:
        return f"write {', '.join(path for path, _ in self.texts)} anew"

    def shell(self) -> str:
        return "\n".join(f"printf %s {shlex.quote(text)} > {shlex.quote(path)}" for path, text in self.texts)


def _make(path: str) -> int:
    with opened(path, os.O_CREAT | os.O_RDONLY):
        return 0


def _write(file: str, text: str, how: int = os.O_CREAT | os.O_EXCL) -> int:
    with opened(file, how | os.O_WRONLY) as fd:
        if how & os.O_CREAT:
            os.fchmod(fd, 0o644)
        data = text.encode()
        while data:
            data = data[os.write(fd, data) :]
    return 0
