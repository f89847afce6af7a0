"""What is mounted, where, and the root of it all."""

from __future__ import annotations

import os
import stat
from errno import EBUSY, EINVAL, ELOOP, ENODEV, ENOENT, ENOTDIR, EPERM
from typing import Any

from nslab import procfs

MS_REMOUNT = 0x20


def mount(errno: int, fstype: str = "", target: str = "", source: str = "", flags: int = 0, **_: Any) -> str:
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


def _masked(covers: list[str]) -> str:
    return (
        "a fresh /proc may be mounted in a user namespace only where the /proc that is there can be seen whole; here it is "
        f"partly covered by mounts on {', '.join(covers) or '(unknown)'}.\n"
        "what to do: keep the old view with proc='old', or ask for a container whose /proc is not masked. proc(5)"
    )


def openat2(errno: int, folder: int = -1, path: str = "", **_: Any) -> str:
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


def umount(errno: int, target: str = "", **_: Any) -> str:
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


def pivot_root(errno: int, new_root: str = "", put_old: str = "", **_: Any) -> str:
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
