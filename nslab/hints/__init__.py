"""Errors that teach: what an errno means for this call, for this caller, at this moment.

``explain()`` runs in the process that failed, right after it did, and may look at /proc/self. Every hint says the rule,
the fact that broke it, and what to do. An empty string means that the errno says it all.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EBUSY,
    EDQUOT,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    ENAMETOOLONG,
    ENODEV,
    ENOENT,
    ENOEXEC,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    EPERM,
    ERANGE,
    EROFS,
    ESRCH,
    EUSERS,
)  # fmt: skip
from typing import Any

from nslab import procfs
from nslab.hints.ipc import explain_ipc
from nslab.model import KINDS

TOO_MANY = "there are as many processes as there may be: a limit on pids of the cgroup (pids.max), or ulimit -u. fork(2)"
CAP_SETFCAP, CAP_SYS_ADMIN = 31, 21
MS_REMOUNT = 0x20
_INITIAL_TIME = 0xEFFFFFFA  # the inode of the time namespace that the machine was started with
DEPTH = {"user": 33, "pid": 32}  # levels below the initial namespace, kernel 6.18; user_namespaces(7) says 32


def explain(call: str, errno: int, **facts: Any) -> str:
    """The hint for ``call`` having failed with ``errno``; ``facts`` are the raw arguments by name."""
    if call.startswith("RTM_"):
        from nslab.hints.network import explain_network  # the spawner has no need of it

        return explain_network(call, errno, **facts)
    rule = _RULES.get(call)
    try:
        return rule(errno, **facts) if rule else explain_ipc(call, errno, **facts)
    except (OSError, ValueError, KeyError):  # /proc hidden or masked: no facts, no hint
        return ""


def _kinds(flags: int) -> list[str]:
    return [kind.name for kind in KINDS.values() if flags & kind.flag]


def _has(capability: int) -> bool:
    return bool(procfs.capabilities() >> capability & 1)


def _threads(kinds: str, rule: str) -> str:
    return (
        f"the caller has {procfs.threads()} threads; {kinds} can only be {rule} by a single-threaded process.\n"
        "what to do: let nslab do it in a process of its own: nslab.run(), nslab.Container or nslab.process()."
    )


def _lacking(kinds: list[str]) -> list[str]:
    return [kind for kind in kinds if not os.path.exists(f"/proc/self/ns/{kind}")]


def _unshare(errno: int, **facts: Any) -> str:
    return _new(errno, verb="unshare", **facts)


def _new(errno: int, flags: int = 0, set_tid: Sequence[int] = (), verb: str = "fork", **_: Any) -> str:
    """unshare and clone3; ``verb`` is the method of a steered process that makes the call."""
    kinds = _kinds(flags)
    if set_tid and (hint := _chosen(errno, kinds, set_tid)):
        return hint
    if errno == EINVAL and os.path.exists("/proc/self/ns") and (lacking := _lacking(kinds)):
        return (
            f"this kernel has no namespaces of kind {', '.join(lacking)}: it is older than they are, or was built without.\n"
            "what to do: ask for others; ls /proc/self/ns lists what there is. namespaces(7)"
        )
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
        return _dead_init()
    if flags & 1 << 33 and errno in (EACCES, EBUSY):
        return (
            "the cgroup takes no process from here: another user's, or one with controllers enabled for those below. cgroups(7)"
        )
    if errno == EAGAIN:
        return TOO_MANY
    if errno == EPERM and "user" in kinds:
        return _user_refused()
    if errno == EPERM and kinds and _has(CAP_SYS_ADMIN):
        return _filtered() or _restricted()
    if errno == EPERM and kinds:
        return (
            f"a new namespace of kind {', '.join(kinds)} needs CAP_SYS_ADMIN in the caller's user namespace, and the caller "
            f"(uid {os.geteuid()}) lacks it.\nwhat to do: ask for a user namespace in the same call, whose creator holds "
            f"every capability inside: {verb}('user {' '.join(kinds)}'), isolate='user {' '.join(kinds)}'. user_namespaces(7)"
        )
    if errno == EINVAL and "time" in kinds:
        return "clone3 with CLONE_NEWTIME and CLONE_VM do not go together. time_namespaces(7)"
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
    if errno == EPERM and (not kinds or "user" in kinds or _has(CAP_SYS_ADMIN)):
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


def _dead_init() -> str:
    try:
        inode = os.readlink("/proc/self/ns/pid_for_children")
    except OSError:
        inode = "the PID namespace made for children"
    return (
        f"the init (PID 1) of {inode} has ended, and a PID namespace without init takes no new process; memory is not the "
        "matter.\nwhat to do: make a new PID namespace. pid_namespaces(7)"
    )


def _filtered() -> str:
    if procfs.status().get("Seccomp") == "2":
        return (
            "a seccomp filter around this process refuses it (Seccomp: 2 in /proc/self/status), as container engines do. "
            "nslab.doctor() says what lifts that, and how to have a Linux kernel of your own, which needs none of it."
        )
    return ""


def _restricted() -> str:
    """By which sysctl root keeps ordinary users from user namespaces here, "" for none."""
    for path, blocked, name in (
        ("sys/kernel/apparmor_restrict_unprivileged_userns", b"1", "AppArmor restricts user namespaces"),
        ("sys/kernel/unprivileged_userns_clone", b"0", "ordinary users may not make user namespaces"),
    ):
        try:
            if procfs.read(path).strip() == blocked:
                return f"{name} here: /proc/{path} is {blocked.decode()}.\nwhat to do: root can change that sysctl."
        except FileNotFoundError:
            continue
    return ""


def _user_refused() -> str:
    chroot = "a process in a chroot may not make a user namespace"
    if not os.path.exists("/proc/self"):
        return f"{chroot}, and this one, which finds no /proc here, seems to be in one. user_namespaces(7)"
    if (sysctl := _restricted()) and not _has(CAP_SYS_ADMIN):
        return sysctl
    if not all(procfs.id_map("self", which) for which in ("uid", "gid")):
        return (
            "the caller's own ids are not mapped in the user namespace that it is in, so it may not make another one.\n"
            "what to do: write uid_map and gid_map first. user_namespaces(7)"
        )
    return _filtered() or f"{chroot}, nor one that a security module stops. user_namespaces(7)"


def _setns(errno: int, flags: int = 0, fd: int = -1, **_: Any) -> str:
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


def _open(errno: int, path: str = "", **_: Any) -> str:
    """Of a namespace."""
    if errno == ENOENT:
        return f"there is no {path} where this process looks: the process has ended, its /proc is another, or it is no kind."
    if errno in (EACCES, EPERM):
        return (
            "namespaces of a process are open to whoever may trace it: the same user, with privilege in its user namespace.\n"
            "what to do: give the namespace itself, as setns(web.namespaces['uts']). namespaces(7)"
        )
    return ""


def _sethostname(errno: int, name: bytes = b"", **_: Any) -> str:
    if errno == EINVAL:
        return f"the name has {len(name)} bytes; the kernel takes at most 64. sethostname(2)"
    if errno == EPERM:
        return (
            "the UTS namespace of this process belongs to a user namespace in which it lacks CAP_SYS_ADMIN.\n"
            "what to do: make a UTS namespace of one's own first: unshare('uts'), as an ordinary user unshare('user uts')."
        )
    return ""


def _id_map(errno: int, path: str = "", text: str = "", **_: Any) -> str:
    which = path.rsplit("/", 1)[-1].removesuffix("_map")
    pid = path.split("/")[2]
    if errno == EINVAL:
        return (
            "a line is three numbers, INSIDE OUTSIDE COUNT with COUNT above 0; no two lines may overlap on either side; at "
            "most 340 lines, in one write of less than a page; every OUTSIDE must be mapped here. user_namespaces(7)"
        )
    if errno not in (EPERM, EACCES):
        return ""
    current = procfs.id_map(pid, which)
    if current:
        shown = "; ".join(" ".join(map(str, line)) for line in current)
        return f"this map has been written before (it is now: {shown}), and a map can be written only once."
    lines = [line.split() for line in text.splitlines() if line.strip()]
    outside = {int(line[1]) for line in lines}
    effective = os.geteuid() if which == "uid" else os.getegid()
    if not _has(CAP_SETFCAP) and which == "uid" and 0 in outside and _has(CAP_SYS_ADMIN):
        return "mapping uid 0 of the parent needs CAP_SETFCAP there (since Linux 5.12), and the writer lacks it."
    alone = len(lines) == 1 and lines[0][2:] == ["1"]
    if which == "gid" and alone and procfs.setgroups(pid) == "allow":
        return (
            "an ordinary user must give up setgroups(2) before gid_map may be written.\n"
            "what to do: write 'deny' to /proc/self/setgroups first. user_namespaces(7)"
        )
    if alone and (sysctl := _restricted()):
        return sysctl
    return (
        "without privilege in the parent user namespace a map may hold one line only, of length 1, that maps one's own "
        f"{which} ({effective} as this process sees itself now).\n"
        f"what to do: 'INSIDE OWN-{which.upper()} 1', or newuidmap with a subordinate range. user_namespaces(7)"
    )


def _write(errno: int, path: str = "", text: str = "", **facts: Any) -> str:
    name = path.rsplit("/", 1)[-1]
    if name in ("uid_map", "gid_map"):
        return _id_map(errno, path=path, text=text, **facts)
    if name == "setgroups" and errno == EPERM:
        return (
            "setgroups can be denied only before gid_map is written, and once denied stays so, for every user namespace below "
            "as well. user_namespaces(7)"
        )
    if name == "cgroup.subtree_control" and errno == EBUSY:
        return (
            "a cgroup with processes in it enables no controller for those below: processes belong into leaves.\n"
            "what to do: move them into a cgroup below first, or end what uses the controller there. cgroups(7)"
        )
    if name == "timens_offsets" and errno in (EACCES, EPERM) and _is_initial_time(path):
        return (
            "this is the time namespace that the machine was started with, whose clocks nobody can shift.\n"
            "what to do: unshare('time') first, then write the offsets, then start the children. time_namespaces(7)"
        )
    if name == "timens_offsets" and errno == EACCES:
        return (
            "the offsets are fixed as soon as the first process is in the new time namespace: too late.\n"
            "what to do: write them after unshare('time') and before the first child. time_namespaces(7)"
        )
    if name == "timens_offsets" and errno == ERANGE:
        return (
            f"with this offset a clock would become negative, or show more than {2**63 // 10**9 // 2} s (146 years); now "
            f"monotonic is {time.clock_gettime(time.CLOCK_MONOTONIC):.0f} s and boottime "
            f"{time.clock_gettime(time.CLOCK_BOOTTIME):.0f} s.\nwhat to do: an offset above minus that. time_namespaces(7)"
        )
    if name == "timens_offsets" and errno == EINVAL:
        return (
            "a line is CLOCK SECONDS NANOSECONDS, with CLOCK monotonic (or 1) or boottime (or 7), and nanoseconds from 0 to "
            "999999999: -0.5 s is '-1 500000000'. time_namespaces(7)"
        )
    if name == "timens_offsets" and errno == EPERM:
        return "offsets need CAP_SYS_TIME in the user namespace that owns the time namespace. time_namespaces(7)"
    return _sysctl(errno, path) if path.startswith("/proc/sys/") else _path(errno, path)


def _is_initial_time(path: str) -> bool:
    """Whether the children of this process are to be in the machine's first time namespace, which has a fixed number."""
    try:
        return os.stat(f"{os.path.dirname(path)}/ns/time_for_children").st_ino == _INITIAL_TIME
    except OSError:
        return False


