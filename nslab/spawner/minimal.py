"""Programs of a few instructions, which know nothing and hold nothing.

``init`` is PID 1 of a container, in reach of whatever may be wrong inside: so it is not the Python that all else is, with the
notebook's environment in its memory and a channel to it. Orphans need no reaping, since SIGCHLD stays ignored (wait(2)); the
channel is watched by the spawner instead. ``hidden`` is the same for a hardened container, where nobody may look into it.
``launcher`` executes a command there. What a command executes last before it is seen inside as "#!/proc/self/exe": with a
launcher in between, that is not the Python of the machine (CVE-2019-5736). ``joiner`` first joins a time namespace, for which
a process must have its memory to itself, as it has after an execve.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import signal
import struct
import time

from nslab.errors import Unavailable
from nslab.ops import Context
from nslab.spawner.child import PASSED_ON
from nslab.spawner.launch import programs
from nslab.spawner.report import PLAIN, Report
from nslab.syscalls import guard

_NAME = b"nslab-init".ljust(16, b"\0")
_READY = (PLAIN + marshal.dumps(([], "ready", (0, 0)))).ljust(64, b"\0")

WHY_EXECUTE = "init is a program of a few instructions, which holds nothing"

# init says that it is there, by its name and to the notebook, and ends at SIGTERM or SIGINT, with LITTERED when there are
# System V objects in its IPC namespace. Where a seccomp filter refuses it to wait for these, only SIGKILL ends it.
# joiner: 3 is a pidfd, to 4 it writes the results of setns, and of a failed execve; launcher and joiner execute argv[1] with
# &argv[2] and their environment.
_CODE = {
    ("init", "x86_64"): (
        "bf0f000000 488d35b8000000 b89d000000 0f05"  # prctl(PR_SET_NAME, _NAME)
        "31ff 488d35b8000000 ba40000000 b801000000 0f05"  # write(0, _READY, 64)
        "31ff b803000000 0f05 4881ec00010000"  # close(0); room for 256 bytes
        "6802400000 4889e7 31f6 31d2 41ba08000000 b880000000 0f05"  # rt_sigtimedwait({SIGINT, SIGTERM}, NULL, NULL, 8)
        "5f 8da880000000 85c0 791a 83f8fc 74d7"  # status = 128 + that; on if that >= 0; again if that is -EINTR
        "31ff 31f6 31d2 4531d2 b80f010000 0f05 83f8fc 74c2"  # a filter refuses it: ppoll(NULL, 0, NULL, NULL); again if -EINTR
        "31ff be0e000000 4889e2 b81f000000 0f05 8b1c24"  # shmctl(0, SHM_INFO): used_ids
        "31ff be0c000000 4889e2 b847000000 0f05 0b1c24"  # msgctl(0, MSG_INFO): msgpool
        "31ff 31f6 ba13000000 4989e2 b842000000 0f05 0b5c241c"  # semctl(0, 0, SEM_INFO): semusz
        "bf64000000 0f44fd b8e7000000 0f05"  # exit_group(any of these ? messages.LITTERED : status)
    ),
    ("init", "aarch64"): (
        "e00180d2 41070010 e81480d2 010000d4"
        "000080d2 41070010 020880d2 080880d2 010000d4"
        "000080d2 280780d2 010000d4 ff0304d1"
        "490088d2 e90300f9 e0030091 010080d2 020080d2 030180d2 281180d2 010000d4"
        "13000291 6001f8b6 1f1000b1 a0feff54"
        "000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 1f1000b1 a0fdff54"
        "000080d2 c10180d2 e2030091 681880d2 010000d4 f40340b9"
        "000080d2 810180d2 e2030091 681780d2 010000d4 e90340b9 9402092a"
        "000080d2 010080d2 620280d2 e3030091 e81780d2 010000d4 e91f40b9 9402092a"
        "890c80d2 9f020071 6002899a c80b80d2 010000d4"
    ),
    ("joiner", "x86_64"): (
        "bf03000000 be80000000 b834010000 0f05"  # setns(3, CLONE_NEWTIME)
        "50 bf04000000 4889e6 ba08000000 b801000000 0f05"  # write(4, &result, 8)
        "bf03000000 be02000000 ba01000000 b848000000 0f05"  # fcntl(3, F_SETFD, FD_CLOEXEC)
        "bf04000000 b848000000 0f05"  # and for 4
        "58 85c0 752f"  # on to the launcher, unless that failed: then to its end
    ),
    ("joiner", "aarch64"): (
        "600080d2 011080d2 882180d2 010000d4"
        "e00f1ff8 800080d2 e1030091 020180d2 080880d2 010000d4"
        "600080d2 410080d2 220080d2 280380d2 010000d4 800080d2 010000d4"
        "e90741f8 c90100b5"
    ),
    ("launcher", "x86_64"): (
        "488b0424 488b7c2410 488d742418 488d54c410 b83b000000 0f05"  # execve(argv[1], &argv[2], environment)
        "50 bf04000000 4889e6 ba08000000 b801000000 0f05"  # write(4, &result, 8)
        "bf7f000000 b8e7000000 0f05"  # exit_group(127), as a shell does when it cannot
    ),
    ("launcher", "aarch64"): (
        "e90340f9 e00b40f9 e1630091 e2430091 420c098b a81b80d2 010000d4"
        "e00f1ff8 800080d2 e1030091 020180d2 080880d2 010000d4"
        "e00f80d2 c80b80d2 010000d4"
    ),
}  # fmt: skip
_NUMBERS = {"x86_64": 62, "aarch64": 183}  # e_machine
_BASE, _HEADERS = 0x400000, 64 + 56
_ABOVE = 10  # the descriptors below are for what a program gets


def program(name: str, machine: str) -> bytes:
    """A static ELF file: one header, one segment (readable and executable), the code, what init says. Source: elf(5)."""
    parts = ("joiner", "launcher") if name == "joiner" else ("init" if name == "hidden" else name,)
    code = b"".join(bytes.fromhex(_CODE[part, machine]) for part in parts)
    size = _HEADERS + len(code) + len(_NAME + _READY)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, _NUMBERS[machine], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + segment + code + _NAME + _READY


def image(name: str) -> int:
    """A sealed file in memory with a program, which its owner owns: made by the spawner, before the new process is there.

    ``hidden`` and ``launcher`` nobody may read. A process that executes what it may not read is not dumpable, from its first
    instruction on, and belongs to the user namespace in which the file's owner has an id; prctl(2), PR_SET_DUMPABLE.
    """
    executable = 0x10  # MFD_EXEC, Linux 6.3, said aloud where vm.memfd_noexec asks for it
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        low = os.memfd_create(f"nslab-{name}", flags | executable)
    except OSError:
        low = os.memfd_create(f"nslab-{name}", flags)
    fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    os.close(low)
    os.write(fd, program(name, os.uname().machine))
    os.fchmod(fd, 0o111 if name in ("hidden", "launcher") else 0o555)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def get_ready() -> None:
    """Have all of them, in the spawner, for it and those it makes; none where the machine or its rules know none."""
    if os.uname().machine in _NUMBERS:
        with contextlib.suppress(OSError):
            programs.update({name: image(name) for name in ("init", "hidden", "launcher", "joiner")})


def become(name: str, title: str, report: Report, context: Context) -> int:
    """Let this process be ``init`` or ``hidden``: without a descriptor, an environment, or a folder of the machine.

    ``title`` is its command line. Its channel becomes descriptor 0, on which it says that it is there; then it closes that.
    In borrowed memory that happens at the end of this life, whose status is returned; else OSError if it cannot.
    """
    if name not in programs:
        raise Unavailable("programs in memory", "they need x86-64 or aarch64, and a vm.memfd_noexec below 2 (sysctl(8)).")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, PASSED_ON if name == "init" else ())
    os.chdir("/")
    argv = tuple(title.split(" ", 1))
    guard.implied(WHY_EXECUTE)
    guard.record("execve", (argv[0], argv), 0, 0, time.time())  # should it fail, an error follows
    report.send("made" if report.pid else "execve", report.pid)
    if context.lend and context.let_go >= 0:
        context.lend[1].execute(programs[name], argv, {})
    os.dup2(report.fd, 0)
    low = 1
    for kept in sorted((programs[name], report.fd)):
        os.closerange(low, kept)
        low = kept + 1
    os.closerange(low, 1 << 20)
    if context.let_go < 0 or not context.lend:
        try:
            os.execve(programs[name], argv, {})
        except OSError as error:  # else it would name a descriptor
            raise guard.failure("execve", (argv[0], argv), error.errno or 0) from None
    return 0
