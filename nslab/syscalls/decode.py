"""How the arguments of each call are printed. The process that makes a call keeps them raw; whoever reads it decodes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from signal import Signals
from typing import Any

from nslab.model import KINDS
from nslab.trace import Step

CLONE_FLAGS = {kind.symbol: kind.flag for kind in KINDS.values()} | {
    "CLONE_VM": 0x100, "CLONE_VFORK": 0x4000, "CLONE_PARENT": 0x8000, "CLONE_INTO_CGROUP": 1 << 33, "SIGCHLD": 17,
}  # fmt: skip
MOUNT_FLAGS = {
    "MS_RDONLY": 0x1, "MS_NOSUID": 0x2, "MS_NODEV": 0x4, "MS_NOEXEC": 0x8, "MS_REMOUNT": 0x20, "MS_NOATIME": 0x400,
    "MS_BIND": 0x1000, "MS_MOVE": 0x2000, "MS_REC": 0x4000, "MS_UNBINDABLE": 0x20000, "MS_PRIVATE": 0x40000,
    "MS_SLAVE": 0x80000, "MS_SHARED": 0x100000,
}  # fmt: skip
UMOUNT_FLAGS = {"MNT_FORCE": 1, "MNT_DETACH": 2, "MNT_EXPIRE": 4, "UMOUNT_NOFOLLOW": 8}
PRCTL_OPTIONS = {
    1: "PR_SET_PDEATHSIG", 4: "PR_SET_DUMPABLE", 15: "PR_SET_NAME", 24: "PR_CAPBSET_DROP", 36: "PR_SET_CHILD_SUBREAPER",
    38: "PR_SET_NO_NEW_PRIVS", 47: "PR_CAP_AMBIENT",
}  # fmt: skip
RESOLVE_FLAGS = {
    "RESOLVE_NO_XDEV": 1, "RESOLVE_NO_MAGICLINKS": 2, "RESOLVE_NO_SYMLINKS": 4, "RESOLVE_BENEATH": 8, "RESOLVE_IN_ROOT": 16,
}  # fmt: skip
OPEN_FLAGS = {
    "O_WRONLY": os.O_WRONLY, "O_RDWR": os.O_RDWR, "O_CREAT": os.O_CREAT, "O_EXCL": os.O_EXCL, "O_DIRECTORY": os.O_DIRECTORY,
    "O_NOFOLLOW": os.O_NOFOLLOW, "O_PATH": os.O_PATH,
}  # fmt: skip
TREE_FLAGS = {"OPEN_TREE_CLONE": 1, "AT_EMPTY_PATH": 0x1000, "AT_RECURSIVE": 0x8000}
MOVE_FLAGS = {"MOVE_MOUNT_F_EMPTY_PATH": 0x4, "MOVE_MOUNT_T_EMPTY_PATH": 0x40}
MOUNT_ATTRIBUTES = {"MOUNT_ATTR_RDONLY": 0x1, "MOUNT_ATTR_IDMAP": 0x100000}
IOCTLS = {
    0xB701: "NS_GET_USERNS", 0xB702: "NS_GET_PARENT", 0xB703: "NS_GET_NSTYPE", 0xB704: "NS_GET_OWNER_UID",
    0x890B: "SIOCADDRT", 0x8914: "SIOCSIFFLAGS", 0x8916: "SIOCSIFADDR", 0x891C: "SIOCSIFNETMASK",
    0x8004B706: "NS_GET_PID_FROM_PIDNS", 0x8004B708: "NS_GET_PID_IN_PIDNS",
    0x8008B70D: "NS_GET_ID", 0x894C: "SIOCGSKNS",
}  # fmt: skip
INTERFACE_FLAGS = {"IFF_UP": 1}

IPC_FLAGS = {"IPC_CREAT": 0o1000, "IPC_EXCL": 0o2000, "IPC_NOWAIT": 0o4000}
IPC_COMMANDS = {0: "IPC_RMID", 13: "GETALL", 17: "SETALL"}

Decoder = Callable[[Any], str]


def bits(names: Mapping[str, int]) -> Decoder:
    """Decode a bit mask: "A|B|0x100", "0" for none."""

    def decode(value: int) -> str:
        found = [name for name, bit in names.items() if value & bit == bit]
        rest = value
        for name in found:
            rest &= ~names[name]
        return "|".join(found + ([hex(rest)] if rest else [])) or "0"

    return decode


def one_of(names: Mapping[int, str]) -> Decoder:
    """Decode a number that has a name."""
    return lambda value: names.get(value, str(value))


def text(value: Any) -> str:
    """A string as in C: NULL for None, quoted otherwise."""
    return "NULL" if value is None else repr(os.fsdecode(value) if isinstance(value, bytes) else value)


def fd(value: Any) -> str:
    return "AT_FDCWD" if value == -100 else f"fd {value}" if isinstance(value, int) else str(value)


def key(value: int) -> str:
    """The key of a System V object; 0 is IPC_PRIVATE."""
    return hex(value & 0xFFFFFFFF) if value else "IPC_PRIVATE"


def ipc_flags(value: int) -> str:
    """IPC_* bits, and the permissions in octal."""
    return "|".join([_ipc(value & 0o7000)] * bool(value & 0o7000) + [f"{value & 0o777:#o}"])


def words(value: Any) -> str:
    return repr(list(value))


def signals(value: Any) -> str:
    return "|".join(map(_signal, value)) if isinstance(value, Sequence) else _signal(value)


def _signal(number: int) -> str:
    return Signals(number).name if number in set(Signals) else str(number)  # 0 and the real-time ones have no name


_clone, _mount, _ipc = bits(CLONE_FLAGS), bits(MOUNT_FLAGS), bits(IPC_FLAGS)

DECODERS: Mapping[str, tuple[Decoder, ...]] = {
    "clone3": (_clone, words),
    "clone": (_clone,),
    "unshare": (_clone,),
    "setns": (fd, _clone),
    "mount": (text, text, text, _mount, text),
    "umount2": (text, bits(UMOUNT_FLAGS)),
    "pivot_root": (text, text),
    "mkdirat": (fd, text, oct),
    "symlinkat": (text, fd, text),
    "open": (text, one_of({os.O_NONBLOCK: "O_RDONLY|O_NONBLOCK"})),
    "openat2": (fd, text, bits(OPEN_FLAGS), bits(RESOLVE_FLAGS)),
    "open_tree": (fd, text, bits(TREE_FLAGS)),
    "move_mount": (fd, text, fd, text, bits(MOVE_FLAGS)),
    "mount_setattr": (fd, text, bits(TREE_FLAGS), bits(MOUNT_ATTRIBUTES), _mount),
    "chroot": (text,),
    "chdir": (text,),
    "sethostname": (text, str),
    "setdomainname": (text, str),
    "write": (text, text),
    "read": (text,),
    "mkdir": (text,),
    "rmdir": (text,),
    "execve": (text, words),
    "posix_spawn": (text, words),
    "prctl": (one_of(PRCTL_OPTIONS), str),
    "ioctl": (fd, one_of(IOCTLS), text, bits(INTERFACE_FLAGS)),
    "seccomp": (one_of({1: "SECCOMP_SET_MODE_FILTER"}), str, "{} instructions".format),
    "keyctl": (one_of({1: "KEYCTL_JOIN_SESSION_KEYRING"}), text),
    "listns": (str, _clone, str),
    "open_by_handle_at": (str, _clone, str),
    "pidfd_getfd": (fd, str),
    "kill": (str, signals),
    "pidfd_send_signal": (fd, signals),
    "signalfd": (signals,),
    "inotify_add_watch": (fd, text, hex),
    "setgroups": (words,),
    "shmget": (key, str, ipc_flags),
    "shmat": (str, text, bits({"SHM_RDONLY": 0o10000})),
    "shmdt": (hex,),
    "shmctl": (str, one_of(IPC_COMMANDS)),
    "semget": (key, str, ipc_flags),
    "semop": (str, words),
    "semctl": (str, str, one_of(IPC_COMMANDS)),
    "msgget": (key, ipc_flags),
    "msgsnd": (str, str, text, _ipc),
    "msgrcv": (str, str, str, _ipc),
    "msgctl": (str, one_of(IPC_COMMANDS)),
    "mq_open": (text, bits(OPEN_FLAGS | {"O_NONBLOCK": os.O_NONBLOCK}), oct),
    "mq_unlink": (text,),
    "mq_send": (fd, text),
    "mq_receive": (fd,),
    "mq_getattr": (fd,),
    "fsopen": (text,),
    "fsconfig": (fd, str),
    "fsmount": (fd,),
    "finit_module": (fd, text),
    "reboot": (one_of({0x4321FEDC: "LINUX_REBOOT_CMD_POWER_OFF"}),),
}


def arguments(call: str, raw: Sequence[Any]) -> tuple[str, ...]:
    """The arguments of a call as text, in its order."""
    decoders = DECODERS.get(call, ())
    return tuple(decoders[i](value) if i < len(decoders) else str(value) for i, value in enumerate(raw))


def step(call: str, raw: Sequence[Any], result: Any, errno: int, start: float, duration: float, pid: int, why: str) -> Step:
    """The Step of a call that was recorded raw."""
    return Step(call, arguments(call, raw), result, errno, start, duration, pid, why)
