"""Whose a namespace is: a container or lab of ours, as the process tree tells; another tool's, as cgroup paths tell."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping

from nslab.container.listing import owned
from nslab.model import KINDS, NamespaceId
from nslab.namespaces import claims
from nslab.procfs.found import Raw

BORROWED = "borrowed by nslab"  # the user namespace in which all else of an ordinary user is made
KindsOf = Mapping[int, Mapping[str, NamespaceId]]  # the namespaces of each process, by its PID

# What other tools call the cgroup of a container of theirs. cgroups(7), systemd.scope(5)
_TOOLS = tuple(
    (tool, re.compile(pattern))
    for tool, pattern in (
        ("docker", r"/docker[-/]([0-9a-f]{12})"),
        ("podman", r"/libpod-([0-9a-f]{12})"),
        ("containerd", r"/cri-containerd-([0-9a-f]{12})"),
        ("cri-o", r"/crio-([0-9a-f]{12})"),
        ("kubernetes", r"/kubepods.*/(?:pod)?([0-9a-f-]{12})"),
        ("lxc", r"/lxc(?:\.payload[./]|/)([^/]+)"),
        ("systemd-nspawn", r"/(?:machine-|systemd-nspawn@)([^/]+?)\.(?:scope|service)"),
        ("flatpak", r"/app-flatpak-([^/]+?)-\d+\.scope"),
        ("snap", r"/snap\.([^/.]+)\."),
        ("service", r"/([^/]+)\.service$"),
    )
)


def tool_of(cgroup: str) -> str:
    """The tool that made this cgroup, and its name for the container: "docker 4f2a91c0d1e2"; "" when the path tells none."""
    found = ((tool, pattern.search(cgroup)) for tool, pattern in _TOOLS)
    return next((f"{tool} {match[1]}" for tool, match in found if match), "")


def labels(
    processes: Mapping[int, Raw], kinds: KindsOf, machine: Mapping[str, NamespaceId],
    held: Mapping[NamespaceId, Iterable[int]], claimed: Iterable[tuple[int, int, str]],
) -> dict[NamespaceId, str]:  # fmt: skip
    """Whose each namespace is. ``held`` are the PIDs of the processes that hold it by a descriptor; ``claimed`` is what some
    say of those that they hold: PID, descriptor, label."""
    found: dict[NamespaceId, str] = {}
    common = {*machine.values(), *kinds.get(1, {}).values()}  # the reader may be elsewhere than all others

    def put(pid: int, label: str, but: Iterable[NamespaceId] = ()) -> None:
        passed = {*common, *but}
        for identity in kinds.get(pid, {}).values() if label else ():
            if identity not in passed:
                found.setdefault(identity, label)

    ours = {process.pid for process, _ in owned(processes)}
    for process in sorted(processes.values(), key=lambda each: (each.start, each.pid)):
        if process.name.startswith("nslab-") and (process.pid in ours or process.ppid in ours):
            put(process.pid, _ours(process), kinds.get(process.ppid, {}).values())
    for holder in claims.holders():
        found |= dict.fromkeys((each for each in holder.held() if each not in common), holder.label())
    for pid, number, label in (each for each in claimed if each[2].startswith("lab")):
        with contextlib.suppress(OSError, ValueError):  # it has ended, is not ours to read, or says something else
            for identity in claims.read(f"/proc/{pid}/fd/{number}"):
                if pid in held.get(identity, ()) and identity not in common:
                    found.setdefault(identity, label)
    for identity, pids in held.items():
        lab = next((processes[pid] for pid in pids if pid in processes and processes[pid].name == "nslab-lab"), None)
        if lab and identity not in common:
            found.setdefault(identity, f"lab {lab.command[1]}" if any(lab.command[1:]) else "lab")
    for process in processes.values():
        if process.cgroup and (label := tool_of(process.cgroup)):
            put(process.pid, label)
    for process in processes.values():
        if process.name == "bwrap" and (parent := processes.get(process.ppid)) and parent.name == "bwrap":
            put(process.pid, f"bwrap {parent.pid}", kinds.get(parent.ppid, {}).values())
    for process in processes.values():
        if process.name == "bwrap":
            put(process.pid, f"bwrap {process.pid}", kinds.get(process.ppid, {}).values())
    return found


def _ours(process: Raw) -> str:
    if process.command[:1] == ("nslab-init",):
        return f"container {process.command[1] if any(process.command[1:]) else process.pid}"
    return {"nslab-process": f"process {process.pid}", "nslab-borrowed": BORROWED}.get(process.name, "")


def label_of(process: Mapping[str, NamespaceId], found: Mapping[NamespaceId, str]) -> str:
    """Whose a process in these namespaces is: the user namespace, which many may share, has the last word."""
    order = [kind for kind in KINDS if kind != "user"] + ["user"]
    return next((label for kind in order if (label := found.get(process[kind], "") if kind in process else "")), "")
