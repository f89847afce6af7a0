"""diff() and watch(): what appeared, vanished and changed, of every kind."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import nslab
from nslab import network
from nslab.model.difference import Change, Difference


def changes(steered, action) -> Difference:
    """What ``action`` changed, of a steered process and what it is in."""
    before = nslab.discover(steered)
    action()
    return nslab.diff(before, nslab.discover(steered))


def only(found: Difference, **wanted: str) -> Change:
    (change,) = found.of(**wanted)
    return change


def test_nothing_changed() -> None:
    with nslab.process() as steered:
        steered.unshare("uts")
        found = changes(steered, lambda: None)
        assert not found, str(found)
        assert str(found) == "nothing changed"


def test_a_host_name() -> None:
    with nslab.process() as steered:
        steered.unshare("uts")
        old = steered.run("hostname").stdout.strip()
        found = changes(steered, lambda: steered.sethostname("new"))
        change = only(found, sort="host name", kind="uts")
        assert (change.how, change.before, change.after) == ("changed", old, "new")
        with steered.namespaces["uts"] as uts:
            assert (change.namespace, change.place) == (uts.id, str(uts))


def test_a_process_that_unshares() -> None:
    with nslab.process() as steered:
        steered.unshare("ipc")
        with steered.namespaces["ipc"] as ipc:
            was = str(ipc)
        before = nslab.discover(contents=False)
        steered.unshare("ipc")
        found = nslab.diff(before, nslab.discover(contents=False))
        with steered.namespaces["ipc"] as ipc:
            now = str(ipc)
        moved = [each for each in found.of(sort="process", kind="ipc") if each.subject.startswith(f"{steered.pid} ")]
        assert [(each.before, each.after) for each in moved] == [(was, now)]
        assert now in {each.subject for each in found.of(how="appeared", sort="namespace", kind="ipc")}
        assert was in {each.subject for each in found.of(how="vanished", sort="namespace", kind="ipc")}


def test_a_mount_and_its_propagation(tmp_path) -> None:
    with nslab.process() as steered:
        steered.unshare("mnt")
        made = changes(steered, lambda: steered.mount("tmpfs", str(tmp_path), "tmpfs"))
        assert only(made, sort="mount").how == "appeared"
        shared = changes(steered, lambda: steered.mount(None, str(tmp_path), None, "MS_SHARED"))
        assert only(shared, sort="mount").after.rpartition(", ")[2].startswith("shared ")
        gone = changes(steered, lambda: steered.umount(str(tmp_path)))
        assert (only(gone, sort="mount").how, only(gone, sort="mount").subject) == ("vanished", str(tmp_path))


def test_ids_and_clocks() -> None:
    with nslab.process(as_="ordinary" if os.geteuid() else None) as steered:
        steered.unshare("user")
        found = changes(steered, lambda: steered.write("/proc/self/uid_map", f"0 {os.geteuid()} 1"))
        assert only(found, sort="uid map").before == "none"
        assert only(found, sort="uid map").after == f"0 is {os.geteuid()} (count 1)"


def test_ipc_objects() -> None:
    with nslab.Container(isolate="ipc") as web:
        found = changes(web, lambda: web.run("ipcmk -M 4096").check())
        assert only(found, sort="ipc object").after.startswith("4096 bytes, attached 0 times")


def test_interfaces_addresses_routes_and_listeners() -> None:
    with network.create() as one, network.create() as two:
        interface, _ = one.veth("a", two, "b", up=False)

        def action() -> None:
            interface.up()
            interface.address("10.0.0.1/24")
            interface.shape(rate="1mbit")

        before = nslab.discover(os.getpid())
        action()
        changed = nslab.diff(before, nslab.discover(os.getpid())).of(kind="net")
        found = [each for each in changed if each.namespace == one.namespace.id]
        sorts = {(each.how, each.sort, each.subject) for each in found}
        assert ("appeared", "address", "10.0.0.1/24 on a") in sorts
        assert ("appeared", "route", "10.0.0.0/24") in sorts
        (change,) = [each for each in found if each.sort == "interface" and each.subject == "a"]
        assert "down" in change.before
        assert "up" in change.after
        assert "rate 1000000 bit/s" in change.after


@pytest.mark.requires("root")
def test_a_process_that_is_put_into_another_cgroup() -> None:
    """Where there is no snapshot of that, nothing is said."""
    with nslab.process() as steered:
        before = nslab.discover(steered)
        after = replace(before, processes=tuple(replace(each, cgroup="/elsewhere") for each in before.processes))
        was = before.by_pid[steered.pid].cgroup
        assert f"::{was}" in Path("/proc/self/cgroup").read_text() or f":{was}\n" in Path("/proc/self/cgroup").read_text()
        (change,) = nslab.diff(before, after).of(sort="process")
        assert (change.before, change.after) == (f"cgroup {was}", "cgroup /elsewhere")
        assert not nslab.diff(before, replace(before, processes=tuple(replace(each, cgroup="") for each in before.processes)))


def test_holders() -> None:
    with nslab.Container(isolate="uts") as web:
        before = nslab.discover(web)
        with web.namespaces["uts"] as handle:
            found = nslab.diff(before, nslab.discover(web))
            subjects = {each.subject for each in found.of(how="appeared", sort="holder", kind="uts")}
            assert f"descriptor {handle.fileno()} of process {os.getpid()}" in subjects


def test_watch_shows_what_a_block_changed(capsys) -> None:
    with nslab.watch() as seen, nslab.Container("shop", isolate="uts", hostname="shop"):
        with nslab.watch(show=False) as nothing:
            pass
        assert not nothing.difference.of(kind="uts")
    assert not seen.difference.of(sort="namespace", kind="uts"), "it came and went"
    with nslab.watch() as seen:
        web = nslab.Container("shop", isolate="uts", hostname="shop")
    with web, web.namespaces["uts"] as uts:
        change = only(seen.difference, sort="namespace", kind="uts")
        assert (change.how, change.subject) == ("appeared", str(uts))
        assert "of container shop, host name shop" in change.after
        assert {each.subject for each in seen.difference.of(sort="process", how="appeared")} >= {str(web.pid)}
        assert str(change) in capsys.readouterr().out


def test_a_part_of_the_machine() -> None:
    with nslab.Container("web", isolate="uts pid", hostname="web") as web, nslab.Container("other", isolate="uts") as other:
        sleeper = web.popen("sleep 1000")
        snapshot = nslab.discover(web)
        assert snapshot.scope == "container web"
        assert {web.pid, sleeper.pid} <= set(snapshot.by_pid)
        assert other.pid not in snapshot.by_pid
        with web.namespaces["uts"] as uts, uts.owner as owner, other.namespaces["uts"] as theirs:
            assert {uts.id, owner.id} <= set(snapshot.by_id)
            assert theirs.id not in snapshot.by_id
        assert set(nslab.discover(web.pid).by_pid) >= {web.pid}
    with nslab.Topology.single(2).deploy() as lab:
        snapshot = nslab.discover(lab)
        assert set(lab.held()) <= set(snapshot.by_id)
        assert {each.belongs for each in snapshot.namespaces if each.id in lab.held()} == {"lab single"}


@pytest.mark.parametrize("thing", ["web", True, 2**22 + 1])
def test_what_is_no_part_is_refused(thing) -> None:
    with pytest.raises(nslab.SpecError, match="of: "):
        nslab.discover(thing)
