"""Paths, and what is written to the files of /proc: id maps, offsets of clocks, sysctls."""

from __future__ import annotations

import os
import time
from errno import EACCES, EBUSY, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, EPERM, ERANGE, EROFS
from typing import Any

from nslab import procfs
from nslab.hints.facts import CAP_SETFCAP, CAP_SYS_ADMIN, has, restricted

_INITIAL_TIME = 0xEFFFFFFA  # the inode of the time namespace that the machine was started with


def lookup(errno: int, path: str = "", root: str = "", option: str = "", **_: Any) -> str:
    """What a path of a file or folder runs into."""
    where = f"in the root filesystem {root}" if root else "as this process sees the files"
    todo = f"\nwhat to do: {option}= a folder that is there, or make it first." if option else ""
    if errno == ENOENT and not os.path.lexists(path):
        return f"there is no {path} {where}; of its parents {_there(path) or '.'} is the last that is there.{todo}"
    if errno == ENOENT:
        return f"{path} is a symlink to {os.readlink(path)}, which is not there {where}.{todo}"
    if errno == ENOTDIR:
        return f"{_there(path)} is a file {where}, not a folder.{todo}"
    if errno == EISDIR:
        return f"{path} is a folder, not a file.\nwhat to do: name a file in it; ls {path} shows them."
    if errno == ELOOP:
        return f"{path} leads through more than 40 symlinks, or in a circle. path_resolution(7)"
    if errno == EACCES:
        return f"uid {os.geteuid()} of this user namespace may not go there: see the permissions of each folder in {path}."
    return ""


def _there(path: str) -> str:
    """As much of a path as is there, "" where nothing of a relative one is."""
    while path not in ("", "/") and not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def chroot(errno: int, **facts: Any) -> str:
    if errno == EPERM:
        return (
            "chroot needs CAP_SYS_CHROOT in the caller's user namespace.\n"
            "what to do: unshare('user') first: its creator holds every capability inside. chroot(2)"
        )
    return lookup(errno, **facts)


def write(errno: int, path: str = "", text: str = "", **facts: Any) -> str:
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
    return _sysctl(errno, path) if path.startswith("/proc/sys/") else lookup(errno, path)


def read(errno: int, path: str = "", **_: Any) -> str:
    return _sysctl(errno, path) if path.startswith("/proc/sys/") and errno == ENOENT else lookup(errno, path)


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
    if not has(CAP_SETFCAP) and which == "uid" and 0 in outside and has(CAP_SYS_ADMIN):
        return "mapping uid 0 of the parent needs CAP_SETFCAP there (since Linux 5.12), and the writer lacks it."
    alone = len(lines) == 1 and lines[0][2:] == ["1"]
    if which == "gid" and alone and procfs.setgroups(pid) == "allow":
        return (
            "an ordinary user must give up setgroups(2) before gid_map may be written.\n"
            "what to do: write 'deny' to /proc/self/setgroups first. user_namespaces(7)"
        )
    if alone and (sysctl := restricted()):
        return sysctl
    return (
        "without privilege in the parent user namespace a map may hold one line only, of length 1, that maps one's own "
        f"{which} ({effective} as this process sees itself now).\n"
        f"what to do: 'INSIDE OWN-{which.upper()} 1', or newuidmap with a subordinate range. user_namespaces(7)"
    )


def _is_initial_time(path: str) -> bool:
    """Whether the children of this process are to be in the machine's first time namespace, which has a fixed number."""
    try:
        return os.stat(f"{os.path.dirname(path)}/ns/time_for_children").st_ino == _INITIAL_TIME
    except OSError:
        return False


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
