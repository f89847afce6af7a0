"""Running a command in the image as a strict container would: uid 1000, and nothing that has to do with isolation is allowed.

No capability, no_new_privs, /proc masked as docker masks it, one processor, 2 GB of memory as on mybinder.org, no network but
loopback, and a seccomp filter by which unshare, setns, mount and their like get EPERM, clone with a namespace flag too, and
clone3 ENOSYS as in docker.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from tests.binder.image import HOSTNAME, Image
from tests.binder.memory import Memory

UID = 1000
MEMORY = 2 << 30  # bytes
MASKED_FILES = ("kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug")
MASKED_FOLDERS = ("acpi", "asound", "scsi")
KEPT_BY_ROOT = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")

# What a container's list refuses without a capability, by its number on x86-64.
REFUSED = {
    "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
    "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
}  # fmt: skip
CLONE, CLONE3 = 56, 435
NAMESPACES = 0x7E020080  # CLONE_NEW*
AUDIT_ARCH_X86_64 = 0xC000003E
LOAD, EQUAL, ANY, RETURN = 0x20, 0x15, 0x45, 0x06  # ld [k]; jeq; jset; ret
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, REFUSE = 0x7FFF0000, 0x00050000

# A program that must find all of it forbidden: limits that are too weak would prove nothing.
FORBIDDEN = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def answer(call, *arguments):
    return errno.errorcode[ctypes.get_errno()] if call(*arguments) == -1 else "allowed"
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
assert os.getuid() == 1000 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
assert len(os.sched_getaffinity(0)) == 1
assert not any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd"))
answers = {
    "unshare": answer(libc.unshare, 0x10000000),
    "setns": answer(libc.setns, os.open("/proc/self/ns/uts", 0), 0),
    "mount": answer(libc.mount, b"x", b"/mnt", b"tmpfs", 0, None),
    "clone": answer(libc.syscall, 56, 0x10000011, 0, 0, 0, 0),
    "clone3": answer(libc.syscall, 435, 0, 0),
}
assert answers == {"unshare": "EPERM", "setns": "EPERM", "mount": "EPERM", "clone": "EPERM", "clone3": "ENOSYS"}, answers
print("uid 1000, one processor, no capability, no_new_privs:", ", ".join(f"{name} {error}" for name, error in answers.items()))
"""

# A program that has to be killed for taking what there is not.
HUNGRY = f"len(bytearray(b'x') * {MEMORY + (256 << 20)})"


def seccomp_filter() -> bytes:
    """The filter as instructions of classic BPF: (code, steps ahead if true, if false, operand). seccomp(2)"""
    refused = sorted(REFUSED.values())
    lines = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, AUDIT_ARCH_X86_64), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    lines += [(LOAD, 0, 0, NUMBER), (EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    for number in refused:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    lines += [(EQUAL, 0, 3, CLONE), (LOAD, 0, 0, FIRST_ARGUMENT), (ANY, 0, 1, NAMESPACES), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    lines += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def start(
    image: Image, command: Sequence[str], *, root: bool = False, memory: Memory | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start a command in the image, in the folder and with the environment that its recipe names; all ends with it.

    ``root`` starts it as root with the capabilities that docker gives, as a hub needs that has several users.
    """
    line = [
        *(memory.joining if memory else ()),
        "bwrap", "--bind", str(image.root), "/", "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys",
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", HOSTNAME, "--unshare-net",
        "--die-with-parent", "--clearenv",
    ]  # fmt: skip
    for name, value in image.recipe.env.items():
        line += ["--setenv", name, value]
    for name in filter(_is_there, MASKED_FILES):
        line += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in filter(_is_there, MASKED_FOLDERS):
        line += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
    for name in filter(_is_there, READ_ONLY):
        line += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
    line += ["--chdir", image.recipe.folder, "--cap-drop", "ALL"]
    for name in KEPT_BY_ROOT if root else ("SETUID", "SETGID", "SETPCAP"):
        line += ["--cap-add", f"CAP_{name}"]
    become = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    if not root:
        become += ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    with tempfile.TemporaryFile() as program:
        program.write(seccomp_filter())
        program.seek(0)
        line += ["--seccomp", str(program.fileno()), *become, *command]
        return subprocess.Popen(line, pass_fds=[program.fileno()], text=True, **options)


def _is_there(name: str) -> bool:
    return os.path.exists(f"/proc/{name}")


def output(image: Image, command: Sequence[str], **options: Any) -> str:
    """What a command printed there; CalledProcessError when it failed."""
    with start(image, command, stdout=subprocess.PIPE, **options) as process:
        text, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), text)
    return text
