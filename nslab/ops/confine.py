"""What a process gives up before it becomes a command of somebody else. Ops of ``hardened=True``, loaded for it only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nslab import syscalls
from nslab.errors import SyscallError
from nslab.ops.base import Context, Op
from nslab.ops.ids import SetIds, as_one_command
from nslab.syscalls import confine


@dataclass(frozen=True)
class NewKeyring(Op):
    """An empty session keyring: keys belong to no namespace, and are inherited like descriptors. keyrings(7)"""

    def perform(self, context: Context) -> None:
        try:
            confine.join_session_keyring()
        except SyscallError as error:
            if error.name not in ("ENOSYS", "EPERM"):
                raise
            # The kernel has no keys, or a filter around us lets nobody below near them: there is nothing to leave behind.

    def describe(self) -> str:
        return "leave the session keyring for an empty one"

    def shell(self) -> str:
        return "# no standard tool: keyctl(KEYCTL_JOIN_SESSION_KEYRING), an empty session keyring"


@dataclass(frozen=True)
class Limit(Op):
    """Limits of resources, soft and hard, by their names in getrlimit(2); one that is lower already stays."""

    most: Mapping[str, int] = field(default_factory=dict)

    def perform(self, context: Context) -> None:
        for which, number in self.most.items():
            confine.setrlimit(which, number)

    def describe(self) -> str:
        return "limit " + ", ".join(f"{which} to {number}" for which, number in self.most.items())

    def shell(self) -> str:
        options = [f"--{which.removeprefix('RLIMIT_').lower()}={number}" for which, number in self.most.items()]
        return " ".join(["prlimit --pid $$", *options])


@dataclass(frozen=True)
class DropCapabilities(Op):
    """Empty all five sets of capabilities, and become another user on the way, which takes two of them."""

    become: SetIds | None = None

    def perform(self, context: Context) -> None:
        confine.capbset_drop_all()
        if self.become:
            self.become.perform(context)
        syscalls.prctl(confine.PR_CAP_AMBIENT, confine.PR_CAP_AMBIENT_CLEAR_ALL)
        confine.capset_none()

    def describe(self) -> str:
        return "give up every capability" + (f", and {self.become.describe()}" if self.become else "")

    def shell(self) -> str:
        start = self.become.shell() if self.become else "setpriv"
        return f"{start} --bounding-set=-all --inh-caps=-all --ambient-caps=-all"

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} {as_one_command(inner)}"


@dataclass(frozen=True)
class NoNewPrivileges(Op):
    """No execve gives this process or its children more than they have: setuid files and file capabilities are void."""

    def perform(self, context: Context) -> None:
        syscalls.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)

    def describe(self) -> str:
        return "let no program gain privileges any more (no_new_privs)"

    def shell(self) -> str:
        return "setpriv --no-new-privs"

    def wrap(self, inner: str) -> str:
        return f"{self.shell()} {as_one_command(inner)}"


@dataclass(frozen=True)
class Seccomp(Op):
    """Refuse system calls by a list; ``program`` is the filter that nslab.ops.seccomp has assembled from it."""

    program: bytes = field(repr=False)

    def perform(self, context: Context) -> None:
        confine.seccomp(self.program)

    def describe(self) -> str:
        return f"refuse the system calls of a list (a seccomp filter of {len(self.program) // 8} instructions)"

    def shell(self) -> str:
        return (
            "# no standard tool: seccomp(2) with nslab.ops.seccomp.program(); setpriv --seccomp-filter from util-linux 2.41 on"
        )


@dataclass(frozen=True)
class NotDumpable(Op):
    """Until execve nobody inside may look at this process, its memory or its descriptors, nor at its children's."""

    def perform(self, context: Context) -> None:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)

    def describe(self) -> str:
        return "hide memory and descriptors of this process from everybody inside"

    def shell(self) -> str:
        return "# no standard tool: prctl(PR_SET_DUMPABLE, 0), which holds until the execve of the command"

    def wrap(self, inner: str) -> str:
        return inner  # the command is as it would be without
