"""What a namespace isolates, in a line or two: for labels."""

from __future__ import annotations

from nslab.model import IdRange
from nslab.model.snapshot import (
    CgroupContent,
    IpcContent,
    MountContent,
    NetContent,
    SeenNamespace,
    Snapshot,
    TimeContent,
    UserContent,
    UtsContent,
)  # fmt: skip
from nslab.model.words import shift

_SORTS = {"shm": "shared memory segment", "sem": "semaphore set", "msg": "message queue", "mq": "POSIX queue"}


def lines(snapshot: Snapshot, namespace: SeenNamespace) -> list[str]:
    """What is in it, as far as that was looked at."""
    match namespace.content:
        case UtsContent(host_name, domain_name):
            return [f"host name {host_name}", *([f"domain {domain_name}"] if domain_name not in ("", "(none)") else [])]
        case UserContent(uid_map, gid_map, _):
            return [f"uid {_ranges(uid_map.lines)}", *([f"gid {_ranges(gid_map.lines)}"] if gid_map.lines else [])]
        case TimeContent(monotonic, boottime):
            return [f"monotonic {shift(monotonic)}, boot {shift(boottime)}"]
        case MountContent(mounts, _):
            top = next((each for each in mounts if each.target == "/"), None)
            return [f"{len(mounts)} mounts", *([f"/ is {top.fstype}"] if top else [])]
        case IpcContent(objects):
            counts = {sort: len([each for each in objects if each.sort == sort]) for sort in _SORTS}
            said = [f"{count} {_SORTS[sort]}{'s' * (count > 1)}" for sort, count in counts.items() if count]
            return [", ".join(said) or "no objects"]
        case CgroupContent(roots):
            return [f"/ is {next(iter(roots.values()), '?')}"]
        case NetContent(interfaces, _, listening):
            shown = [f"{each.state.name} {' '.join(each.state.addresses[:2])}".strip() for each in interfaces[:4]]
            ports = ", ".join(dict.fromkeys(f"{each.port}/{each.protocol}" for each in listening[:6]))
            more = [f"and {len(interfaces) - 4} more"] if len(interfaces) > 4 else []
            return [*shown, *more, *([f"listens at {ports}"] if ports else [])]
    if namespace.kind == "pid":
        count = sum(namespace.id == each.kinds.get("pid") for each in snapshot.processes)
        return [f"{count} process{'' if count == 1 else 'es'}"]
    return []


def _ranges(ranges: tuple[IdRange, ...]) -> str:
    said = [f"{line.inside} is {line.outside}" + (f" ({line.count:,} ids)" if line.count > 1 else "") for line in ranges[:2]]
    return "; ".join(said) + ("; ..." if len(ranges) > 2 else "") or "nothing mapped"
