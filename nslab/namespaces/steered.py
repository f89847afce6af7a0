"""A process to steer by hand: each method is one system call, made by a live, single-threaded process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nslab import procfs
from nslab.errors import DeadNamespace, SpecError, SyscallError
from nslab.model import KINDS, Membership, flags_of
from nslab.namespaces import joining, running
from nslab.namespaces.handle import Namespace
from nslab.namespaces.orders import Order, Script
from nslab.namespaces.result import Result
from nslab.namespaces.streams import Sink
from nslab.namespaces.view import Viewed, machine_ids
from nslab.ops import (
    Chdir,
    Chroot,
    Execute,
    Mount,
    Op,
    PivotRoot,
    SetDomainname,
    SetHostname,
    SetIds,
    Setns,
    SetPropagation,
    Umount,
    Unshare,
    WriteFile,
    spec,
)  # fmt: skip
from nslab.spawner import Child, Descriptor, channel, functions
from nslab.syscalls import decode
from nslab.trace import Trace, emit, record

LEAVES = SetPropagation("private", implied="else a mount made here could show up outside")

WANTED = "must be a Namespace, as web.namespaces['uts'], or the path of one, as '/proc/PID/ns/uts' or '/proc/PID/fd/N'"
_LINK = re.compile(rf"/proc/.*/ns/({'|'.join(KINDS)})(?:_for_children)?")

_everyone: weakref.WeakSet[Process] = weakref.WeakSet()


def everyone() -> list[Process]:
    """All steered processes of this Python."""
    return list(_everyone)


class Process(Viewed):
    """A live process, steered from here: it makes one system call for each call of a method, and waits for the next.

    It starts in the machine's own namespaces (an ordinary user's in a borrowed user namespace), so what would change those
    is refused until it has unshared them. ``pid`` is its PID here, ``pid_inside`` the one that it knew when it began.
    Closing it, or dropping it, ends it and everything that it started.
    """

    def __init__(self, sock: socket.socket, keeper: Child | Process, trace: Trace, script: Script, borrowed: bool):
        self._sock = sock
        self._keeper = keeper
        self._lock = threading.RLock()
        self._script = script
        self._borrowed = borrowed
        self._ended = False
        self._number = 0  # its PID as the process that forked it knows it
        self.trace = trace
        try:
            (_, _, self.pid_inside), fds = channel.receive(sock)
        except EOFError:
            raise DeadNamespace("the new process ended before it could take orders.") from None
        self._pidfd = Descriptor(fds[0])
        _everyone.add(self)
        self.pid = procfs.pid_behind(fds[0])

    # -- orders ---------------------------------------------------------------------------------------------------------

    def _order(self, verb: str, argument: Any = None, fds: Mapping[str, Any] | None = None) -> Any:
        with self._lock, record(self.trace):
            self._tell(verb, argument, fds or {})
            try:
                word, value = self._hear()
            except KeyboardInterrupt:
                self.close()  # it may never answer
                raise
        if word == "failed":
            if isinstance(value, SyscallError):
                value.steps = ()
            raise value
        return value

    def _tell(self, verb: str, argument: Any, fds: Mapping[str, Any]) -> None:
        if self._ended:
            raise DeadNamespace("this process was closed.")
        try:
            channel.send(self._sock, (verb, argument, tuple(fds)), [fd.fileno() for fd in fds.values()])
        except (BrokenPipeError, ConnectionResetError):
            raise DeadNamespace(f"process {self.pid} has ended.") from None

    def _hear(self) -> tuple[str, Any]:
        try:
            (calls, word, value), _ = channel.receive(self._sock)
        except EOFError:
            raise DeadNamespace(f"process {self.pid} has ended.") from None
        for call in calls:
            step = decode.step(*call)
            emit(step if step.pid else step._replace(pid=self.pid))
        return word, value

    def do(self, op: Op, **fds: Any) -> Any:
        """Do any op (see nslab.ops); ``fds`` are the descriptors that it names."""
        if not isinstance(op, Op):
            raise SpecError("op", f"must be one of nslab.ops, not {type(op).__name__}")
        value = self._order("op", op, fds)
        self._script.entries.append(op)
        return value

    # -- system calls ---------------------------------------------------------------------------------------------------

    def unshare(self, kinds: str | Iterable[str]) -> None:
        """Leave the shared namespaces of these kinds for new ones (pid and time: its next children will). unshare(2)

        With a copy of the machine's mount table comes one step more: the mounts are made private, else what is mounted in
        the copy would appear on a machine whose mounts are shared.
        """
        asked = spec.kinds(kinds, "kinds")
        if not asked:
            raise SpecError("kinds", "must name at least one kind of namespace")
        leaves = "mnt" in asked and self._shares("mnt")
        self.do(Unshare(asked))
        if leaves:
            self.do(LEAVES)

    def setns(self, namespace: Namespace | spec.Folder) -> None:
        """Join a namespace (pid and time: its next children will). setns(2)

        A path, as /proc/PID/ns/uts or /proc/PID/fd/N, is opened by this process, as it sees /proc.
        """
        if isinstance(namespace, str | os.PathLike):
            return self._setns(spec.text("namespace", os.fspath(namespace)))
        if not isinstance(namespace, Namespace):
            raise SpecError("namespace", f"{WANTED}, not {type(namespace).__name__}")
        if not namespace.alive:
            raise DeadNamespace(f"this handle on {namespace} was closed.")
        path = namespace.path()
        if self._borrowed and "/fd/" in path:  # inside a user namespace a script may not open what this process holds
            path = ""
        self.do(Setns("namespace", namespace.kind, path), namespace=namespace)

    def _setns(self, path: str) -> None:
        if not path.startswith("/"):
            raise SpecError("namespace", f"{WANTED}, not {path!r}")
        link = _LINK.fullmatch(path)
        kind = link[1] if link else ""
        self._order("op", Setns("", kind, path))
        known = link and "self" not in path  # else it means something else to a script
        self._script.entries.append(Setns("", kind, path if known else ""))

    def sethostname(self, name: str) -> None:
        """Set the host name of its UTS namespace. sethostname(2)"""
        self.do(SetHostname(spec.text("name", name)))

    def setdomainname(self, name: str) -> None:
        """Set the NIS domain name of its UTS namespace. setdomainname(2)"""
        self.do(SetDomainname(spec.text("name", name)))

    def mount(
        self,
        source: str | None,
        target: str,
        fstype: str | None = None,
        flags: str | Iterable[str] = (),
        data: str | None = None,
    ) -> None:
        """mount(2); ``flags`` are names of MS_* bits: "MS_REC|MS_PRIVATE" or a list of them."""
        if not isinstance(flags, Iterable):
            raise SpecError("flags", f"must be names of MS_* bits, as 'MS_BIND|MS_REC', not {flags!r}")
        names = tuple(flags.replace("|", " ").split() if isinstance(flags, str) else flags)
        for name in names:
            if name not in decode.MOUNT_FLAGS:
                raise SpecError("flags", f"{name!r} is none of {', '.join(decode.MOUNT_FLAGS)}")
        for argument, value in (("source", source), ("fstype", fstype), ("data", data)):
            if value is not None:
                spec.text(argument, value)
        self.do(Mount(source, spec.text("target", target), fstype, names, data))

    def umount(self, target: str, *, detach: bool = False) -> None:
        """Take a mount off; ``detach`` at once, even while it is in use. umount(2)"""
        self.do(Umount(spec.text("target", target), detach))

    def pivot_root(self, new_root: str, put_old: str) -> None:
        """Swap the root mount. pivot_root(2)"""
        self.do(PivotRoot(spec.text("new_root", new_root), spec.text("put_old", put_old)))

    def chroot(self, path: str) -> None:
        """Change the root directory. chroot(2)"""
        self.do(Chroot(spec.text("path", path)))

    def chdir(self, path: str) -> None:
        """Change the working directory. chdir(2)"""
        self.do(Chdir(spec.text("path", path)))

    def setids(self, uid: int, gid: int, groups: Iterable[int] = ()) -> None:
        """Become another user: setgroups(2), setresgid(2), setresuid(2)."""
        if not isinstance(groups, Iterable):
            raise SpecError("groups", f"must be a list of numbers, not {groups!r}")
        for argument, numbers in (("uid", (uid,)), ("gid", (gid,)), ("groups", groups := tuple(groups))):
            for number in numbers:
                spec.number(argument, number, 0, spec.MAX_ID)
        self.do(SetIds(uid, gid, groups))

    def write(self, path: str, text: str) -> None:
        """Write ``text`` to an existing file, mostly one of /proc, with a single write(2)."""
        if not isinstance(text, str):
            raise SpecError("text", f"must be text (str), not {type(text).__name__}")
        self.do(WriteFile(spec.text("path", path), text))

    def read(self, path: str) -> str:
        """The text of a file as this process sees it."""
        text: str = self._order("read", spec.text("path", path))
        return text

    def fork(self, kinds: str | Iterable[str] = "", *, set_tid: Iterable[int] = ()) -> Process:
        """A copy of this process, steered on its own. fork(2)

        With ``kinds`` the copy is in new namespaces of these, at once; with ``set_tid`` it gets the PIDs that are chosen, one
        a level, from its own PID namespace upwards. Both by clone3, see clone(2); a new user namespace has no maps yet.
        """
        asked = spec.kinds(kinds, "kinds")
        chosen = spec.pids("set_tid", set_tid)
        leaves = "mnt" in asked and self._shares("mnt")
        mine, theirs = channel.pair()
        with theirs:
            number = self._order("fork", (flags_of(asked), chosen), {"channel": theirs})
        trace, script = Trace(), self._script.forked(asked, bool(chosen))
        trace.add_script(script)
        child = Process(mine, self, trace, script, self._borrowed)
        child._number = number
        if leaves:
            child.do(LEAVES)
        return child

    def wait(self, child: Process) -> int:
        """Wait until a child of this process, made by fork(), has ended; its return code. waitpid(2)"""
        if not isinstance(child, Process) or child._keeper is not self:
            raise SpecError("child", "must be a process that fork() of this one returned")
        return os.waitstatus_to_exitcode(self._order("wait", child._number))

    def kill(self, pid: int, number: int = signal.SIGTERM) -> None:
        """Send a signal to ``pid``, as this process numbers processes. kill(2)"""
        if number not in (0, *signal.valid_signals()):
            raise SpecError("number", f"{number!r} is no signal")
        self._order("kill", (spec.number("pid", pid, -(2**31), 2**31 - 1), int(number)))

    def getpid(self) -> int:
        """Its PID, as it sees it. getpid(2)"""
        pid: int = self._call(os.getpid)
        return pid

    def gethostname(self) -> str:
        """The host name that it sees. uname(2)"""
        return self._call(os.uname).nodename  # type: ignore[no-any-return]

    # -- running things -------------------------------------------------------------------------------------------------

    def run(
        self, command: spec.Command, *, input: str | bytes | None = None, timeout: float | None = None, check: bool = False,
        env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None, text: bool = True, stream: bool | Sink = False,
        max_output: int = running.MAX_OUTPUT,
    ) -> Result:  # fmt: skip
        """Run a command as a child of this process, and wait for it. See nslab.run for the options."""
        words = spec.argv(command)
        folder = spec.text("cwd", os.fspath(cwd) if isinstance(cwd, os.PathLike) else cwd) if cwd is not None else None
        work = Execute(words, spec.environment(env), folder)

        def start(fds: Mapping[str, Any]) -> Any:
            order = Order(self._sock, self.pid, self._root().pid)  # before it starts: it has to know who was there then
            order.spawner = self._root().spawner
            self._tell("run", work, fds)
            return order

        with self._lock, record(self.trace):
            result = running.complete(
                start, words, lone=False, input=input, timeout=timeout, check=check, text=text, stream=stream,
                max_output=max_output,
            )  # fmt: skip
        self._script.entries.append(work)
        return result

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a Python function in this very process (nslab.syscalls work there) and return its value."""
        value = self._call(function, args, kwargs)
        name = getattr(function, "__name__", type(function).__name__)
        self._script.entries.append(f"# no standard tool: {name}() was called in the process, as Python")
        return value

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        with channel.sealed(functions.dump(function, args, dict(kwargs or {}))) as payload:
            return functions.value(self._order("call", tuple(sys.path), {"function": payload}))

    # -- looking at it --------------------------------------------------------------------------------------------------

    _lone = False

    def _standing(self) -> Descriptor | None:
        return None if self._ended else self._pidfd

    def membership(self) -> Membership:
        """What a picture shows of it."""
        facts = {"host name": self.gethostname()}
        return self.namespaces.membership("steered process", ("user",) if self._borrowed else (), facts)

    def joinable(self) -> joining.Target:
        """What others join of it."""
        return joining.of_process(self.pid, self._standing())

    def _shares(self, kind: str) -> bool:
        return self.namespaces.ids()[kind] == machine_ids()[kind]

    def _root(self) -> Child:
        """The process that looks after this one and all that it starts."""
        return self._keeper if isinstance(self._keeper, Child) else self._keeper._root()

    def close(self) -> None:
        """End it, with what it started."""
        self._end(wait=True)

    def _end(self, *, wait: bool) -> None:
        if self._ended:
            return
        self._ended = True
        if isinstance(self._keeper, Child):
            self._sock.close()
            self._keeper.end()
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd.fileno(), signal.SIGKILL)
            self._sock.close()
            if wait:
                self._see_end(self._keeper)
        self._pidfd.close()

    def _see_end(self, parent: Process) -> None:
        """Wait for the end. A PID 1 ends only when all its members are buried, and those may be children of ``parent``."""
        deadline = time.monotonic() + 2
        while not self._pidfd.readable(0.01) and time.monotonic() < deadline and parent.alive:
            with contextlib.suppress(DeadNamespace):
                parent._order("bury")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._end(wait=False)  # it may come in the middle of an order

    def __repr__(self) -> str:
        if not self.alive:
            return "<Process, ended>"
        view = self.namespaces.membership("", (), {})
        own = ", ".join(f"{kind}:[{view.kinds[kind].ino}]" for kind in view.own)
        return f"<Process {self.pid}, {'own: ' + own if own else 'in the namespaces of the machine'}>"
