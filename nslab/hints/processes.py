"""A process: that it begins, which program it becomes, with which ids and keys."""

from __future__ import annotations

import os
from errno import E2BIG, EACCES, EAGAIN, EDQUOT, EINVAL, ENAMETOOLONG, ENOENT, ENOEXEC, ENOMEM, ENOSYS, EPERM
from typing import Any

from nslab import procfs
from nslab.hints.facts import TOO_MANY, dead_init


def fork(errno: int, **_: Any) -> str:
    if errno == EAGAIN:
        return TOO_MANY
    return dead_init() if errno == ENOMEM else ""


def execve(errno: int, path: str = "", root: str = "", **_: Any) -> str:
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
    return dead_init() if errno == ENOMEM else ""


def setgroups(errno: int, **_: Any) -> str:
    if errno == EPERM and procfs.setgroups() == "deny":
        return "/proc/self/setgroups says deny in this user namespace, for good. user_namespaces(7)"
    return "setgroups needs CAP_SETGID, and a gid_map written before. user_namespaces(7)" if errno == EPERM else ""


def setid(errno: int, **_: Any) -> str:
    if errno == EINVAL:
        return (
            "that id is not mapped in this user namespace: see /proc/self/uid_map and gid_map.\n"
            "what to do: map it when the user namespace is made: uid_map='subordinate', or lines. user_namespaces(7)"
        )
    return "changing to another id needs CAP_SETUID or CAP_SETGID in this user namespace." if errno == EPERM else ""


def keyctl(errno: int, **_: Any) -> str:
    if errno == EDQUOT:
        return (
            f"uid {os.getuid()} has as many keys as one user may have (/proc/key-users, /proc/sys/kernel/keys/maxkeys), and a "
            "session keyring is one.\nwhat to do: end containers, or let root raise that limit. keyrings(7)"
        )
    return ""


def seccomp(errno: int, **_: Any) -> str:
    if errno in (EINVAL, ENOSYS):
        return "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), or a sandbox around this process keeps them away."
    return ""
