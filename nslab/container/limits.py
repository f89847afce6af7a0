"""Limits of processes, memory and processor time: checked, and the cgroup (v2) in which the kernel can hold them.

cgroup v1 is left alone: each controller is a tree of its own there, a process cannot be born in it, nothing ends all that is in
it at once, and an ordinary user can be given none safely.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nslab import procfs
from nslab.errors import SpecError, Unavailable
from nslab.ops import InCgroup, spec

PERIOD = 100_000  # microseconds, over which the kernel hands out processor time
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SMALLEST = 4 << 20  # nslab's own init and the supervisor of a command need about half of it
_numbers = itertools.count(1)


def checked(limits: Mapping[str, Any] | None) -> dict[str, tuple[str, str]]:
    """{"pids": 50, "memory": "256M", "cpu": 0.5} -> by controller, the file of the cgroup and what is to be written to it."""
    if limits is None:
        return {}
    if not isinstance(limits, Mapping):
        raise SpecError("limits", f"must be a dict, not {type(limits).__name__}")
    rules = {"pids": _pids, "memory": _memory, "cpu": _cpu}
    for name in limits:
        if name not in rules:
            raise SpecError("limits", f"{name!r} is none of {', '.join(rules)}{spec.guess(name, rules)}")
    return {name: rules[name](limits[name]) for name in rules if name in limits}


def _pids(value: Any) -> tuple[str, str]:
    if isinstance(value, bool) or not isinstance(value, int) or not 3 <= value <= 1 << 22:
        raise SpecError("limits", f"pids is a whole number from 3 (init, a supervisor, a command) to {1 << 22}, not {value!r}")
    return "pids.max", str(value)


def _memory(value: Any) -> tuple[str, str]:
    match = re.fullmatch(r"(\d+) *([kmgt]?)(?:i?b)?", str(value).strip().lower())
    if not match or isinstance(value, bool):
        raise SpecError("limits", f"memory is a number of bytes, or one with K, M, G or T behind it, not {value!r}")
    size = int(match[1]) * _UNITS[match[2]]
    if not _SMALLEST <= size < 1 << 63:
        raise SpecError("limits", f"memory {value!r} is not between 4M, which nslab itself may need there, and 2**63 bytes")
    return "memory.max", str(size)


def _cpu(value: Any) -> tuple[str, str]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0.01 <= value <= 1e4:
        raise SpecError("limits", f"cpu is a number of processors from 0.01 on (0.5: half of one), not {value!r}")
    return "cpu.max", f"{round(value * PERIOD)} {PERIOD}"


def cgroup(group: str, limits: Mapping[str, tuple[str, str]], root: str = "/") -> InCgroup:
    """A new leaf below ``group``, in the nearest cgroup where that can be; Unavailable where there is none.

    ``root`` is where the machine's files are, for a test.
    """
    base = place(tuple(limits), root)
    return InCgroup(base, group, str(next(_numbers)), tuple(limits), tuple(limits.values()))


def of_process(pid: int) -> InCgroup | None:
    """The leaf that a container of another process of nslab is in; None when it has none, or none that can be seen here."""
    try:
        top, _ = _tree((), "/")
    except Unavailable:
        return None
    base, group, leaf = f"{top}{procfs.cgroups(pid).get((), '/')}".rsplit("/", 2)
    return InCgroup(base, group, leaf, found=True) if group.startswith("nslab-") and os.path.isdir(f"{base}/{group}") else None


def is_frozen(cgroup: InCgroup) -> bool:
    return "frozen 1" in " ".join(_words(f"{cgroup.path}/cgroup.events"))


def place(controllers: tuple[str, ...], root: str = "/") -> str:
    """The cgroup, as a path, at or above one's own, in which this user may make others and have these controllers."""
    top, own = _tree(controllers, root)
    _must_have(controllers, top, root)
    why = []
    for path in _upwards(own, top):
        reason = _obstacle(path, controllers, real=path == top and not os.path.exists(f"{path}/cgroup.type"))
        if not reason:
            return path
        why.append(f"{_plain(path, root)}: {reason}")
    raise Unavailable(
        f"there is no cgroup here in which nslab may have {_names(controllers)}:\n    " + "\n    ".join(why),
        "as an ordinary user start Jupyter in a cgroup that systemd hands over: systemd-run --user --scope -p Delegate=yes "
        "jupyter lab; in a container move its processes into a leaf first: mkdir /sys/fs/cgroup/leaf, and each PID of "
        "/sys/fs/cgroup/cgroup.procs into leaf/cgroup.procs. cgroups(7)",
    )


