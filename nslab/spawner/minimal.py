"""Two programs of a few instructions for hardened containers, which know nothing and hold nothing.

``init`` is PID 1, in reach of whatever may be wrong inside; so it is not the Python that all else is, with a copy of the
notebook's environment and a channel to it. Orphans need no reaping, since SIGCHLD stays ignored (wait(2)); the channel to the
notebook is watched by the spawner instead. ``launcher`` executes a command. What a command executes last before it is seen
inside as "#!/proc/self/exe": with a launcher in between, that is not the Python of the machine (CVE-2019-5736).
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from typing import NoReturn

_NAME = b"nslab-init\0"  # at most 16 bytes

# init: prctl(PR_SET_NAME, _NAME); for ever: pause(), for which aarch64 has ppoll(NULL, 0, NULL, NULL).
# launcher: execve(argv[1], &argv[2], environment); exit_group(127), as a shell does when it cannot.
_CODE = {
    ("init", "x86_64"): bytes.fromhex("bf0f000000 488d3510000000 b89d000000 0f05 b822000000 0f05 ebf7"),
    ("init", "aarch64"): struct.pack(
        "<11I", 0xD28001E0, 0x10000141, 0xD28014E8, 0xD4000001, 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928,
        0xD4000001, 0x17FFFFFA,
    ),
    ("launcher", "x86_64"): bytes.fromhex(
        "488b0424 488b7c2410 488d742418 488d54c410 b83b000000 0f05 bf7f000000 b8e7000000 0f05"
    ),
    ("launcher", "aarch64"): struct.pack(
        "<10I", 0xF94003E9, 0xF9400BE0, 0x910063E1, 0x910043E2, 0x8B090C42, 0xD2801BA8, 0xD4000001, 0xD2800FE0, 0xD2800BC8,
        0xD4000001,
    ),
}  # fmt: skip
_NUMBERS = {"x86_64": 62, "aarch64": 183}  # e_machine
_BASE, _HEADERS = 0x400000, 64 + 56


def program(name: str, machine: str) -> bytes:
    """A static ELF file: one header, one segment (readable and executable), the code, the name. Source: elf(5)."""
    code = _CODE[name, machine]
    size = _HEADERS + len(code) + len(_NAME)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, _NUMBERS[machine], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + segment + code + _NAME


def image(name: str) -> int:
    """A sealed file in memory with a program, which its owner owns: made by the spawner, before the new process is there.

    Nobody may read it. A process that executes what it may not read is not dumpable, from its first instruction on, and
    belongs to the user namespace in which the file's owner has an id; prctl(2), PR_SET_DUMPABLE.
    """
    executable = 0x10  # MFD_EXEC, Linux 6.3, said aloud where vm.memfd_noexec asks for it
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(f"nslab-{name}", flags | executable)
    except OSError:
        fd = os.memfd_create(f"nslab-{name}", flags)
    os.write(fd, program(name, os.uname().machine))
    os.fchmod(fd, 0o111)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def become(fd: int, title: str, *keep: int) -> NoReturn:
    """Let this process, which is PID 1, be the minimal init: without a descriptor, an environment, or a folder of the machine.

    ``title`` is its command line; ``keep`` are open until then, to say that it could not be done, or that it was.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")
    low = 0
    for kept in sorted((fd, *keep)):
        os.set_inheritable(kept, False)
        os.closerange(low, kept)
        low = kept + 1
    os.closerange(low, 1 << 20)
    os.execve(fd, title.split(" ", 1), {})
