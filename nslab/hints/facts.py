"""What the rules look at: /proc of the process that failed, and what several of them say."""

from __future__ import annotations

import os

from nslab import procfs

TOO_MANY = "there are as many processes as there may be: a limit on pids of the cgroup (pids.max), or ulimit -u. fork(2)"
CAP_SETFCAP, CAP_SYS_ADMIN = 31, 21


def has(capability: int) -> bool:
    return bool(procfs.capabilities() >> capability & 1)


def dead_init() -> str:
    try:
        inode = os.readlink("/proc/self/ns/pid_for_children")
    except OSError:
        inode = "the PID namespace made for children"
    return (
        f"the init (PID 1) of {inode} has ended, and a PID namespace without init takes no new process; memory is not the "
        "matter.\nwhat to do: make a new PID namespace. pid_namespaces(7)"
    )


def filtered() -> str:
    if procfs.status().get("Seccomp") == "2":
        return (
            "a seccomp filter around this process refuses it (Seccomp: 2 in /proc/self/status), as container engines do. "
            "nslab.doctor() says what lifts that, and how to have a Linux kernel of your own, which needs none of it."
        )
    return ""


def restricted() -> str:
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