def _read(errno: int, path: str = "", **_: Any) -> str:
    return _sysctl(errno, path) if path.startswith("/proc/sys/") and errno == ENOENT else _path(errno, path)


def _sysctl(errno: int, path: str) -> str:
    name = path.removeprefix("/proc/sys/")
    if errno == EINVAL and name == "net/ipv4/ping_group_range":
        mapped = "; ".join(f"{line.inside} to {line.inside + line.count - 1}" for line in procfs.id_map("self", "gid"))
        return f"both group ids must be mapped in the user namespace that owns the network namespace, which has {mapped}."
    if errno == EINVAL:
        return f"{name} does not take this value: it is out of its range, or no number."
    if errno == ENOENT:
        return f"there is no {name} in this namespace: only the initial one has it, or a module is not loaded."
    if errno in (EACCES, EPERM) and not os.stat(path).st_mode & 0o222:
        return f"{name} can only be read in this namespace: it is a setting of the whole machine."
    if errno in (EACCES, EPERM):
        return f"writing {name} needs to be root in the user namespace that owns this namespace."
    if errno == EROFS:
        return "/proc/sys is mounted read-only here, as a hardened container has it."
    return ""


def _mount(errno: int, fstype: str = "", target: str = "", source: str = "", flags: int = 0, **_: Any) -> str:
    if errno == EPERM and fstype == "proc":
        covers = procfs.covered("/proc")
        return _masked(covers) if covers else "a new /proc needs a PID namespace that the caller's user namespace owns."
    needs = {"mqueue": "ipc", "sysfs": "net", "cgroup2": "cgroup", "cgroup": "cgroup"}
    if errno == EPERM and fstype in needs:
        return f"{fstype} can be mounted only with an own {needs[fstype]} namespace (isolate='... {needs[fstype]}')."
    if errno == EPERM and flags & MS_REMOUNT:
        return (
            "a mount that came from a more privileged mount namespace stays read-only, nosuid, nodev and noexec where it was "
            "so, and any remount needs CAP_SYS_ADMIN in the user namespace that owns this mount namespace. mount_namespaces(7)"
        )
    if errno == EPERM:
        return (
            "mounting needs CAP_SYS_ADMIN in the user namespace that owns this mount namespace, and in a user namespace "
            "only some filesystem types may be mounted.\nwhat to do: unshare('mnt') first. mount_namespaces(7)"
        )
    if errno == ENODEV:
        return f"this kernel has no filesystem type {fstype!r}: see /proc/filesystems."
    if errno == ENOENT:
        missing = [path for path in (target, source) if path.startswith("/") and not os.path.exists(path)]
        return f"there is no {' and no '.join(missing)}; a mount point must exist." if missing else ""
    if errno == ENOTDIR:
        return "a directory can be mounted on a directory only, a file on a file."
    if errno == EBUSY:
        return f"{target} is in use, or that filesystem is mounted there already."
    return ""


