"""Op, Plan, and what an op may know of the process that executes it."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from nslab import procfs
from nslab.errors import Refused
from nslab.model import NamespaceId
from nslab.syscalls import guard

if TYPE_CHECKING:
    from nslab.ops.spaces import Join
    from nslab.syscalls.in_place import Chain, Lender

# At the end of a script: the user's shell, or sh among files that do not have it.
SHELL = '"$(command -v "${SHELL:-sh}" || echo sh)"'


@dataclass(slots=True)
class Context:
    """Where ops are executed: descriptors by name, and the ids of the machine's own namespaces, which are never changed."""

    machine: Mapping[str, NamespaceId]
    fds: dict[str, int]
    root: bool = False  # it is uid 0 and gid 0 for certain
    let_go: int = -1  # ends the process whose memory this one works in, when it is written to; -1: it is its own
    predecessor: int = -1  # a pidfd of that
    lend: tuple[Lender, Chain] | None = None  # with which it can start a program that first has its memory to itself
    clock: Join | None = None  # what it joined but for the time namespace, which is left to what it starts
    made: tuple[str, ...] = ()  # kinds that are new for certain, without looking
    aside: bool = False  # a process on the way, which has joined something: the new one becomes its sibling
    proc: int = -1  # a descriptor of the machine's /proc, for a process whose root may come to have none

    def must_own(self, kind: str, doing: str) -> None:
        """Raise Refused when the process still shares the machine's own namespace of this kind."""
        if kind not in self.made and self.machine.get(kind) == self._namespace(kind):
            raise Refused(
                f"{doing} would change the machine itself: this process is still in the machine's own {kind} namespace.\n"
                f"  what to do: unshare('{kind}') first, or ask for isolate='{kind} ...'."
            )

    def own_memory(self) -> None:
        """Have the memory of this process to itself: the one that it is borrowed from ends."""
        if self.let_go >= 0:
            with contextlib.suppress(BrokenPipeError):  # it was killed
                os.write(self.let_go, b"!")
            poller = select.poll()
            poller.register(self.predecessor, select.POLLIN)
            poller.poll()
            for fd in (self.let_go, self.predecessor):
                os.close(fd)
            self.let_go = -1
            guard.set_dumpable(True)  # which it was not, where others could have reached into that of the other

    def _namespace(self, kind: str) -> NamespaceId:
        if self.proc < 0:
            return procfs.namespace("self", kind)
        info = os.stat(f"self/ns/{kind}", dir_fd=self.proc)
        return NamespaceId(info.st_dev, info.st_ino)


@dataclass(frozen=True)
class Op:
    """One thing to be done. ``implied`` says why nslab adds it; it is empty for what was asked for."""

    implied: str = field(default="", kw_only=True)
    changes: ClassVar[str] = ""  # the kind of namespace whose content it changes
    enters: ClassVar[bool] = False  # from then on other files are in sight, which nothing may be loaded from

    def execute(self, context: Context) -> Any:
        """Do it in this process. Raises SyscallError; Refused when it would change the machine itself."""
        if self.changes:
            context.must_own(self.changes, self.describe())
        return self.repeat(context)

    def repeat(self, context: Context) -> Any:
        """Do it without asking whether that is safe: it was asked before."""
        guard.implied(self.implied)
        try:
            return self.perform(context)
        finally:
            guard.implied("")

    def perform(self, context: Context) -> Any:
        """What the op does, once that is known to be safe."""
        raise NotImplementedError

    def describe(self) -> str:
        """One sentence without a full stop."""
        raise NotImplementedError

    def shell(self) -> str:
        """One or more lines of POSIX shell; a comment where no standard tool can do it."""
        raise NotImplementedError

    def wrap(self, inner: str) -> str:
        """The script that does this op and then ``inner``."""
        return f"{self.shell()}\n{inner}"


@dataclass(frozen=True)
class Execute:
    """The command at the end of a plan; ``before`` is done in its own process, between fork and execve.

    ``launched``: by a minimal program, so that our own is not the last that its process executed before.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] | None  # None: that of the notebook when it started the spawner
    cwd: str | None = None
    before: tuple[Op, ...] = ()
    terminal: bool = False
    launched: bool = False
    root: str = ""  # the root filesystem that it is looked up in, for a message; "" for the machine's own

    def shell(self) -> str:
        """One line; text for sh stands in parentheses as it is, without another layer of quotes, where it can."""
        text = shlex.join(self.argv)
        for op in reversed(self.before):
            text = op.wrap(text)
        if not self.before and self.argv[:2] == ("/bin/sh", "-c") and not set("\n#") & set(self.argv[2]):
            text = f"({self.argv[2]})"
        return f"(cd {shlex.quote(self.cwd)} && {text})" if self.cwd else text


@dataclass(frozen=True)
class Plan:
    """Ops in the order in which they are done, and the command that then runs (None: a shell, in the script)."""

    ops: tuple[Op, ...]
    command: Execute | None = None

    def describe(self) -> list[str]:
        """One line an op, with the reason of those that are implied."""
        return [op.describe() + (f"   [implied: {op.implied}]" if op.implied else "") for op in self.ops]

    def shell(self) -> str:
        return self.script(self.command.shell() if self.command else f"exec {SHELL}") + "\n"

    def script(self, inner: str) -> str:
        """The shell script that does every op and then ``inner``."""
        from nslab.ops.merging import merged

        for op in reversed(merged(self.ops)):
            inner = op.wrap(inner)
        return inner
