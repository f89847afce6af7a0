"""What a kernel of one's own needs of the machine, and where it finds it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nslab.errors import SpecError, Unavailable
from nslab.machines.machine import Machine
from nslab.machines.report import Check

KERNEL, NETWORK = "linux.uml", "slirp4netns"
MEMORY = "768M"
INSTALL = "apt-get install user-mode-linux slirp4netns, as root (Debian; Ubuntu 24.04 has no user-mode-linux)"
LONGEST = 70  # bytes of the path of a folder with sockets: with the rest it has to fit into 108, unix(7)
LEAST = 64 << 20
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Found:
    """The programs, the folder of the kernel's modules, and where the sockets and the memory's file go."""

    kernel: str
    network: str
    modules: str
    folder: str
    memory_folder: str


def size(text: str) -> int:
    """Bytes, as the kernel's mem= has them: 768M. SpecError for what is none, or too few for a kernel to start."""
    match = re.fullmatch(r"([0-9]+)([KMG]?)", text, re.ASCII | re.IGNORECASE)
    if not match:
        raise SpecError("memory", f"{text!r} is no size, such as 768M or 2G")
    wanted = int(match[1]) * UNITS[match[2].upper()]
    if wanted < LEAST:
        raise SpecError("memory", f"{text} is too little: a kernel does not start with less than {LEAST >> 20}M")
    return wanted


def find(memory: str = MEMORY) -> Found:
    """All that is needed; Unavailable when something is not there."""
    machine = Machine()
    if missing := _missing(machine):
        raise Unavailable(*missing)
    kernel = machine.find(KERNEL)
    return Found(kernel, machine.find(NETWORK), _modules(), _folder(), _memory_folder(size(memory)))


def own_kernel_check(machine: Machine | None = None) -> Check:
    """The line of doctor() about it."""
    machine = machine or Machine()
    missing = _missing(machine)
    if missing:
        return Check("own-kernel", "partly", missing[0], missing[1])
    if machine.root == "/":
        try:
            find()
        except Unavailable as error:
            return Check("own-kernel", "partly", error.requirement, error.how_to_get_it)
    return Check("own-kernel", "yes", f"{machine.find(KERNEL)}: a Linux kernel of one's own, as an ordinary process")


def _missing(machine: Machine) -> tuple[str, str] | None:
    """What stands in the way, and what to do about it."""
    wants = "a kernel of one's own needs"
    if os.uname().machine != "x86_64":
        return f"{wants} an x86-64 processor: user-mode Linux knows no other", "a machine with one"
    for program in (KERNEL, NETWORK):
        if not machine.find(program):
            return f"{wants} {program}, which is not here", INSTALL
    return None


def _modules() -> str:
    """The folder of the kernel's modules, "" when there is none: of several the last is the newest."""
    found = sorted(Path("/usr/lib/uml/modules").glob("*/modules.dep"))
    return str(found[-1].parent) if found else ""


def _candidates() -> Iterator[str]:
    for folder in (os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp", os.path.expanduser("~")):
        if folder and os.path.isabs(folder) and os.access(folder, os.W_OK | os.X_OK):
            yield folder


def _folder() -> str:
    """Where sockets go: their paths are short, words of the kernel's command line, and not below what it covers itself."""
    for folder in _candidates():
        real = os.path.realpath(folder)
        if (
            len(os.fsencode(real)) <= LONGEST
            and real.isascii()
            and not set(" \t\"',") & set(real)
            and not real.startswith("/dev")
        ):
            return real
    raise Unavailable("a kernel of one's own needs a folder for its sockets, with a short path", "TMPDIR=/a/short/path")


def _memory_folder(wanted: int) -> str:
    """Where the file goes that is the kernel's memory: with room, and not mounted noexec, since programs run from it."""
    for folder in ("/dev/shm", *_candidates()):
        with contextlib.suppress(OSError):
            info = os.statvfs(folder)
            if not info.f_flag & os.ST_NOEXEC and info.f_bavail * info.f_frsize >= wanted and os.access(folder, os.W_OK):
                return folder
    raise Unavailable(
        f"a kernel of one's own needs a folder for its memory, with {wanted >> 20} MB of room and not mounted noexec",
        "TMPDIR=/a/folder/with/room, or less memory; for a container: --shm-size=1g",
    )