def _openat2(errno: int, folder: int = -1, path: str = "", **_: Any) -> str:
    """A place in a container, below the descriptor ``folder`` of its root."""
    if errno == ELOOP:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            place = "/".join(parts[:count])
            if stat.S_ISLNK(os.stat(place, dir_fd=folder, follow_symlinks=False).st_mode):
                leads = os.readlink(place, dir_fd=folder)
                return (
                    f"/{place} is a symlink there, to {leads}, and a place in a container is not reached through one.\n"
                    "what to do: name the place itself. openat2(2)"
                )
    return ""


def _umount(errno: int, target: str = "", **_: Any) -> str:
    if errno == EBUSY:
        return (
            f"{target} is in use: something is mounted below it, or is open or the working directory of a process.\n"
            "what to do: end that, or take it off with detach=True, which lets it go once nobody uses it. umount(2)"
        )
    if errno == EINVAL:
        return (
            f"{target} is no mount point here, or one that came from a more privileged mount namespace and is locked. "
            "mount_namespaces(7)"
        )
    return ""


def _masked(covers: list[str]) -> str:
    return (
        "a fresh /proc may be mounted in a user namespace only where the /proc that is there can be seen whole; here it is "
        f"partly covered by mounts on {', '.join(covers) or '(unknown)'}.\n"
        "what to do: keep the old view with proc='old', or ask for a container whose /proc is not masked. proc(5)"
    )


