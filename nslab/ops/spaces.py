"""Making, joining and preparing namespaces."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nslab import syscalls
from nslab.errors import SyscallError
from nslab.model import KINDS, IdRange, flags_of
from nslab.model.words import shift
from nslab.ops.base import Context, Op
from nslab.syscalls import guard, nsfs
from nslab.syscalls.processes import CLONE_PARENT

WHY_DENY = "whoever has no privilege outside may write a gid_map only with setgroups denied"


@dataclass(frozen=True)
class IdMaps:
    """What is to be written to uid_map, gid_map and setgroups of a new user namespace, from outside.

    ``setgroups`` is "allow" or "deny"; ``helpers`` says that newuidmap(1) and newgidmap(1) write the maps, which an ordinary
    user needs for subordinate ids. ``caller`` is the uid and gid, outside, of whoever asks; ``asked``: for this setgroups too.
    """

    uid: tuple[IdRange, ...]
    gid: tuple[IdRange, ...]
    setgroups: str
    helpers: bool = False
    caller: tuple[int, int] = (0, 0)
    asked: bool = False

    @property
    def single(self) -> bool:
        """Whether it is the map that any user may write: root inside is oneself outside, and nobody else."""
        own = tuple((IdRange(0, number, 1),) for number in self.caller)
        return (self.uid, self.gid) == own and self.setgroups == "deny"

    def write(self, process: int | str) -> None:
        """Write them for a process in a new user namespace; "self" where they are single."""
        if self.setgroups == "deny":
            guard.implied("" if self.asked else WHY_DENY)
            syscalls.write_file(f"/proc/{process}/setgroups", "deny")
            guard.implied("")
        syscalls.write_file(f"/proc/{process}/uid_map", self.text(self.uid))
        syscalls.write_file(f"/proc/{process}/gid_map", self.text(self.gid))

    @staticmethod
    def text(ranges: tuple[IdRange, ...]) -> str:
        return "".join(f"{line.inside} {line.outside} {line.count}\n" for line in ranges)


@dataclass(frozen=True)
class NewNamespaces(Op):
    """A new process in new namespaces; ``maps`` belong to the user namespace, when there is a new one.

    Executed by the spawner or its standby with one clone3 or clone; every later op runs in the new process. What comes before
    it is joined by a process on the way, which then makes the new one as its sibling.
    """

    kinds: tuple[str, ...]
    maps: IdMaps | None = None

    @property
    def flags(self) -> int:
        """What clone(2) is asked for; a time namespace comes later (see NewTime)."""
        return flags_of(tuple(kind for kind in self.kinds if kind != "time"))

    def perform(self, context: Context) -> int:
        flags = self.flags | (CLONE_PARENT if context.aside else 0)
        cgroup = context.fds.get("cgroup", -1)
        try:
            return syscalls.clone3(flags, cgroup=cgroup)
        except SyscallError as error:
            if error.name not in ("ENOSYS", "EPERM") or cgroup >= 0:
                raise
            return syscalls.clone(flags)  # a seccomp filter that knows clone only

    def describe(self) -> str:
        return f"start a process in new namespaces: {', '.join(self.kinds)}"

    def shell(self) -> str:
        return " ".join(["unshare", *self._options()])

    def _options(self) -> list[str]:
        words = [KINDS[kind].unshare_option for kind in self.kinds if kind != "time"]  # that is for NewTime
        if "user" in self.kinds and self.maps and self.maps.single:
            words.append("--map-root-user")
        if "pid" in self.kinds:
            words += ["--fork", "--kill-child"]
        if "mnt" in self.kinds:
            words += ["--propagation", "unchanged"]
        return words

    def wrap(self, inner: str) -> str:
        if "user" not in self.kinds or not self.maps or self.maps.single:
            return f"{self.shell()} sh -c {shlex.quote(inner)}" if self._options() else f"sh -c {shlex.quote(inner)}"
        rest = tuple(kind for kind in self.kinds if kind not in ("user", "time"))
        within = NewNamespaces(rest).wrap(inner) if rest else f"sh -c {shlex.quote(inner)}"
        return f"{_held(self.maps)}\n{_entered(self.maps)} {within}\nkill $holder"


def _entered(maps: IdMaps) -> str:
    """nsenter into the user namespace of $holder, as root of it where there is one."""
    enter = "nsenter --target $holder --user"
    uid, gid = (any(line.inside == 0 for line in ranges) for ranges in (maps.uid, maps.gid))
    if not uid:
        return f"# no standard tool: with no uid 0 in the map, execve drops the capabilities\n{enter} --preserve-credentials"
    if gid and maps.setgroups == "allow":
        return enter  # it sets groups, gid and uid by itself
    return f"{enter} --preserve-credentials --setuid 0" + (" setpriv --regid 0 --keep-groups" if gid else "")


def _held(maps: IdMaps) -> str:
    """Shell lines that leave $holder, a sleeping process in a new user namespace with these maps."""
    lines = [
        "unshare --user sleep infinity & holder=$!",
        'until [ "$(readlink /proc/$holder/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do :; done',
    ]
    if maps.helpers:
        for tool, ranges in (("newuidmap", maps.uid), ("newgidmap", maps.gid)):
            numbers = " ".join(f"{line.inside} {line.outside} {line.count}" for line in ranges)
            lines.append(f"{tool} $holder {numbers}")
        return "\n".join(lines)
    if maps.setgroups == "deny":
        lines.append("echo deny > /proc/$holder/setgroups")
    for file, ranges in (("uid_map", maps.uid), ("gid_map", maps.gid)):
        text = "\\n".join(f"{line.inside} {line.outside} {line.count}" for line in ranges)
        lines.append(f"printf '{text}\\n' > /proc/$holder/{file}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Borrow(Op):
    """The user namespace in which all is made for an ordinary user. It is there before the plan runs, and shared."""

    maps: IdMaps
    path: str = ""  # where others find it; a plan that joins what belongs to it needs that very one

    def perform(self, context: Context) -> None:
        """Nothing: the spawner that runs this plan lives in it."""

    def describe(self) -> str:
        return "work inside the user namespace that nslab made for this user"

    def shell(self) -> str:
        return self._shown().shell()

    def wrap(self, inner: str) -> str:
        return self._shown().wrap(inner)

    def _shown(self) -> Op:
        return Setns("", "user", self.path) if self.path else NewNamespaces(("user",), self.maps)


# Since Linux 6.3 an execve(2) takes a process into the time namespace that its children are to be in.
_EXECVE_ENTERS = [*map(int, os.uname().release.split("-")[0].split(".")[:2])] >= [6, 3]


@dataclass(frozen=True)
class NewTime(Op):
    """An own time namespace for a process that exists: unshared, its offsets (in ns) written, then entered.

    A process that clone3 puts into a new time namespace is a member at once, and then no offset can be written any more. One
    whose memory is borrowed cannot enter, but what it starts does, by execve(2).
    """

    offsets: Mapping[str, int]

    def perform(self, context: Context) -> None:
        if not _EXECVE_ENTERS:
            context.own_memory()
        syscalls.unshare(KINDS["time"].flag)
        here = "/proc/self"
        if context.proc >= 0:  # it joined a mount table whose /proc may not know it, and begins at the root of that
            os.fchdir(context.proc)
            here = "self"
        try:
            self._enter(here, context.let_go >= 0)
        finally:
            if context.proc >= 0:
                os.chdir("/")

    def _enter(self, here: str, borrowed: bool) -> None:
        lines = [f"{clock} {offset // 10**9} {offset % 10**9}\n" for clock, offset in self.offsets.items() if offset]
        if lines:
            syscalls.write_file(f"{here}/timens_offsets", "".join(lines))
        if borrowed:
            return
        fd = os.open(f"{here}/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, KINDS["time"].flag, f"fd of {here}/ns/time_for_children")
        finally:
            os.close(fd)

    def describe(self) -> str:
        shifts = ", ".join(f"{clock} {shift(offset / 1e9)}" for clock, offset in self.offsets.items() if offset)
        return f"enter a new time namespace ({shifts or 'no offsets'})"

    def shell(self) -> str:
        return shifting("unshare --time --fork", self.offsets)

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} sh -c {shlex.quote(inner)}"


def shifting(command: str, offsets: Mapping[str, int]) -> str:
    """An unshare(1) of a time namespace that also writes the offsets (in ns): once it executes anything they are fixed."""
    shifts = "".join(f" --{clock} {offset // 10**9}" for clock, offset in offsets.items() if offset)
    odd = ", ".join(f"{clock} is {offset / 1e9:g} s" for clock, offset in offsets.items() if offset % 10**9)
    comment = f"# no standard tool: unshare(1) takes whole seconds; {odd}\n" if odd else ""
    return f"{comment}{command}{shifts}"


def _owns_its_time(pid: int) -> bool:
    """Whether the time namespace of a process belongs to its user namespace; else only who is outside of that can join it."""
    try:
        with open(f"/proc/{pid}/ns/time", "rb", 0) as time, open(fcntl.ioctl(time, nsfs.NS_GET_USERNS), "rb", 0) as owner:
            return os.path.samestat(os.fstat(owner.fileno()), os.stat(f"/proc/{pid}/ns/user"))
    except OSError:
        return False


@dataclass(frozen=True)
class Join(Op):
    """Join namespaces of a running process, all at once, through its pidfd (the descriptor named ``fd``).

    ``shared`` are those that were asked for and need no call, since one is in them anyway: for some kinds it would fail.
    """

    fd: str
    pid: int
    kinds: tuple[str, ...]
    shared: tuple[str, ...] = ()
    enters: ClassVar[bool] = True

    def perform(self, context: Context) -> None:
        kinds = self.kinds
        if "time" in kinds and context.let_go >= 0:  # setns(2) would say EUSERS
            if context.lend and _EXECVE_ENTERS and ("user" not in kinds or _owns_its_time(self.pid)):
                context.clock, kinds = self, tuple(kind for kind in kinds if kind != "time")
            else:
                context.own_memory()
        if kinds:
            syscalls.setns(context.fds[self.fd], flags_of(kinds), self.shown)

    @property
    def shown(self) -> str:
        """What a trace calls the descriptor."""
        return f"pidfd of PID {self.pid}"

    def describe(self) -> str:
        if self.shared and not self.kinds:
            return f"nothing to do to share these: {', '.join(self.shared)}"
        return f"join the namespaces of process {self.pid}: {', '.join(self.kinds) or 'none'}"

    def shell(self) -> str:
        options = [KINDS[kind].unshare_option for kind in self.kinds]
        if "user" in self.kinds:
            options.append("--preserve-credentials")
        return " ".join(["nsenter", "--target", str(self.pid), *options])

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} sh -c {shlex.quote(inner)}" if self.kinds else inner


@dataclass(frozen=True)
class Adopt(Op):
    """Adopt the orphans among one's descendants, as PID 1 does: what looks after a command without a PID namespace."""

    def perform(self, context: Context) -> None:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)

    def describe(self) -> str:
        return "adopt the orphans of what runs here, so that all of it can be ended"

    def shell(self) -> str:
        return "# no standard tool: prctl(PR_SET_CHILD_SUBREAPER), so that all that runs here can be ended"

    def wrap(self, inner: str) -> str:
        return f"{inner}\n{self.shell()}"  # what is left out is said last


