"""diff(): what appeared, vanished and changed between two snapshots.

Namespaces are matched by an identity that is never used again, processes by PID and start, mounts, interfaces and objects by
their number inside. What one of the snapshots does not know is no change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from nslab.model import IdMap, IpcObject, Mount, Route
from nslab.model.difference import Change, Difference
from nslab.model.snapshot import (
    CgroupContent,
    Content,
    IpcContent,
    Listener,
    MountContent,
    NetContent,
    SeenInterface,
    SeenNamespace,
    SeenProcess,
    Snapshot,
    TimeContent,
    UserContent,
    UtsContent,
)
from nslab.model.words import shift

# What looking itself makes and ends, and what is made ahead of time; and what is started once, at the first need.
_PASSING = {"nslab-standby", "nslab-visitor"}
_HELPERS = {"nslab-watchdog", "nslab-spawner", *_PASSING}


class Item(NamedTuple):
    """Something in a namespace: what it is, which one, and how it is, in words."""

    sort: str
    subject: str
    how: str


def diff(before: Snapshot, after: Snapshot) -> Difference:
    """What changed from one snapshot to the other: namespaces, what each isolates and what holds it, and processes."""
    changes: list[Change] = []
    old = {each.identity: each for each in before.namespaces}
    new = {each.identity: each for each in after.namespaces}
    for identity in {**old, **new}:
        one, two = old.get(identity), new.get(identity)
        if one and two:
            changes += _within(one, two)
        elif either := two or one:
            changes.append(_whole("appeared" if two else "vanished", either))
    changes += _processes(before, after)
    order = {"namespace": 0, "process": 2}
    changes.sort(key=lambda each: order.get(each.sort, 1))  # which is stable
    return Difference(before.taken, after.taken, tuple(changes))


def _whole(how: str, namespace: SeenNamespace) -> Change:
    said = [f"{len(namespace.members)} member" + "s" * (len(namespace.members) != 1)]
    said += [f"of {namespace.belongs}"] if namespace.belongs else []
    said += [f"host name {namespace.content.host_name}"] if isinstance(namespace.content, UtsContent) else []
    text = ", ".join(said)
    before, after = ("", text) if how == "appeared" else (text, "")
    return Change(how, "namespace", str(namespace), namespace.kind, namespace.id, before, after)


def _within(one: SeenNamespace, two: SeenNamespace) -> Iterator[Change]:
    yield from _compared({str(each): Item("holder", str(each), "") for each in one.holders},
                         {str(each): Item("holder", str(each), "") for each in two.holders}, two)  # fmt: skip
    if one.content is not None and two.content is not None:
        yield from _compared(items(one.content), items(two.content), two)


def _compared(old: Mapping[Hashable, Item], new: Mapping[Hashable, Item], where: SeenNamespace) -> Iterator[Change]:
    for key in {**old, **new}:
        one, two = old.get(key), new.get(key)
        if one == two:
            continue
        how = "changed" if one and two else "appeared" if two else "vanished"
        item = two or one
        assert item
        yield Change(how, item.sort, item.subject, where.kind, where.id, one.how if one else "", two.how if two else "")


def items(content: Content) -> dict[Hashable, Item]:
    """What is in a namespace, by what stays the same about it as long as it is there."""
    return dict(_ITEMS[type(content)](content))


def _uts(content: UtsContent) -> Iterable[tuple[Hashable, Item]]:
    yield "host", Item("host name", "", content.host_name)
    yield "domain", Item("domain name", "", content.domain_name)


def _user(content: UserContent) -> Iterable[tuple[Hashable, Item]]:
    yield "uid", Item("uid map", "", _lines(content.uid_map))
    yield "gid", Item("gid map", "", _lines(content.gid_map))
    yield "setgroups", Item("setgroups", "", content.setgroups)


def _lines(ids: IdMap) -> str:
    return ", ".join(f"{line.inside} is {line.outside} (count {line.count})" for line in ids.lines) or "none"


def _time(content: TimeContent) -> Iterable[tuple[Hashable, Item]]:
    yield "monotonic", Item("clock", "monotonic", shift(content.monotonic))
    yield "boottime", Item("clock", "boottime", shift(content.boottime))


def _mounts(content: MountContent) -> Iterable[tuple[Hashable, Item]]:
    for each in content.mounts:
        yield each.id, Item("mount", each.target, _mount(each))


def _mount(mount: Mount) -> str:
    tags = [
        f"{name} {group}".rstrip(" 0") if name == "unbindable" else f"{name} {group}" for name, group in mount.peers.items()
    ]
    source = f" of {mount.source}" if mount.source not in ("", "none", mount.fstype) else ""
    origin = f", {mount.root} in it" if mount.root != "/" else ""
    return f"{mount.fstype}{source}{origin}, {','.join(mount.options)}, {', '.join(tags) or 'private'}"


def _ipc(content: IpcContent) -> Iterable[tuple[Hashable, Item]]:
    for each in content.objects:
        name = each.name or f"{each.sort} {each.key:#x}"
        yield (each.sort, each.id, each.name), Item("ipc object", name, _object(each))


def _object(each: IpcObject) -> str:
    count = {"shm": f", attached {each.count} times", "msg": f", {each.count} messages"}.get(each.sort, "")
    unit = "semaphores" if each.sort == "sem" else "bytes"
    return f"{each.size} {unit}{count}, uid {each.uid}, {each.mode:03o}"


def _cgroup(content: CgroupContent) -> Iterable[tuple[Hashable, Item]]:
    for hierarchy, path in content.roots.items():
        yield hierarchy, Item("cgroup root", hierarchy or "v2", path)


def _net(content: NetContent) -> Iterable[tuple[Hashable, Item]]:
    names = {each.state.index: each.state.name for each in content.interfaces}
    for each in content.interfaces:
        yield each.state.index, Item("interface", each.state.name, _interface(each, names))
        for address in each.state.addresses:
            yield (each.state.index, address), Item("address", f"{address} on {each.state.name}", "")
    for route in content.routes:
        yield route, Item("route", route.to, _route(route, names))
    for listener in content.listening:
        yield listener, Item("listener", _listener(listener), "")


def _interface(each: SeenInterface, names: Mapping[int, str]) -> str:
    state = each.state
    said = [f"{state.name} ({state.kind or 'unknown'})", "up" if state.up else "down", state.mac, f"MTU {state.mtu}"]
    said += [f"port of {names.get(state.master, state.master)}"] if state.master else []
    said += [f"rate {each.rate} bit/s"] * bool(each.rate) + [f"delay {each.delay} µs"] * bool(each.delay)
    said += [f"loss {each.loss:g} %"] * bool(each.loss)
    return ", ".join(filter(None, said))


def _route(route: Route, names: Mapping[int, str]) -> str:
    return " ".join(filter(None, (f"via {route.via}" if route.via else "", f"on {names.get(route.index, route.index)}")))


def _listener(each: Listener) -> str:
    return f"{each.protocol} " + (f"[{each.address}]:{each.port}" if ":" in each.address else f"{each.address}:{each.port}")


_ITEMS: Mapping[type, Callable[[Any], Iterable[tuple[Hashable, Item]]]] = {
    UtsContent: _uts, UserContent: _user, TimeContent: _time, MountContent: _mounts, IpcContent: _ipc, CgroupContent: _cgroup,
    NetContent: _net,
}  # fmt: skip


def _processes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    old, new = (
        {(each.pid, each.start): each for each in one.processes if each.name not in _PASSING} for one in (before, after)
    )
    helpers = {key for key, each in {**old, **new}.items() if each.name in _HELPERS and (key in old) != (key in new)}
    for key in sorted({**old, **new}.keys() - helpers):
        one, two = old.get(key), new.get(key)
        if one and two:
            yield from _moved(one, two)
        elif two:
            yield Change("appeared", "process", str(two.pid), after=_process(two))
        elif one:
            yield Change("vanished", "process", str(one.pid), before=_process(one))


def _process(process: SeenProcess) -> str:
    return process.title() + (f", of {process.belongs}" if process.belongs else "")


def _moved(one: SeenProcess, two: SeenProcess) -> Iterator[Change]:
    """A process that unshared or joined something, or executed another program."""
    for kind, identity in two.kinds.items():
        if kind in one.kinds and one.kinds[kind] != identity:
            was, now = (f"{kind}:[{each.ino}]" for each in (one.kinds[kind], identity))
            yield Change("changed", "process", f"{two.pid} {two.name}", kind, identity, was, now)
    if one.command != two.command and one.state != "Z" != two.state:
        yield Change("changed", "process", str(two.pid), before=one.title(), after=two.title())
    if one.cgroup != two.cgroup and one.cgroup and two.cgroup:
        yield Change("changed", "process", f"{two.pid} {two.name}", before=f"cgroup {one.cgroup}", after=f"cgroup {two.cgroup}")
    if one.uid != two.uid:
        yield Change("changed", "process", f"{two.pid} {two.name}", before=f"uid {one.uid}", after=f"uid {two.uid}")
