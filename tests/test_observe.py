"""discover(): all that lsns sees is seen, and what it misses; /proc, ioctls and ip are the oracles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import nslab
from nslab.model import KINDS, NamespaceId
from nslab.model.snapshot import Snapshot
from nslab.observe import belonging
from nslab.procfs.found import Raw
from tests.helpers import ROOT, Row, eventually, link, lsns

THREAD = """
import ctypes, os, sys, threading
def aside():
    assert ctypes.CDLL(None).unshare(0x04000000) == 0
    print(threading.get_native_id(), os.readlink(f"/proc/thread-self/ns/uts"), flush=True)
    sys.stdin.read()
threading.Thread(target=aside).start()
"""


def inode(text: str) -> int:
    return int(text.partition("[")[2].rstrip("]"))


def seen(snapshot: Snapshot, kind: str, number: int) -> nslab.model.snapshot.SeenNamespace:
    (found,) = [each for each in snapshot.of_kind(kind) if each.id.ino == number]
    return found


def identities() -> set[str]:
    return {each.identity for each in nslab.discover(contents=False).namespaces}


@contextmanager
def script(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.communicate()


def test_this_process_is_seen_with_all_its_namespaces() -> None:
    snapshot = nslab.discover(os.getpid(), contents=False)
    me = snapshot.by_pid[os.getpid()]
    for kind in KINDS:
        info = os.stat(f"/proc/self/ns/{kind}")
        assert me.kinds[kind] == snapshot.machine[kind] == NamespaceId(info.st_dev, info.st_ino)
        found = snapshot.by_id[me.kinds[kind]]
        assert (found.kind, str(found)) == (kind, link(kind))
        assert os.getpid() in found.members
    assert (me.ppid, me.name, me.pids) == (os.getppid(), Path("/proc/self/comm").read_text()[:-1], (os.getpid(),))
    assert me.command == tuple(Path("/proc/self/cmdline").read_text().split("\0")[:-1])
    assert me.exe == os.readlink("/proc/self/exe")
    assert (me.state, me.uid, me.kernel) == ("R", os.geteuid(), False)


@pytest.mark.requires("tool:lsns", "tool:bwrap")
def test_all_that_lsns_sees_is_seen() -> None:
    """With containers, bubblewrap and a steered process running; others on this machine may come and go meanwhile."""
    bwrap = ["bwrap", "--unshare-all", "--dev-bind", "/", "/", "sh", "-c", "echo; read x"]
    with (
        nslab.Container("web", isolate="all") as web,
        nslab.Container("log", join={"net": web}),
        nslab.process() as steered,
        subprocess.Popen(bwrap, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapped,
    ):
        assert wrapped.stdout.readline()
        steered.unshare("uts")
        steady: dict[int, Row] = {}
        while len(steady) < 15:
            before, snapshot, after = lsns(), nslab.discover(contents=False), lsns()
            steady = {number: row for number, row in before.items() if after.get(number) == row}
        found = {each.id.ino: each for each in snapshot.namespaces}
        for number, row in steady.items():
            assert number in found, (number, row)
            assert found[number].kind == row.kind
        for identity in set(web.namespaces.ids().values()) - set(snapshot.machine.values()):
            row = steady.get(identity.ino) or lsns()[identity.ino]
            assert len(found[identity.ino].members) == row.members or row.kind == "user", (
                "as an ordinary user others share that"
            )
        wrapped.communicate()


@pytest.mark.parametrize("kind", KINDS)
def test_owner_parent_members_and_whose_it_is(kind: str) -> None:
    with nslab.Container("web", isolate=f"user {kind}") as web, web.namespaces[kind] as handle, handle.owner as owner:
        found = nslab.discover(contents=False).by_id[handle.id]
        assert found.owner == owner.id
        assert set(found.members) == set(handle.members())
        assert (found.leader, found.belongs) == (web.pid, "container web")
        assert {each.pid for each in found.holders} == {os.getpid()}, "by these handles"
        with web.namespaces["user"] as user:
            assert found.owner_uid == (user.owner_uid if kind != "user" else handle.owner_uid) == os.geteuid()
            if kind == "user":
                assert found.parent == owner.id


def test_pids_in_every_ancestor() -> None:
    with nslab.Container(isolate="pid") as web:
        sleeper = web.popen("sleep 1000")
        with web.namespaces["pid"] as handle, handle.parent as parent:
            snapshot = nslab.discover(contents=False)
            assert snapshot.by_pid[web.pid].pids == (web.pid, 1)
            assert snapshot.by_pid[sleeper.pid].pids == (sleeper.pid, sleeper.pid_inside)
            assert snapshot.by_id[handle.id].parent == parent.id
            assert snapshot.by_id[handle.id] in snapshot.below(parent.id)


# -- what lsns misses


@pytest.mark.parametrize("kind", ["uts", "net", "ipc", "mnt", "user", "time", "cgroup"])
def test_case_e02_held_by_a_descriptor_alone(kind: str) -> None:
    with nslab.Container(isolate=f"{kind}") as web:
        handle = web.namespaces[kind]
    with handle:
        found = nslab.discover(contents=False).by_id[handle.id]
        assert (found.kind, found.members, found.leader) == (kind, (), 0)
        numbers = {each.detail for each in found.holders if (each.sort, each.pid) == ("descriptor", os.getpid())}
        assert numbers == {str(handle.fileno())}
    assert eventually(lambda: found.identity not in identities()), "others who look may hold it for a moment"


def test_case_e01_held_by_a_bind_mount_alone_in_another_mount_namespace(tmp_path) -> None:
    place = tmp_path / "a b\nc"
    place.touch()
    with nslab.process() as holder:
        holder.unshare("mnt")
        with nslab.Container(isolate="uts") as web:
            with web.namespaces["uts"] as handle:
                identity = handle.id
            holder.mount(f"/proc/{web.pid}/ns/uts", str(place), None, "MS_BIND")
        found = nslab.discover(contents=False).by_id[identity]
        assert found.members == ()
        assert [(each.sort, each.detail) for each in found.holders] == [("mount", str(place))]
        where = holder.run(["readlink", "/proc/self/ns/mnt"]).stdout.strip()
        assert os.readlink(f"/proc/{found.holders[0].pid}/ns/mnt") == where
        assert any("a b\\nc" in row[-1] for row in nslab.discover(contents=False).rows())
    assert eventually(lambda: found.identity not in identities())


@pytest.mark.requires("root")
def test_held_by_a_thread_alone() -> None:
    with script(THREAD) as process:
        thread, text = process.stdout.readline().split()
        found = seen(nslab.discover(contents=False), "uts", inode(text))
        assert found.members == ()
        assert [(each.sort, each.pid, each.detail) for each in found.holders] == [("thread", process.pid, thread)]


def test_a_time_namespace_that_only_children_will_be_in() -> None:
    with nslab.process() as steered:
        steered.unshare("time")
        text = steered.run(["readlink", "/proc/self/ns/time"]).stdout.strip()
        found = seen(nslab.discover(contents=False), "time", inode(text))
        assert ("children", steered.pid) in {(each.sort, each.pid) for each in found.holders}


def test_an_owner_that_nobody_is_in_is_found_through_what_it_owns() -> None:
    """The user namespace outlives its members, since the one that it owns is held."""
    with nslab.Container("web", isolate="user uts") as web:
        handle = web.namespaces["uts"]
        with web.namespaces["user"] as user:
            identity = user.id
    with handle:
        found = nslab.discover(contents=False).by_id[identity]
        assert (found.kind, found.members) == ("user", ())
        assert [(each.sort, each.detail) for each in found.holders] == [("owner", str(handle))]


# -- identity


@pytest.mark.requires("linux:6.18")
def test_an_identity_survives_the_reuse_of_an_inode() -> None:
    """The kernel gives inodes out again soon: two namespaces with the same one are told apart."""
    seen_before: dict[NamespaceId, str] = {}
    for _ in range(300):
        with nslab.process() as steered:
            steered.unshare("uts")
            with steered.namespaces["uts"] as handle:
                number = nslab.syscalls.ns_get_id(handle.fileno())
                if handle.id in seen_before:
                    found = nslab.discover(contents=False).by_id[handle.id]
                    assert found.number == number
                    assert found.identity == f"uts {number}" != seen_before[handle.id]
                    return
                seen_before[handle.id] = f"uts {number}"
    pytest.skip("no inode was used twice")


# -- whole


def test_a_part_knows_the_cgroup_of_each_process() -> None:
    """Also of those in the machine's own namespaces, of whom the walk over all does not read it."""
    with nslab.process() as one, one.fork() as two:
        seen = {each.pid: each.cgroup for each in nslab.discover(one.pid).processes}
        assert set(seen) == {one.pid, two.pid}
        for pid, place in seen.items():
            paths = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
            assert place and place in paths