def _pivot_root(errno: int, new_root: str = "", put_old: str = "", **_: Any) -> str:
    if errno == ENOENT:
        return f"{new_root} or {put_old} does not exist."
    if errno == ENOTDIR:
        return f"{new_root} and {put_old} must be folders."
    if errno == EPERM:
        return "pivot_root needs CAP_SYS_ADMIN in the user namespace that owns this mount namespace. pivot_root(2)"
    if errno not in (EBUSY, EINVAL):
        return ""
    try:
        failed = _preconditions(os.path.realpath(new_root), os.path.realpath(put_old))
    except OSError:  # there is no /proc in sight
        failed = [
            "the current root must be a mount point (not the folder of a chroot), the new one too, the place of the old one at "
            "or below that, and neither may have shared propagation."
        ]
    return "\n".join(failed or [f"a mount at {new_root} is locked, or not of this mount namespace."]) + " pivot_root(2)"


def _preconditions(new_root: str, put_old: str) -> list[str]:
    """What pivot_root asks for and does not find, each with what to do."""
    mounts = {mount.target: mount for mount in procfs.mountinfo()}
    root, new = mounts.get("/"), mounts.get(new_root)
    failed = []
    if root is None:
        failed.append("the current root must be a mount point, not the folder of a chroot.\nwhat to do: pivot_root first.")
    if new_root == "/" or _mount_of(new_root) == _mount_of("/"):
        failed.append(f"{new_root} is on the same mount as the current root.\nwhat to do: bind mount it on itself first.")
    elif new is None:
        failed.append(f"{new_root} is no mount point.\nwhat to do: bind mount it on itself first.")
    if os.path.commonpath([new_root, put_old]) != new_root:
        failed.append(f"{put_old} must be at or below {new_root}.\nwhat to do: pivot_root('.', '.') from there.")
    by_id = {mount.id: mount for mount in mounts.values()}
    parents = [by_id.get(mount.parent) for mount in (root, new) if mount]
    shared = [mount.target for mount in (new, *parents) if mount and "shared" in mount.peers]
    if shared:
        failed.append(f"{shared[0]} has shared propagation: the change would travel.\nwhat to do: make it private first.")
    return failed