@dataclass(frozen=True)
class Unshare(Op):
    """unshare(2) in the process itself; a new user namespace is left without maps."""

    kinds: tuple[str, ...]

    def perform(self, context: Context) -> None:
        syscalls.unshare(flags_of(self.kinds))

    def describe(self) -> str:
        return f"leave the shared namespaces for new ones: {', '.join(self.kinds)}"

    def shell(self) -> str:
        options = [KINDS[kind].unshare_option for kind in self.kinds]
        if "user" in self.kinds:
            options.append("--keep-caps")  # execve would drop them, as long as there is no map
        if "mnt" in self.kinds:
            options += ["--propagation", "unchanged"]
        return " ".join(["unshare", *options])

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} sh -c {shlex.quote(inner)}"


@dataclass(frozen=True)
class Setns(Op):
    """setns(2): join the namespace behind the descriptor named ``fd``, or behind ``path`` where ``fd`` is "".

    ``kind`` "" takes whatever kind it is.
    """

    fd: str
    kind: str = ""
    path: str = ""
    enters: ClassVar[bool] = True

    def perform(self, context: Context) -> None:
        flag = KINDS[self.kind].flag if self.kind else 0
        fd = context.fds[self.fd] if self.fd else syscalls.open_namespace(self.path)
        try:
            syscalls.setns(fd, flag, f"fd of {self.path}" if self.path else "")
        finally:
            if not self.fd:
                os.close(fd)

    def describe(self) -> str:
        return f"join the {self.kind or 'given'} namespace {self.path}".rstrip()

    def shell(self) -> str:
        if not self.path or not self.kind:
            return "# no standard tool: setns() of a namespace that only a descriptor holds"
        return Nsenter((self,)).shell()

    def wrap(self, inner: str) -> str:
        return Nsenter((self,)).wrap(inner) if self.path and self.kind else f"{self.shell()}\n{inner}"


@dataclass(frozen=True)
class Nsenter(Op):
    """Several Setns as one command: only a script has it."""

    joins: tuple[Any, ...]

    def shell(self) -> str:
        options = [f"{KINDS[op.kind].unshare_option}={op.path}" for op in self.joins]
        keep = ["--preserve-credentials"] if any(op.kind == "user" for op in self.joins) else []
        return shlex.join(["nsenter", *options, *keep])

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} sh -c {shlex.quote(inner)}"


@dataclass(frozen=True)
class WriteFile(Op):
    """One write(2) to an existing file, mostly of /proc. What belongs to the whole machine is refused."""

    path: str
    text: str

    def execute(self, context: Context) -> Any:
        if kind := syscalls.owner_of(self.path):
            context.must_own(kind, f"writing {self.path}")
        return Op.execute(self, context)

    def perform(self, context: Context) -> int:
        return syscalls.write_file(self.path, self.text)

    def describe(self) -> str:
        return f"write {self.text!r} to {self.path}"

    def shell(self) -> str:
        path = self.path.replace("/proc/self/", "/proc/$$/") if self.path.startswith("/proc/self/") else shlex.quote(self.path)
        return f"printf %s {shlex.quote(self.text)} > {path}"