def test_a_snapshot_of_the_machine_comes_back_from_json() -> None:
    with nslab.Container("web", isolate="all"):
        snapshot = nslab.discover()
        assert Snapshot.from_json(snapshot.to_json()) == snapshot
        assert json.loads(snapshot.to_json())["scope"] == "the machine"
        for text in snapshot._repr_mimebundle_().values():
            assert "container web" in text


def test_looking_leaves_nothing_open_and_no_process() -> None:
    nslab.discover()
    before = sorted(os.listdir("/proc/self/fd"))
    nslab.discover()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_lab_that_was_destroyed_claims_nothing() -> None:
    """Its numbers may be given to others at once."""
    running = nslab.Topology.single(2).deploy()
    numbers = running.held()
    assert len(numbers) == 5, "two networks, two host names, one fabric"
    running.destroy()
    assert running.held() == []


LAB = """
import sys, nslab
topology = nslab.Topology.single(2, name="the ring")
lab = topology.deploy()
def say():
    print(*(each.ino for each in lab.held()), flush=True)
    sys.stdin.readline()
say()
topology.host("late")
say()
lab.destroy()
say()
"""


def test_a_lab_of_another_process_is_known_by_its_name_as_long_as_it_is_up() -> None:
    """Nobody is in its namespaces, and no command line tells: the process that holds them says so."""
    with script(LAB) as process:

        def labels(line: str) -> set[str]:
            snapshot = nslab.discover(contents=False)
            assert snapshot.by_id[snapshot.machine["net"]].belongs == ""
            return {each.belongs for each in snapshot.namespaces if each.id.ino in map(int, line.split())}

        first = process.stdout.readline()
        assert len(first.split()) == 5, "two networks and host names, and the fabric"
        assert labels(first) == {"lab the ring"}
        print(file=process.stdin, flush=True)
        second = process.stdout.readline()
        assert len(second.split()) == 7
        assert labels(second) == {"lab the ring"}
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "\n"
        assert "lab the ring" not in labels(second)


def test_a_reader_who_is_elsewhere_does_not_give_the_namespaces_of_all_others_to_bubblewrap() -> None:
    """The outer process of bwrap is where whoever started it is, be that the reader's place or not."""

    def raw(pid: int, ppid: int, name: str) -> Raw:
        return Raw(pid, ppid, name, "S", pid, 0, 1, False, (name,), "", False, (), (pid,), "")

    everybody, mine, theirs = ({"net": NamespaceId(4, inode)} for inode in (1, 2, 3))
    processes = {1: raw(1, 0, "init"), 10: raw(10, 1, "sh"), 11: raw(11, 10, "bwrap"), 12: raw(12, 11, "bwrap")}
    for there in (everybody, {"net": NamespaceId(4, 9)}):
        kinds = {1: everybody, 10: there, 11: there, 12: theirs}
        assert belonging.labels(processes, kinds, mine, {}, ()) == {theirs["net"]: "bwrap 11"}
