"""python -m tests.notebooks.confined COMMAND: run it where nothing is allowed.

It is executed by who we are, with no_new_privs and the seccomp filter of tests/binder/confine.py; both stay with all that it
starts.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from tests.binder.confine import seccomp_filter

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
HIDDEN = {"linux.uml"}


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine() -> None:
    """Bind this process, for good. seccomp(2)"""
    lines = seccomp_filter()
    program = Program(len(lines) // 8, lines)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):  # fmt: skip
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def path_without(folder: Path, *, hidden: set[str] = HIDDEN) -> str:
    """A PATH with all programs that are on the usual one, but for some: a folder of links, made here."""
    folder.mkdir()
    for place in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for name in os.listdir(place) if os.path.isdir(place) else ():
            if name not in hidden and not os.path.lexists(folder / name):
                (folder / name).symlink_to(f"{place}/{name}")
    assert not any(shutil.which(name, path=str(folder)) for name in hidden)
    return str(folder)


if __name__ == "__main__":
    confine()
    os.execvp(sys.argv[1], sys.argv[1:])
