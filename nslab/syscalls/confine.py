"""What a process gives up for good: capabilities, new privileges, system calls, keys; and its limits.

Not loaded by ``nslab.syscalls`` itself, since few processes need it.
"""

from __future__ import annotations

import ctypes
import os
import resource

from nslab.syscalls.guard import invoke, libc, refuse_here

PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 23, 24, 38, 47, 4

_KEYCTL, _SECCOMP = {"x86_64": (250, 317), "aarch64": (219, 277)}.get(os.uname().machine, (-1, -1))
_JOIN_SESSION_KEYRING, _SET_MODE_FILTER = 1, 1
_VERSION = 0x20080522  # of capset(2): two words of 32 bits for each set


def capset_none() -> None:
    """Empty the effective, permitted and inheritable sets, and with them the ambient one. Source: capset(2)."""
    refuse_here("capset")
    header, data = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    invoke("capset", ("none", "none", "none"), libc.capset, ctypes.byref(header), ctypes.byref(data))


def capbset_drop_all() -> None:
    """Empty the bounding set, so that no execve gives capabilities back; one call for each, recorded as one.

    EPERM without CAP_SETPCAP. Source: capabilities(7), PR_CAPBSET_DROP(2const).
    """
    refuse_here("capbset_drop")
    count = 0
    while libc.prctl(PR_CAPBSET_READ, count, 0, 0, 0) >= 0:
        count += 1

    def drop() -> int:
        return min(int(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)) for capability in range(count))

    invoke("prctl", (PR_CAPBSET_DROP, f"0 to {count - 1}, each"), drop)


def join_session_keyring() -> None:
    """Leave the session keyring for a new, empty one without a name. EDQUOT when the user has too many keys, ENOSYS where
    the kernel has none. Source: keyctl(2), KEYCTL_JOIN_SESSION_KEYRING."""
    refuse_here("keyctl")
    invoke("keyctl", (_JOIN_SESSION_KEYRING, None), libc.syscall, _KEYCTL, _JOIN_SESSION_KEYRING, None)


def seccomp(program: bytes) -> None:
    """Filter the system calls of this process and all its children by a program of classic BPF, for good.

    EACCES without no_new_privs or CAP_SYS_ADMIN, EINVAL for a program that the kernel does not take. Source: seccomp(2).
    """
    refuse_here("seccomp")
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count in a word that is padded to the size of a pointer
    header = (ctypes.c_uint64 * 2)(0, ctypes.addressof(code))
    ctypes.c_uint16.from_buffer(header).value = len(program) // 8
    raw = (_SET_MODE_FILTER, 0, len(program) // 8)
    invoke("seccomp", raw, libc.syscall, _SECCOMP, _SET_MODE_FILTER, 0, ctypes.byref(header))


def setrlimit(which: str, most: int) -> None:
    """Set a limit, named as in getrlimit(2) ("RLIMIT_NOFILE"), soft and hard, to ``most``, or leave it where it is lower."""
    refuse_here("setrlimit")
    number: int = getattr(resource, which)
    soft, hard = (most if old == resource.RLIM_INFINITY else min(old, most) for old in resource.getrlimit(number))
    invoke("setrlimit", (which, soft, hard), resource.setrlimit, number, (soft, hard))
