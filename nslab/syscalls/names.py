"""The UTS names of a machine, or of a UTS namespace."""

from __future__ import annotations

import ctypes
import os

from nslab.syscalls.guard import invoke, libc, refuse_here

for _function in (libc.sethostname, libc.setdomainname):
    _function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def sethostname(name: bytes) -> None:
    """Set the host name of the caller's UTS namespace; at most 64 bytes (EINVAL), EPERM without CAP_SYS_ADMIN there.

    Source: sethostname(2).
    """
    refuse_here("sethostname", "uts")
    invoke("sethostname", (name, len(name)), libc.sethostname, name, len(name), name=name)


def setdomainname(name: bytes) -> None:
    """Set the NIS domain name; as sethostname. Source: setdomainname(2)."""
    refuse_here("setdomainname", "uts")
    invoke("setdomainname", (name, len(name)), libc.setdomainname, name, len(name), name=name)


def uname() -> os.uname_result:
    """The names of the caller's UTS namespace and of the kernel. Source: uname(2)."""
    return os.uname()
