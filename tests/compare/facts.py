"""What the kernel says of a process from outside, and a few things that only the process itself can know."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from nslab import procfs
from nslab.model import KINDS

CAPABILITIES = int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1
KEYCTL = {"x86_64": 250, "aarch64": 219}


def facts(pid: int, said: list[str]) -> dict[str, str]:
    """A cell for each question. ``said`` are the serial of its session keyring (where known) and its host name."""
    machine, own = procfs.namespaces(), procfs.namespaces(pid)
    found = {f"{kind} namespace": "own" if own[kind] != machine[kind] else "the machine's" for kind in KINDS if kind in machine}
    status = procfs.status(pid)
    mounts = procfs.mountinfo(pid)
    root = next((mount for mount in mounts if mount.target == "/"), None)
    inside_proc = [mount for mount in mounts if mount.target.startswith("/proc/")]
    below = Path(f"/proc/{pid}/root")
    return found | {
        "host name": said[-1],
        "its uid, outside": procfs.status(pid)["Uid"].split()[1],
        "ids in the map": str(sum(line.count for line in procfs.id_map(pid))) if own["user"] != machine["user"] else "all",
        "capabilities, effective": _count(status["CapEff"]),
        "capabilities, bounding": _count(status["CapBnd"]),
        "no_new_privs": "yes" if status["NoNewPrivs"] == "1" else "no",
        "seccomp filter": "yes" if status["Seccomp"] == "2" else "no",
        "session keyring": _keyring(said[0]) if len(said) > 1 else "not asked: no C compiler",
        "root filesystem": "own, pivoted" if root else "own, by chroot",
        "root is read-only": "yes" if root and "ro" in root.options else "no",
        "processes in /proc": _visible(below / "proc"),
        "masked in /proc": f"{sum(mount.fstype != 'proc' for mount in inside_proc)} paths",
        "/proc/sys": "read-only" if _is_read_only(mounts, "/proc/sys") else "writable",
        "/sys": _fstype(mounts, "/sys"),
        "/dev": _fstype(mounts, "/dev"),
        "descriptors above 2": str(sum(int(fd.name) > 2 for fd in Path(f"/proc/{pid}/fd").iterdir())),
        "cgroup": _cgroup(pid),
        "network interfaces": " ".join(_interfaces(pid)),
        "its init": _init(pid),
        "open files at most": _limit(pid, "Max open files"),
    }


def _count(mask: str) -> str:
    return f"{int(mask, 16).bit_count()} of {CAPABILITIES}"


def session_keyring() -> int:
    """The serial of the caller's session keyring. A process that has none is given its user's, which children then inherit."""
    number = KEYCTL.get(os.uname().machine, -1)
    return int(ctypes.CDLL(None).syscall(number, 0, -3, 0))  # KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING


def _keyring(serial: str) -> str:
    if not serial.lstrip("-").isdigit():
        return "not known"
    if int(serial) < 0:
        return f"refused ({errno.errorcode.get(-int(serial), serial)})"
    return "the caller's" if int(serial) == session_keyring() else "own"


def _visible(proc: Path) -> str:
    return str(sum(name.isdigit() for name in os.listdir(proc)))


def _mount_over(mounts, path: str):
    """The mount in which a path lies: the deepest one above it, the last of those; None when its root is no mount."""
    above = [mount for mount in mounts if (path + "/").startswith(mount.target.rstrip("/") + "/")]
    return max(reversed(above), key=lambda mount: len(mount.target), default=None)


def _is_read_only(mounts, path: str) -> bool:
    mount = _mount_over(mounts, path)
    return mount is not None and "ro" in mount.options


def _fstype(mounts, path: str) -> str:
    mount = _mount_over(mounts, path)
    if mount is None or mount.target != path:
        return "a folder of the root"
    return f"{mount.fstype}, {'read-only' if 'ro' in mount.options else 'writable'}"


def _cgroup(pid: int) -> str:
    own, theirs = procfs.read(f"{pid}/cgroup"), procfs.read("self/cgroup")
    changed = len(set(own.splitlines()) - set(theirs.splitlines()))
    return f"own, in {changed} hierarchies" if changed else "the caller's"


def _interfaces(pid: int) -> list[str]:
    lines = procfs.read(f"{pid}/net/dev").decode().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def _init(pid: int) -> str:
    """The name of PID 1 of its PID namespace."""
    own = procfs.namespace(pid, "pid")
    for each in procfs.pids():
        try:
            if procfs.namespace(each, "pid") == own and procfs.status(each)["NSpid"].split()[-1] == "1":
                return procfs.stat(each).name
        except OSError:
            continue
    return "?"


def _limit(pid: int, name: str) -> str:
    line = next(line for line in procfs.read(f"{pid}/limits").decode().splitlines() if line.startswith(name))
    return line.split()[4]
