"""The numbers of one process or user in several namespaces: chosen, read back, translated; and capabilities by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import nslab
from nslab import procfs
from nslab.model import CAPABILITIES, IdMap, IdRange
from nslab.namespaces import numbering
from tests.helpers import link, status

ROOT = os.geteuid() == 0
NEW = "pid" if ROOT else "user pid"  # an ordinary user chooses PIDs where he owns the PID namespace


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_a_fork_into_new_namespaces() -> None:
    with nslab.process() as process:
        child = process.fork("uts mnt pid")
        assert process.trace[-1].args == ("CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWPID",)
        own = {kind for kind in os.listdir("/proc/self/ns") if link(kind, child.pid) != link(kind, process.pid)}
        assert own == {"uts", "mnt", "pid", "pid_for_children"}
        assert link("pid_for_children", process.pid) == link("pid"), "the parent's next children stay"
        child.sethostname("child")
        child.mount("none", "/mnt", "tmpfs")
        assert process.gethostname() == os.uname().nodename
        assert " /mnt " not in Path("/proc/self/mountinfo").read_text()
        child.close()
        assert process.wait(child) == -9


def test_chosen_pids() -> None:
    with nslab.process() as process:
        outer = process.fork(NEW)
        inner = outer.fork("pid", set_tid=[1, 200])
        chosen = inner.fork(set_tid=[300, 400])
        assert inner.trace[-1].args == ("0", "[300, 400]")
        assert (chosen.pids, chosen.getpid()) == ((chosen.pid, 400, 300), 300)
        assert status(inner.pid, "NSpid") == [str(inner.pid), "200", "1"]
        assert inner.fork(set_tid=[301]).pids[2] == 301
        for pids, kinds, errno, why in (
            ([300], "", "EEXIST", "belongs to a process"),
            ([9, 9, 9999, 9], "", "EINVAL", "4 PIDs were chosen; .* in 3 PID namespaces"),
            ([2], "pid", "EINVAL", "is PID 1"),
            *([([2**22 - 1] * 3, "", "EINVAL", "below pid_max")] if ROOT else []),  # that of the machine is lower
        ):
            with pytest.raises(nslab.SyscallError, match=why) as caught:
                inner.fork(kinds, set_tid=pids)
            assert caught.value.name == errno


@pytest.mark.requires("ordinary")
def test_a_pid_of_the_machine_is_not_an_ordinary_users_choice() -> None:
    with nslab.process() as process, pytest.raises(nslab.SyscallError, match="CAP_CHECKPOINT_RESTORE") as caught:
        process.fork("pid", set_tid=[1, 4000])
    assert caught.value.name == "EPERM"


def test_the_last_pid_is_written_in_an_own_namespace_only() -> None:
    file = "/proc/sys/kernel/ns_last_pid"
    with nslab.process() as process:
        with pytest.raises(nslab.Refused, match="pid namespace"):
            process.write(file, "700")
        with pytest.raises(nslab.Refused, match="pid namespace"):
            process.call(nslab.syscalls.write_file, file, "700")
        assert not process.trace.failed
        child = process.fork(NEW)
        child.write(file, "700")
        assert child.fork().pids[1] == 701


@pytest.mark.parametrize(
    ("kinds", "pids", "argument"),
    [
        ("pidd", (), "kinds"), ("", "5", "set_tid"), ("", 5, "set_tid"), ("", [0], "set_tid"), ("", [-1], "set_tid"),
        ("", [2**22], "set_tid"), ("", ["5"], "set_tid"), ("", [1.5], "set_tid"), ("pid", [1] * 34, "set_tid"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused_before(kinds: str, pids: object, argument: str) -> None:
    with nslab.process() as process:
        steps = len(process.trace)
        with pytest.raises(nslab.SpecError) as caught:
            process.fork(kinds, set_tid=pids)  # type: ignore[arg-type]
        assert caught.value.argument == argument
        assert len(process.trace) == steps
        assert process.alive


# -- PIDs -------------------------------------------------------------------------------------------------------------


def test_the_pids_of_a_container_and_a_process() -> None:
    with nslab.Container(isolate="pid") as web:
        assert [str(pid) for pid in web.pids] == status(web.pid, "NSpid") == [str(web.pid), "1"]
        process = nslab.process()
        assert process.pids == (process.pid,)
        process.close()
        with pytest.raises(nslab.DeadNamespace):
            process.pids
    with pytest.raises(nslab.DeadNamespace):
        web.pids


def test_a_pid_is_translated_both_ways() -> None:
    with nslab.process() as process:
        outer = process.fork("pid")
        inner = outer.fork("pid")
        member = inner.fork()
        spaces = [each.namespaces["pid"] for each in (inner, outer, process)]
        assert spaces[0].ancestors()[:2] == spaces[1:]
        for space, number in zip(spaces, reversed(member.pids), strict=True):
            assert space.pid_inside(member.pid) == numbering.pid_by_status(space, member.pid) == number
            assert space.pid_outside(number) == member.pid
        assert spaces[0].pid_inside(outer.pid) is None is numbering.pid_by_status(spaces[0], outer.pid)
        assert spaces[0].pid_outside(4000) is None
        assert spaces[1].pid_inside(spaces[0].pid_outside(1)) == 2, "from one namespace into another"
        ended = member.pid
        member.close()
        inner.wait(member)
        assert spaces[0].pid_inside(ended) is None is numbering.pid_by_status(spaces[0], ended)
        with process.namespaces["uts"] as uts, pytest.raises(nslab.SpecError, match="uts"):
            uts.pid_inside(1)
        with pytest.raises(nslab.SpecError):
            spaces[0].pid_inside(0)


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_a_map_translates_both_ways() -> None:
    table = IdMap((IdRange(0, 1000, 1), IdRange(1, 100000, 10), IdRange(50, 2**32 - 1, 1)))
    assert [table.outside(number) for number in (0, 1, 10, 11, 50)] == [1000, 100000, 100009, None, None]
    assert [table.inside(number) for number in (1000, 100009, 0, 2**32 - 1)] == [0, 10, None, None]
    assert str(table).split() == ["inside", "outside", "count", "0", "1000", "1", "1", "100000", "10", "50", "4294967295", "1"]
    assert "<td" in table._repr_mimebundle_()["text/html"]
    assert IdMap(()).outside(0) is None


def test_the_map_of_a_namespace_is_read_back() -> None:
    uid, gid = os.getuid(), os.getgid()
    with nslab.Container(isolate="user", uid_map=[(7, uid, 1)], gid_map=[(8, gid, 1)]) as web, web.namespaces["user"] as user:
        assert user.uid_map.lines == ((7, uid, 1),)
        assert (user.uid_map.outside(7), user.uid_map.inside(uid)) == (uid, 7)
        assert (user.gid_map.outside(8), user.gid_map.outside(9)) == (gid, None)
        web.close()
        assert user.members() == []
        assert (user.uid_map.lines, user.gid_map.lines) == (((7, uid, 1),), ((8, gid, 1),)), "a visitor has looked"
        assert user.run("id -u; id -g").lines == ["7", "8"], "and was no root, since there is none"
        assert user.members() == []
    with nslab.Namespace.of("self", "user") as own:
        assert (own.uid_map.inside(uid), own.uid_map.outside(uid)) == (uid, uid)


def test_an_id_through_the_levels() -> None:
    def maps(own: int) -> None:
        uid, gid = os.getuid(), os.getgid()
        nslab.syscalls.unshare(0x10000000)
        nslab.syscalls.write_file("/proc/self/setgroups", "deny")
        nslab.syscalls.write_file("/proc/self/uid_map", f"{own} {uid} 1")
        nslab.syscalls.write_file("/proc/self/gid_map", f"{own} {gid} 1")

    with nslab.process() as process:
        processes = [process]
        for own in (5, 6, 7):
            processes.append(processes[-1].fork())
            processes[-1].call(maps, own)
        spaces = [each.namespaces["user"] for each in processes]
        outside = spaces[3].uid_map.outside(7)
        assert outside == os.getuid()
        assert [space.uid_map.inside(outside) for space in spaces] == [0, 5, 6, 7]
        assert spaces[3].ancestors()[:3] == spaces[2::-1]


# -- capabilities -----------------------------------------------------------------------------------------------------


def test_capabilities_by_name_inside_and_out() -> None:
    with nslab.Container(isolate="user") as web:
        held = web.capabilities()
        assert held.effective == held.permitted == held.bounding == set(CAPABILITIES)
        assert held.inheritable == held.ambient == frozenset()
        assert status(web.pid, "CapEff") == [f"{(1 << 41) - 1:016x}"]
        assert held.own
        assert f"user:[{held.user.ino}]" == link("user", web.pid) != link("user")
        assert "effective    all 41" in str(held)
        assert "nothing of it outside" in str(held)
        assert "<table>" in held._repr_mimebundle_()["text/html"]
    with pytest.raises(nslab.DeadNamespace):
        web.capabilities()
    with nslab.process(as_="ordinary") as process:
        held = process.capabilities()
        assert held.effective == frozenset()
        assert not held.own
        assert "effective    none" in str(held)


@pytest.mark.requires("tool:setpriv")
def test_some_capabilities() -> None:
    with nslab.Container(isolate="user pid mnt") as web:
        sleeper = web.popen(["setpriv", "--bounding-set", "-all,+kill,+chown", "sh", "-c", "echo; exec sleep 1000"])
        assert sleeper.stdout and sleeper.stdout.readline()
        held = procfs.capability_sets(sleeper.pid)
        sleeper.end()
    assert held.bounding == {"CAP_CHOWN", "CAP_KILL"}
    assert "bounding     CAP_CHOWN, CAP_KILL" in str(held)


@pytest.mark.unit
def test_the_names_are_those_of_the_kernel() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(CAPABILITIES) >= last + 1
    assert [CAPABILITIES[n] for n in (0, 21, 31, 40)] == [
        "CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_SETFCAP", "CAP_CHECKPOINT_RESTORE",
    ]  # fmt: skip
