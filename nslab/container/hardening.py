"""What ``hardened=True`` adds to a container, and to each command that enters it: all that namespaces leave open.

docs/hardened.md says what it closes, and what it does not promise.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nslab import model
from nslab.errors import SpecError
from nslab.model import IdRange
from nslab.namespaces import privilege
from nslab.namespaces.privilege import MapRequest
from nslab.ops import EnterRoot, IdMaps, Mask, Mount, NewNamespaces, Op, ReadOnly, SetIds, seccomp
from nslab.ops.confine import DropCapabilities, Limit, NewKeyring, NoNewPrivileges, NotDumpable, Seccomp
from nslab.ops.spec import id_ranges

# A way out or across leads through each of these, but for uts, which costs nothing; the clocks are no way anywhere.
KINDS = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup")
WHY_KINDS = "hardened: through each kind that is shared leads a way out"
WHY_OWN_ID = "hardened, but this user has no subordinate ids: root inside is still oneself outside"

# Enough for a class; a fork bomb is over at once, and a core dump would be written by the machine. getrlimit(2)
LIMITS = {"RLIMIT_NPROC": 1024, "RLIMIT_NOFILE": 4096, "RLIMIT_CORE": 0}

# What of /proc and /sys shows the machine, or changes it: there is one for all namespaces.
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/key-users",
    "/proc/kmsg", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats", "/proc/vmcore", "/sys/firmware",
    "/sys/devices/virtual/powercap", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
)  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/sys")
WHY_SYSFS = "hardened: the machine's own /sys has its interfaces and its cgroups"
WHY_COVERED = "hardened: it is the machine's, in whatever namespace one looks"


def check(kinds: tuple[str, ...], uid_map: MapRequest, gid_map: MapRequest | None, proc: str) -> tuple[str, ...]:
    """The kinds to isolate, of these and of those that it takes; SpecError for what cannot be had hardened."""
    for argument, asked in (("uid_map", uid_map), ("gid_map", gid_map)):
        lines = () if asked is None or isinstance(asked, str) else id_ranges(argument, asked)
        if any(line.outside == 0 for line in lines):
            raise SpecError(argument, "hardened=True maps nobody to id 0 of the machine, to which its files belong")
    if proc == "old":
        raise SpecError("proc", "hardened=True does not leave the machine's /proc in sight")
    return tuple(kind for kind in model.KINDS if kind in kinds or kind in KINDS)


def added(ops: Iterable[Op]) -> tuple[Op, ...]:
    """The ops of a container, with the reason why the kinds are new, and what then covers parts of /proc and /sys."""
    marked = [replace(op, implied=_why_kinds(op.maps)) if isinstance(op, NewNamespaces) else op for op in ops]
    enter = marked.pop() if isinstance(marked[-1], EnterRoot) else None
    root = enter.root if isinstance(enter, EnterRoot) else "/"
    read_only: tuple[str, ...] = READ_ONLY
    if not enter and any(isinstance(op, NewNamespaces) and "net" in op.kinds for op in marked):
        safe = ("MS_NOSUID", "MS_NODEV", "MS_NOEXEC")
        marked.append(Mount("sysfs", "/sys", "sysfs", safe, implied=WHY_SYSFS))
        marked.append(Mount(None, "/sys", None, ("MS_REMOUNT", "MS_BIND", "MS_RDONLY", *safe), implied=WHY_COVERED))
        read_only = tuple(path for path in READ_ONLY if path != "/sys")
    covered = (ReadOnly(read_only, root, implied=WHY_COVERED), Mask(MASKED, root, implied=WHY_COVERED))
    return (*marked, *covered, *((enter,) if enter else ()))


def _why_kinds(maps: IdMaps | None) -> str:
    return WHY_OWN_ID if maps and maps.single else WHY_KINDS


def id_maps(uid_map: MapRequest, gid_map: MapRequest, setgroups: str | None, around: IdMaps | None) -> IdMaps:
    """The maps asked for, but with subordinate ids for whom has any, and never oneself among them."""
    if around and len(around.uid) > 1 and len(around.gid) > 1:
        own = ("single", "subordinate")
        uid = _beside_oneself(around.uid) if uid_map in own else None
        gid = _beside_oneself(around.gid) if gid_map in own else None
        asked = privilege.id_maps(uid_map, gid_map, setgroups, around)
        return IdMaps(uid or asked.uid, gid or asked.gid, setgroups or "allow", caller=asked.caller)
    if not around and os.geteuid() == 0:
        uid_map = "subordinate" if uid_map == "single" else uid_map
        gid_map = "subordinate" if gid_map == "single" else gid_map
    return privilege.id_maps(uid_map, gid_map, setgroups, around)


def _beside_oneself(lines: Iterable[IdRange]) -> tuple[IdRange, ...]:
    """The ids of the borrowed user namespace without its 0, which is the user; no line may span two of its."""
    found, inside = [], 0
    for line in lines:
        if line.inside:
            found.append(IdRange(inside, line.inside, line.count))
            inside += line.count
    return tuple(found)


def confinement(before: tuple[Op, ...] = ()) -> tuple[Op, ...]:
    """What a process gives up, in an order in which each step is still allowed; ``before`` may have who it becomes then."""
    become = next((op for op in before if isinstance(op, SetIds)), None)
    ops: list[Any] = [
        NewKeyring(implied="hardened: keys belong to no namespace"),
        Limit(LIMITS, implied="hardened: what the machine has is for all"),
        Seccomp(seccomp.program(os.uname().machine), implied="hardened: what nobody needs, nobody can use against the kernel"),
        NoNewPrivileges(implied="hardened: a setuid file opens nothing"),
        DropCapabilities(become, implied="hardened: nor does being root inside"),
        NotDumpable(implied="hardened: who enters brings memory and descriptors of ours"),
    ]
    return tuple(ops)
