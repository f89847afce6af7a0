"""A seccomp list, assembled here: which system calls a hardened process may not make, and why.

It is a list of what is refused, with a ceiling: a call with a number above those known when this was written does not exist
(ENOSYS), nor does one by another architecture's table. So what a later kernel adds is refused until somebody has looked at
it, which is what a list of what is allowed would give, and yet each line here says what it closes. Source: seccomp(2).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from functools import cache

from nslab.errors import Unavailable

NAMESPACES = 0x7E020000  # CLONE_NEW*; CLONE_NEWTIME is a bit of the exit signal for clone(2)
NEWTIME = 0x80
HIGHEST = 469  # file_setattr, Linux 6.17

# name: (number on x86-64, number on aarch64); -1: there is none. By what they would open.
REFUSED: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "namespaces of somebody else": {"setns": (308, 268)},
    "the mount table": {
        "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
        "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
        "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    },
    "files by handle, past every mount": {"name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265)},
    "keyrings, which are no namespace": {"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    "memory and descriptors of other processes": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "pidfd_getfd": (438, 438), "migrate_pages": (256, 238), "move_pages": (279, 239),
    },
    "the kernel itself": {
        "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
        "kexec_file_load": (320, 294), "reboot": (169, 142), "syslog": (103, 116), "iopl": (172, -1), "ioperm": (173, -1),
    },
    "clocks of the machine": {
        "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    },
    "swap, quotas and accounting of the machine": {
        "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "quotactl_fd": (443, 443), "acct": (163, 89),
    },
    "parts of the kernel where most ways out were found": {
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "fanotify_init": (300, 262),
    },
    "names, should the capability come back": {"sethostname": (170, 161), "setdomainname": (171, 162)},
}  # fmt: skip

TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # type into a terminal; paste into a console
AF_ALG, AF_VSOCK = 38, 40  # the kernel's ciphers; the hypervisor's network, which no namespace isolates

# What depends on an argument: name -> numbers, which argument, the values or else the bits that are refused.
CLONE, UNSHARE, IOCTL, SOCKET, CLONE3 = (56, 220), (272, 97), (16, 29), (41, 198), (435, 435)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

_LOAD, _EQUAL, _ABOVE, _ANY, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06  # ld [k]; jeq; jgt; jset; ret
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes each
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


@cache
def program(machine: str) -> bytes:
    """The filter for a machine as uname(2) calls it: instructions of classic BPF, 8 bytes each, in the machine's own order.

    Unavailable for one whose numbers are not here.
    """
    if machine not in _ARCHITECTURES:
        raise Unavailable(f"a seccomp list for {machine}", "nslab has the numbers of x86-64 and aarch64 only")
    column, architecture = _ARCHITECTURES[machine]
    refused = [numbers[column] for group in REFUSED.values() for numbers in group.values() if numbers[column] >= 0]
    lines = [
        (_LOAD, "", "", _ARCHITECTURE), (_EQUAL, "", "unknown", architecture),
        (_LOAD, "", "", _NUMBER), (_ABOVE, "unknown", "", HIGHEST), (_EQUAL, "unknown", "", CLONE3[column]),
        *((_EQUAL, "refuse", "", number) for number in sorted(refused)),
        *_by_argument(CLONE[column], 0, _ANY, (NAMESPACES,)),
        *_by_argument(UNSHARE[column], 0, _ANY, (NAMESPACES | NEWTIME,)),
        *_by_argument(IOCTL[column], 1, _EQUAL, (TIOCSTI, TIOCLINUX)),
        *_by_argument(SOCKET[column], 0, _EQUAL, (AF_ALG, AF_VSOCK)),
    ]  # fmt: skip
    return _assembled(lines)


def _by_argument(number: int, argument: int, test: int, values: tuple[int, ...]) -> list[tuple[int, str, str, int]]:
    """Refuse a call by the lower half of an argument: the kernel looks at no more of these (CVE-2019-10063)."""
    tests = [(test, "refuse", "", value) for value in values]
    return [(_EQUAL, "", f"+{len(tests) + 2}", number), (_LOAD, "", "", _ARGUMENTS + 8 * argument), *tests,
            (_RETURN, "", "", _ALLOW)]  # fmt: skip


def _assembled(lines: list[tuple[int, str, str, int]]) -> bytes:
    """(code, where to if true, where to if not, operand) with "" the next one, "+n" n further, and two labels at the end."""
    end = len(lines)
    labels = {"refuse": end + 1, "unknown": end + 2}
    lines = [
        *lines,
        (_RETURN, "", "", _ALLOW),
        (_RETURN, "", "", _ERRNO | errno.EPERM),
        (_RETURN, "", "", _ERRNO | errno.ENOSYS),
    ]

    def distance(label: str, at: int) -> int:
        return int(label) if label[:1] == "+" else labels[label] - at - 1 if label else 0

    return b"".join(
        struct.pack("=HBBI", code, distance(yes, at), distance(no, at), operand)
        for at, (code, yes, no, operand) in enumerate(lines)
    )
