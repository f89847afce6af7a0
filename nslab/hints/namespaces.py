"""New namespaces, and those that are there: unshare, clone3, setns, open, sethostname."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EACCES, EAGAIN, EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, ENOSYS, EPERM, ESRCH, EUSERS
from typing import Any

from nslab import procfs
from nslab.hints.facts import CAP_SYS_ADMIN, TOO_MANY, dead_init, filtered, has, restricted
from nslab.model import KINDS

DEPTH = {"user": 33, "pid": 32}  # levels below the initial namespace, kernel 6.18; user_namespaces(7) says 32


def _unknown(kinds: list[str]) -> str:
    return (
        f"this kernel has no namespaces of kind {', '.join(kinds)}: it is older than they are, or was built without.\n"
        "what to do: ask for others; ls /proc/self/ns, where a /proc is mounted, lists what there is. namespaces(7)"
    )


def unshare(errno: int, **facts: Any) -> str:
    return new(errno, verb="unshare", **facts)


def new(errno: int, flags: int = 0, set_tid: Sequence[int] = (), verb: str = "fork", **_: Any) -> str:
    """unshare and clone3; ``verb`` is the method of a steered process that makes the call."""
    kinds = _kinds(flags)
    if set_tid and (hint := _chosen(errno, kinds, set_tid)):
        return hint
    if errno == EINVAL and os.path.exists("/proc/self/ns") and (lacking := _lacking(kinds)):
        return _unknown(lacking)
    if errno == EINVAL and "user" in kinds and procfs.threads() > 1:
        return _threads("a user namespace", "unshared")
    if errno == EINVAL and "pid" in kinds and _pid_for_children_differs():
        return (
            "this process asked for a new PID namespace before, and only once is allowed: its next children go there.\n"
            "what to do: fork, and ask again in the child."
        )
    if errno == EINVAL and "pid" in kinds:
        return (
            "the PID namespace around belongs to a user namespace that is not above the caller, so nobody out here "
            "makes one inside it.\nwhat to do: join that user namespace too, join={'user pid': ...}. pid_namespaces(7)"
        )
    if errno == EUSERS:
        return _threads("a time namespace", "entered")
    if errno == ENOSPC:
        return _limits(kinds)
    if errno == ENOSYS:
        return "this kernel, or a seccomp filter around this process (Seccomp in /proc/self/status), does not know the call."
    if errno == ENOMEM:
        return dead_init()
    if flags & 1 << 33 and errno in (EACCES, EBUSY):
        return (
            "the cgroup takes no process from here: another user's, or one with controllers enabled for those below. cgroups(7)"
        )
    if errno == EAGAIN:
        return TOO_MANY
    if errno == EPERM and "user" in kinds:
        return _user_refused()
    if errno == EPERM and kinds and has(CAP_SYS_ADMIN):
        return filtered() or restricted()
    if errno == EPERM and kinds:
        return (
            f"a new namespace of kind {', '.join(kinds)} needs CAP_SYS_ADMIN in the caller's user namespace, and the caller "
            f"(uid {os.geteuid()}) lacks it.\nwhat to do: ask for a user namespace in the same call, whose creator holds "
            f"every capability inside: {verb}('user {' '.join(kinds)}'), isolate='user {' '.join(kinds)}'. user_namespaces(7)"
        )
    if errno == EINVAL and "time" in kinds:  # with no /proc in sight: nothing else makes this fail
        return _unknown(["time"])
    return ""


def _chosen(errno: int, kinds: Sequence[str], numbers: Sequence[int]) -> str:
    """clone3 with PIDs that were chosen."""
    if errno == EEXIST:
        return f"one of the PIDs {list(numbers)} belongs to a process, a process group or a session already."
    if errno == EINVAL:
        levels = len(procfs.numbers()) + ("pid" in kinds)
        if len(numbers) > levels:
            return f"{len(numbers)} PIDs were chosen; as /proc shows it the new process is in {levels} PID namespaces. clone(2)"
        if "pid" in kinds and numbers[0] != 1:
            return "the first process of a PID namespace is PID 1; PIDs go from the innermost namespace outwards. clone(2)"
        return "each PID must be below pid_max (/proc/sys/kernel/pid_max), and the first one of a PID namespace is 1. clone(2)"
    if errno == EPERM and (not kinds or "user" in kinds or has(CAP_SYS_ADMIN)):
        return (
            "choosing a PID needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespace that owns each of the PID "
            "namespaces concerned.\nwhat to do: choose only the inner ones: set_tid may be shorter. clone(2)"
        )
    return ""


def _pid_for_children_differs() -> bool:
    try:
        return procfs.namespace("self", "pid") != procfs.namespace("self", "pid_for_children")
    except FileNotFoundError:  # dangling until the first child exists
        return True


def _limits(kinds: list[str]) -> str:
    lines = []
    for kind in kinds:
        path = f"sys/user/max_{kind}_namespaces"
        limit = int(procfs.read(path))
        lines.append(f"/proc/{path} is {limit}")
    depth = [f"{kind} namespaces nest at most {DEPTH[kind]} deep" for kind in kinds if kind in DEPTH]
    return (
        f"this is a limit on namespaces: {'; '.join(lines + depth)} (the limits of every user namespace above count too).\n"
        "what to do: end namespaces that are no longer used, nest less deep, or let root raise the limit. namespaces(7)"
    )


def _user_refused() -> str:
    chroot = "a process in a chroot may not make a user namespace"
    if not os.path.exists("/proc/self"):
        return f"{chroot}, and this one, which finds no /proc here, seems to be in one. user_namespaces(7)"
    if (sysctl := restricted()) and not has(CAP_SYS_ADMIN):
        return sysctl
    if not all(procfs.id_map("self", which) for which in ("uid", "gid")):
        return (
            "the caller's own ids are not mapped in the user namespace that it is in, so it may not make another one.\n"
            "what to do: write uid_map and gid_map first. user_namespaces(7)"
        )
    return filtered() or f"{chroot}, nor one that a security module stops. user_namespaces(7)"


def setns(errno: int, flags: int = 0, fd: int = -1, **_: Any) -> str:
    kinds = _kinds(flags)
    if errno == EUSERS:
        return _threads("a time namespace", "entered")
    if errno == EINVAL and os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user")):
        return "the caller is in that user namespace already, and joining it again is refused. setns(2)"
    if errno == EINVAL and procfs.threads() > 1:
        return _threads("this namespace (user, mount or time)", "entered")
    if errno == EINVAL and not flags and "pidfd" in os.readlink(f"/proc/self/fd/{fd}"):
        return "through a pidfd one joins the namespaces that the flags name, and here they name none. setns(2)"
    if errno == EINVAL and kinds == ["pid"]:
        return "a process can move its children down the tree of PID namespaces, never up. setns(2)"
    if errno == EINVAL:
        return "what was opened is no namespace, or one of another kind. setns(2)"
    if errno == ESRCH:
        return "the process whose namespaces were to be joined has ended."
    if errno == EPERM:
        return (
            "joining needs CAP_SYS_ADMIN in the user namespace that owns the target, and for most kinds in the caller's own; "
            "an ancestor or sibling user namespace can never be joined.\nwhat to do: join from where it was made. setns(2)"
        )
    return ""


def opened(errno: int, path: str = "", **_: Any) -> str:
    """Of a namespace."""
    if errno == ENOENT:
        return f"there is no {path} where this process looks: the process has ended, its /proc is another, or it is no kind."
    if errno in (EACCES, EPERM):
        return (
            "namespaces of a process are open to whoever may trace it: the same user, with privilege in its user namespace.\n"
            "what to do: give the namespace itself, as setns(web.namespaces['uts']). namespaces(7)"
        )
    return ""


def sethostname(errno: int, name: bytes = b"", **_: Any) -> str:
    if errno == EINVAL:
        return f"the name has {len(name)} bytes; the kernel takes at most 64. sethostname(2)"
    if errno == EPERM:
        return (
            "the UTS namespace of this process belongs to a user namespace in which it lacks CAP_SYS_ADMIN.\n"
            "what to do: make a UTS namespace of one's own first: unshare('uts'), as an ordinary user unshare('user uts')."
        )
    return ""


def _kinds(flags: int) -> list[str]:
    return [kind.name for kind in KINDS.values() if flags & kind.flag]


def _threads(kinds: str, rule: str) -> str:
    return (
        f"the caller has {procfs.threads()} threads; {kinds} can only be {rule} by a single-threaded process.\n"
        "what to do: let nslab do it in a process of its own: nslab.run(), nslab.Container or nslab.process()."
    )


def _lacking(kinds: list[str]) -> list[str]:
    return [kind for kind in kinds if not os.path.exists(f"/proc/self/ns/{kind}")]
