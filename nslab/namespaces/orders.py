"""What a steered process was told, as a script, and a command that it runs, as a process."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nslab import procfs
from nslab.errors import DeadNamespace
from nslab.ops import Borrow, Execute, NewNamespaces, NewTime, Op, Setns, Unshare, WriteFile
from nslab.ops.base import SHELL
from nslab.ops.spaces import shifting
from nslab.spawner import Child, Descriptor

WITHOUT = ("setpriv", "--inh-caps=-all")  # how a script that keeps its capabilities runs a command that gets none


class Script:
    """The orders that a process took, as a shell script: ops, commands, and comments for what a shell cannot do."""

    def __init__(self, *entries: Op | Execute | str):
        self.entries = list(entries)

    def forked(self, kinds: tuple[str, ...], chosen: bool) -> Script:
        """The script of a copy that was made now, in new namespaces of these kinds: what was done before, but for commands."""
        before: list[Op] = []
        for entry in self.entries:
            if isinstance(entry, Unshare) and "pid" in entry.kinds:  # it was for the children, of which this is one
                kinds = ("pid", *kinds)
                left = tuple(kind for kind in entry.kinds if kind != "pid")
                before += [replace(entry, kinds=left)] if left else []
            elif isinstance(entry, Op):
                before.append(entry)
        rest = tuple(kind for kind in kinds if kind not in ("user", "time"))
        made: list[Op | str] = [Unshare(("user",))] if "user" in kinds else []
        made += [NewNamespaces(rest)] if rest else []
        made += [NewTime({})] if "time" in kinds else []
        return Script(*before, *made, *(["# no standard tool: clone3() with set_tid, which chooses PIDs"] if chosen else []))

    def shell(self) -> str:
        entries = _with_offsets(self._joined())
        users = [index for index, entry in enumerate(entries) if isinstance(entry, Unshare) and "user" in entry.kinds]
        keeps = users[0] if users else len(entries)  # from there on the script keeps capabilities: no command gets them
        inner = f"exec {shlex.join(WITHOUT) + ' ' if users else ''}{SHELL}"
        for index, entry in reversed([*enumerate(entries)]):
            if isinstance(entry, Execute):
                command = replace(entry, argv=(*WITHOUT, *entry.argv)) if index > keeps else entry
                inner = f"{command.shell()}\n{inner}"
            else:
                inner = f"{entry}\n{inner}" if isinstance(entry, str) else entry.wrap(inner)
        return inner + "\n"

    def _joined(self) -> list[Op | Execute | str]:
        """What was joined belongs to the borrowed user namespace: the script must join that one, not make its own."""
        first, *rest = self.entries or [""]
        paths = [entry.path for entry in rest if isinstance(entry, Setns) and entry.path]
        if isinstance(first, Borrow) and paths:
            return [Setns("", "user", f"{os.path.dirname(paths[0])}/user"), *rest]
        return self.entries


@dataclass(frozen=True)
class _Shifted(Unshare):
    """unshare(2) of a time namespace with the offsets (in ns) that were written to it later: only a script has it."""

    offsets: Mapping[str, int]

    def shell(self) -> str:
        return shifting(Unshare.shell(self), self.offsets)


def _with_offsets(entries: list[Op | Execute | str]) -> list[Op | Execute | str]:
    """For a script, whose shell is in the new time namespace by its execve: then no offset can be written any more."""
    found: list[Op | Execute | str] = []
    at = -1
    for entry in entries:
        if isinstance(entry, Unshare) and "time" in entry.kinds:
            at = len(found)
            found.append(_Shifted(entry.kinds, {}, implied=entry.implied))
        elif at >= 0 and isinstance(entry, WriteFile) and entry.path == "/proc/self/timens_offsets":
            before = found[at]
            assert isinstance(before, _Shifted)
            found[at] = replace(before, offsets={**before.offsets, **_offsets(entry.text)})
        else:
            found.append(entry)
    return found


def _offsets(text: str) -> dict[str, int]:
    """What was written, in ns by clock; the kernel took it."""
    numbers = {"1": "monotonic", "7": "boottime"}
    lines = [line.split() for line in text.splitlines()]
    return {numbers.get(clock, clock): int(seconds) * 10**9 + int(rest) for clock, seconds, rest in lines}


class Order(Child):
    """A command that a steered process runs: the same face as a process of the spawner."""

    def __init__(self, sock: socket.socket, pid: int, root: int):
        """``sock`` and ``pid`` are those of the process; what is below the process ``root`` belongs to it."""
        super().__init__(sock)
        self.pid = pid
        self._root = root
        self._before = set(procfs.descendants(root))

    def _take(self, message: tuple[Any, ...]) -> None:
        calls, word, value = message
        if word == "done":
            super()._take((calls, "exit", value))
        elif word == "gone":
            self.error = DeadNamespace(f"process {self.pid} has ended.")
            self.gone = value
        else:
            super()._take((calls, word, value))
            if word == "failed":  # and that was all: the process takes the next order
                self.gone = 0

    def end(self, *, politely: bool = False) -> None:
        """Kill the command and what it has started, and wait until the process has buried it and takes orders again."""
        self.wait_for(lambda: self.ready or self.error or self.gone is not None, 5)
        deadline = time.monotonic() + 5
        while self.ready and self.gone is None and time.monotonic() < deadline:
            new = [pid for pid in procfs.descendants(self._root) if pid not in self._before]
            if not any([_killed(pid, self._root) for pid in new]):
                break
        self.wait_for(lambda: self.status is not None or self.error or self.gone is not None, 5)


def _killed(pid: int, root: int) -> bool:
    """Kill this descendant of ``root``; False when it had ended already, or may not be killed."""
    try:
        with Descriptor(os.pidfd_open(pid)) as pidfd:
            if pidfd.readable() or pid not in procfs.descendants(root):  # it may be somebody else's number by now
                return False
            signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
            return True
    except (ProcessLookupError, PermissionError):
        return False