def _tree(controllers: tuple[str, ...], root: str) -> tuple[str, str]:
    """The paths of the topmost visible cgroup of v2, and of one's own."""
    mount = next((each for each in _mounts(root) if each.fstype == "cgroup2"), None)
    if mount is None:
        _must_have(controllers, "", root)
    own = procfs.cgroups(root=os.path.join(root, "proc")).get((), "/")
    if mount is None or ".." in f"{mount.root}/{own}".split("/") or not f"{own}/".startswith(mount.root.rstrip("/") + "/"):
        raise Unavailable(
            f"{_names(controllers)}: no cgroup v2 hierarchy is mounted that shows the cgroup of this process ({own})",
            "mount -t cgroup2 none /sys/fs/cgroup, or start the container that this is with its cgroup filesystem writable",
        )
    top = os.path.join(root, mount.target.lstrip("/"))
    return top, os.path.join(top, own[len(mount.root.rstrip("/")) :].strip("/")).rstrip("/")


def _must_have(controllers: tuple[str, ...], top: str, root: str) -> None:
    """Unavailable for a controller that v2 does not have here: where it is instead."""
    there = _words(f"{top}/cgroup.controllers") if top else []
    missing = [name for name in controllers if name not in there]
    if not missing:
        return
    numbers = {}
    for line in procfs.read("cgroups", os.path.join(root, "proc")).decode().splitlines()[1:]:
        name, number, *_ = line.split()
        numbers[name] = number
    said = []
    for name in missing:
        v1 = [each.target for each in _mounts(root) if each.fstype == "cgroup" and name in each.super_options]
        if v1:
            said.append(f"{name} belongs to cgroup v1 (hierarchy {numbers.get(name, '?')}, mounted at {v1[0]})")
        elif numbers.get(name, "0") != "0":
            said.append(f"{name} belongs to cgroup v1 (hierarchy {numbers[name]}, not mounted here)")
        else:
            said.append(f"{name} is not enabled above the cgroups that can be seen here, or this kernel lacks it")
    have = f"{_plain(top, root)} has {' '.join(there) or 'none'}" if top else "no hierarchy of v2 is mounted"
    raise Unavailable(
        f"limits need the controllers of cgroup v2 ({have}): {'; '.join(said)}",
        "boot with systemd.unified_cgroup_hierarchy=1, or with cgroup_no_v1=all on the kernel's command line, which gives all "
        "controllers to v2; or do it in a virtual machine that does. cgroups(7)",
    )


def _obstacle(path: str, controllers: tuple[str, ...], real: bool) -> str:
    """Why no group can be made in a cgroup; "" when it can. ``real`` is the root of the whole tree."""
    files = [path, f"{path}/cgroup.procs", *([f"{path}/cgroup.subtree_control"] if controllers else [])]
    for name in files:
        if not os.access(name, os.W_OK, effective_ids=True):
            return f"{'it' if name == path else os.path.basename(name)} is not writable for uid {os.geteuid()}"
    kind = "domain" if real else " ".join(_words(f"{path}/cgroup.type"))
    if kind != "domain":
        return f"its type is {kind!r}, which no group with these controllers may be below"
    missing = [name for name in controllers if name not in _words(f"{path}/cgroup.controllers")]
    if missing:
        return f"{' '.join(missing)} not enabled for it by the cgroup above"
    if set(controllers) <= set(_words(f"{path}/cgroup.subtree_control")) or real:
        return ""
    members = len(_words(f"{path}/cgroup.procs"))
    return f"{members} processes are in it, so no controller can be enabled for groups below (cgroups(7))" if members else ""


def _upwards(own: str, top: str) -> Iterator[str]:
    while own.startswith(top):
        yield own
        if own == top:
            return
        own = os.path.dirname(own)


def _mounts(root: str) -> Iterable[Any]:
    return procfs.mountinfo(root=os.path.join(root, "proc"))


def _plain(path: str, root: str) -> str:
    return "/" + os.path.relpath(path, root)


def _names(controllers: tuple[str, ...]) -> str:
    return f"limits of {', '.join(controllers)}" if controllers else "a group of its own"


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def counted(path: str) -> dict[str, float]:
    """What the kernel counts for a cgroup, by the names of its files; what it does not count is left out."""
    found = {}
    for name in ("pids.current", "pids.max", "memory.current", "memory.peak", "memory.max"):
        for word in _words(f"{path}/{name}"):
            if word != "max":
                found[name] = float(word)
    for name, keys in (("cpu.stat", ("usage_usec", "throttled_usec")), ("memory.events", ("oom_kill",))):
        words = _words(f"{path}/{name}")
        found |= {f"{name} {key}": float(value) for key, value in zip(words[::2], words[1::2], strict=True) if key in keys}
    return found
