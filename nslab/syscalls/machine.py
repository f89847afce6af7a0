"""What concerns the kernel as a whole; nslab does it only in a kernel of its own."""

from __future__ import annotations

import ctypes
import os

from nslab.syscalls.guard import invoke, libc, refuse_here

LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC
_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}.get(os.uname().machine, -1)
libc.reboot.argtypes = [ctypes.c_int]


def finit_module(fd: int, parameters: str = "") -> None:
    """Load the kernel module in an open file. EEXIST when it is there, ENOENT when one that it needs is not.

    Source: finit_module(2).
    """
    refuse_here("finit_module")
    invoke("finit_module", (fd, parameters), libc.syscall, _FINIT_MODULE, fd, os.fsencode(parameters), 0)


def reboot(command: int) -> None:
    """End this kernel, as ``command`` says, without writing anything to disk before. Source: reboot(2)."""
    refuse_here("reboot")
    invoke("reboot", (command,), libc.reboot, ctypes.c_int(command))
