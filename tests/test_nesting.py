"""Containers inside containers: a pid or user namespace that is new in one that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from tests.helpers import has_ended, link, pidfd_of
from tests.test_ops_shell import BORROWED, PROBE, by_hand, own, seen

UID = os.getuid()


@pytest.fixture
def outer() -> Iterator[nslab.Container]:
    with nslab.Container("outer", isolate="pid") as container:
        yield container


def numbers(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/status").read_text()
    return next([int(word) for word in line.split()[1:]] for line in text.splitlines() if line.startswith("NSpid:"))


def test_an_init_below_an_init(outer: nslab.Container) -> None:
    with nslab.Container("inner", isolate="pid uts", hostname="inner", join={"pid": outer}) as inner:
        assert numbers(inner.pid) == list(inner.pids)
        assert (len(inner.pids), inner.pids[0], inner.pids[2]) == (3, inner.pid, 1)
        with inner.namespaces["pid"] as own, outer.namespaces["pid"] as above:
            assert own.parent == above != own
            assert above.pid_inside(inner.pid) == inner.pids[1] > 1
        assert inner.run("hostname").stdout == "inner\n"
        with nslab.Container(isolate="pid mnt", join={"pid": inner}) as deepest:
            assert len(deepest.pids) == 4
            assert deepest.run("cd /proc; ls -d [1-9]*").lines[0] == "1"
            assert "\nNSpid:\t1\n" in deepest.run("cat /proc/1/status").stdout


def test_the_steps_on_the_way_are_told(outer: nslab.Container) -> None:
    with nslab.Container(isolate="pid", join={"pid": outer}) as inner:
        steps = [step for step in inner.trace if step.call in ("setns", "clone3")]
        assert [step.args[-1] for step in steps] == ["CLONE_NEWPID", "CLONE_PARENT", "CLONE_NEWPID|CLONE_PARENT"]
        assert "only a member" in steps[1].implied
        assert steps[2].result == inner.pids[1], "as it was told in there"


@pytest.mark.parametrize("kinds", ["pid", "pid mnt", "uts pid"])
def test_a_one_shot_inside(outer: nslab.Container, kinds: str) -> None:
    with nslab.record() as trace:
        made = seen(nslab.run(PROBE, isolate=kinds, join={"pid": outer}, check=True).stdout)
    assert own(made) == set(kinds.split()) | BORROWED
    script = trace.shell()
    assert script.count("--pid") == 2
    assert by_hand(script) == made


def test_with_the_outer_init_all_end(outer: nslab.Container) -> None:
    with nslab.Container(isolate="pid", join={"pid": outer}) as inner, nslab.Container(isolate="pid") as beside:
        with nslab.Container(isolate="pid", join={"pid": inner}) as deepest, pidfd_of(inner.pid) as one:
            with pidfd_of(deepest.pid) as two:
                outer.close()
                assert has_ended(one) and has_ended(two)
            with pytest.raises(nslab.DeadNamespace):
                deepest.run("true")
        assert beside.alive
        with pytest.raises(nslab.DeadNamespace):
            nslab.Container(isolate="pid", join={"pid": inner})


@pytest.mark.parametrize("kinds", ["user", "user pid mnt", "user uts"])
def test_a_user_namespace_inside_another(kinds: str) -> None:
    hierarchical = [kind for kind in kinds.split() if kind in ("user", "pid")]
    with (
        nslab.Container(isolate=kinds) as web,
        nslab.Container(isolate=kinds, join=dict.fromkeys(hierarchical, web)) as inner,
    ):
        assert inner.run("id -u; cat /proc/self/uid_map").stdout.split() == ["0", "0", "0", "1"]
        with inner.namespaces["user"] as own, web.namespaces["user"] as above:
            assert own.parent == above
            assert own.uid_map.lines == ((0, UID, 1),)
        assert all(link(kind, inner.pid) != link(kind, web.pid) for kind in kinds.split())
        assert len(inner.pids) == (3 if "pid" in kinds else 1)


def test_a_pid_namespace_is_made_from_the_user_namespace_that_owns_the_outer_one() -> None:
    with nslab.Container(isolate="user pid") as web:
        with pytest.raises(nslab.SyscallError, match="join that user namespace too") as caught:
            nslab.Container(isolate="pid", join={"pid": web})
        assert caught.value.name == "EINVAL"
        with nslab.Container(isolate="pid", join={"user pid": web}) as inner:
            assert len(inner.pids) == 3
            assert link("user", inner.pid) == link("user", web.pid)


@pytest.mark.requires("root")
def test_a_range_inside_a_range() -> None:
    wide, narrow = [(0, 100000, 1000)], [(0, 100500, 10)]
    with (
        nslab.Container(isolate="user", uid_map=wide, gid_map=wide) as web,
        nslab.Container(isolate="user", join={"user": web}, uid_map=narrow, gid_map=narrow) as inner,
        inner.namespaces["user"] as user,
        web.namespaces["user"] as above,
    ):
        assert user.uid_map.lines == tuple(narrow)
        assert above.uid_map.inside(user.uid_map.outside(1) or 0) == 501
        assert inner.run("id -u; cat /proc/self/uid_map", user=3).stdout.split() == ["3", "0", "500", "10"]
