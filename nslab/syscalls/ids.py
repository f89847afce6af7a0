"""User and group ids of the calling process, all three of each at once."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nslab.syscalls.guard import invoke, refuse_here


def setresuid(ruid: int, euid: int, suid: int) -> None:
    """Set real, effective and saved uid; EINVAL when one is not mapped here. Source: setresuid(2)."""
    refuse_here("setresuid")
    invoke("setresuid", (ruid, euid, suid), os.setresuid, ruid, euid, suid)


def setresgid(rgid: int, egid: int, sgid: int) -> None:
    """Set real, effective and saved gid; EINVAL when one is not mapped here. Source: setresgid(2)."""
    refuse_here("setresgid")
    invoke("setresgid", (rgid, egid, sgid), os.setresgid, rgid, egid, sgid)


def setgroups(groups: Sequence[int]) -> None:
    """Set the supplementary groups; EPERM where /proc/self/setgroups says deny. Source: setgroups(2)."""
    refuse_here("setgroups")
    invoke("setgroups", (tuple(groups),), os.setgroups, list(groups))