def _mount_of(path: str) -> bytes:
    """The id of the mount that a path is on, as a line of fdinfo."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return next(line for line in procfs.read(f"self/fdinfo/{fd}").splitlines() if line.startswith(b"mnt_id:"))
    finally:
        os.close(fd)


def _setgroups(errno: int, **_: Any) -> str:
    if errno == EPERM and procfs.setgroups() == "deny":
        return "/proc/self/setgroups says deny in this user namespace, for good. user_namespaces(7)"
    return "setgroups needs CAP_SETGID, and a gid_map written before. user_namespaces(7)" if errno == EPERM else ""


def _setid(errno: int, **_: Any) -> str:
    if errno == EINVAL:
        return (
            "that id is not mapped in this user namespace: see /proc/self/uid_map and gid_map.\n"
            "what to do: map it when the user namespace is made: uid_map='subordinate', or lines. user_namespaces(7)"
        )
    return "changing to another id needs CAP_SETUID or CAP_SETGID in this user namespace." if errno == EPERM else ""


def _execve(errno: int, path: str = "", root: str = "", **_: Any) -> str:
    where = f"in the root filesystem {root}" if root else "here"
    if errno == ENOENT and os.path.exists(path):
        return f"{path!r} is {where}, but not the interpreter (after #!) or loader (ld.so) that it names."
    if errno == ENOENT:
        return f"there is no program {path!r} {where}{'' if '/' in path else ', in no folder of PATH'}."
    if errno == EACCES and os.path.isdir(path):
        return f"{path!r} is a folder, not a program."
    if errno == EACCES:
        return (
            f"{path!r} is not an executable file, or lies on a mount with noexec.\n"
            f"what to do: chmod +x, or name the program that reads it: ['sh', {path!r}]."
        )
    if errno == ENOEXEC:
        return f"{path!r} is neither a binary for this machine nor a script that begins with #!."
    if errno == ENAMETOOLONG:
        return "a path or name is too long."
    if errno == E2BIG:
        return (
            "the words and the environment of a command are at most a quarter of the limit of its stack (ulimit -s), and each "
            "at most 128 kB.\nwhat to do: give what is long as input=, or in a file. execve(2)"
        )
    if errno == EAGAIN:
        return TOO_MANY
    return _dead_init() if errno == ENOMEM else ""


def _path(errno: int, path: str = "", root: str = "", option: str = "", **_: Any) -> str:
    """What a path of a file or folder runs into."""
    where = f"in the root filesystem {root}" if root else "as this process sees the files"
    todo = f"\nwhat to do: {option}= a folder that is there, or make it first." if option else ""
    if errno == ENOENT and not os.path.lexists(path):
        parent = path
        while parent not in ("", "/") and not os.path.exists(parent):
            parent = os.path.dirname(parent)
        return f"there is no {path} {where}; of its parents {parent or '.'} is the last that is there.{todo}"
    if errno == ENOENT:
        return f"{path} is a symlink to {os.readlink(path)}, which is not there {where}.{todo}"
    if errno == ENOTDIR:
        file = path
        while file not in ("", "/") and not os.path.exists(file):
            file = os.path.dirname(file)
        return f"{file} is a file {where}, not a folder.{todo}"
    if errno == EISDIR:
        return f"{path} is a folder, not a file.\nwhat to do: name a file in it; ls {path} shows them."
    if errno == ELOOP:
        return f"{path} leads through more than 40 symlinks, or in a circle. path_resolution(7)"
    if errno == EACCES:
        return f"uid {os.geteuid()} of this user namespace may not go there: see the permissions of each folder in {path}."
    return ""


def _chroot(errno: int, **facts: Any) -> str:
    if errno == EPERM:
        return (
            "chroot needs CAP_SYS_CHROOT in the caller's user namespace.\n"
            "what to do: unshare('user') first: its creator holds every capability inside. chroot(2)"
        )
    return _path(errno, **facts)


def _fork(errno: int, **_: Any) -> str:
    if errno == EAGAIN:
        return TOO_MANY
    return _dead_init() if errno == ENOMEM else ""


def _keyctl(errno: int, **_: Any) -> str:
    if errno == EDQUOT:
        return (
            f"uid {os.getuid()} has as many keys as one user may have (/proc/key-users, /proc/sys/kernel/keys/maxkeys), and a "
            "session keyring is one.\nwhat to do: end containers, or let root raise that limit. keyrings(7)"
        )
    return ""


def _seccomp(errno: int, **_: Any) -> str:
    if errno in (EINVAL, ENOSYS):
        return "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), or a sandbox around this process keeps them away."
    return ""


_RULES: dict[str, Callable[..., str]] = {
    "unshare": _unshare,
    "clone3": _new,
    "clone": _new,
    "setns": _setns,
    "open": _open,
    "sethostname": _sethostname,
    "setdomainname": _sethostname,
    "write": _write,
    "read": _read,
    "chdir": _path,
    "chroot": _chroot,
    "mount": _mount,
    "openat2": _openat2,
    "umount2": _umount,
    "pivot_root": _pivot_root,
    "setgroups": _setgroups,
    "setresuid": _setid,
    "setresgid": _setid,
    "execve": _execve,
    "posix_spawn": _execve,
    "fork": _fork,
    "keyctl": _keyctl,
    "seccomp": _seccomp,
}
