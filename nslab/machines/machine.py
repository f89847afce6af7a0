"""A machine as its files show it: this one, or for a test another one's below a folder."""

from __future__ import annotations

import os
import shutil
from functools import cached_property

from nslab import procfs
from nslab.model import Mount

CAP_SYS_ADMIN = 21


class Machine:
    """Reads of the files below ``root``; what is not there is empty."""

    def __init__(self, root: str = "/"):
        self.root = root
        self.proc = os.path.join(root, "proc")

    def path(self, name: str) -> str:
        """Where the file lies that this machine calls ``name``."""
        return os.path.join(self.root, name.lstrip("/"))

    def read(self, name: str) -> str:
        try:
            with open(self.path(name)) as file:
                return file.read().strip()
        except OSError:
            return ""

    def sysctl(self, name: str) -> str:
        """A setting by the name that sysctl(8) gives it, as in user.max_user_namespaces."""
        return self.read(f"proc/sys/{name.replace('.', '/')}")

    def find(self, program: str) -> str:
        """The path of a program on PATH, or ""."""
        folders = os.environ.get("PATH", os.defpath).split(":")
        return shutil.which(program, path=":".join(map(self.path, folders)) if self.root != "/" else None) or ""

    @cached_property
    def status(self) -> dict[str, str]:
        """Of the process that asks; empty where there is none."""
        try:
            return procfs.status("self", self.proc)
        except OSError:
            return {}

    @cached_property
    def mounts(self) -> tuple[Mount, ...]:
        try:
            return procfs.mountinfo("self", self.proc)
        except OSError:
            return ()

    @property
    def uid(self) -> int:
        return int(self.status.get("Uid", "1 1").split()[1])

    @property
    def is_privileged(self) -> bool:
        """Whether namespaces can be made without a user namespace."""
        return bool(int(self.status.get("CapEff", "0"), 16) >> CAP_SYS_ADMIN & 1)
