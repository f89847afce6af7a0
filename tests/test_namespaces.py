"""Namespace: a handle with kind, id, owner, parent and members; lsns and /proc are the oracles."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import nslab
from nslab.model import KINDS, NamespaceId
from tests.helpers import link, listed


@pytest.mark.parametrize("kind", KINDS)
def test_of_this_process(kind: str) -> None:
    info = os.stat(f"/proc/self/ns/{kind}")
    with nslab.Namespace.of("self", kind) as one, nslab.Namespace.of(os.getpid(), kind) as two:
        assert one.kind == kind
        assert one.id == NamespaceId(info.st_dev, info.st_ino)
        assert str(one) == link(kind)
        assert one == two
        assert hash(one) == hash(two)
        assert one != nslab.Namespace
        assert os.getpid() in one.members()


def test_of_nobody() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(nslab.DeadNamespace, match=f"no process {child.pid}"):
        nslab.Namespace.of(child.pid, "uts")


@pytest.mark.requires("ordinary")
def test_of_somebody_elses() -> None:
    with pytest.raises(PermissionError):
        nslab.Namespace.of(1, "uts")


@pytest.mark.requires("tool:lsns")
@pytest.mark.parametrize("kind", ["uts", "pid", "mnt", "ipc"])
def test_members_are_those_of_lsns(kind: str) -> None:
    with nslab.Container(isolate=f"{kind}") as web, web.namespaces[kind] as namespace:
        sleeper = web.popen(["sleep", "1000"])
        rows = dict(row.split() for row in listed("-t", kind, "-o", "NS,NPROCS", "--list").splitlines())
        members = namespace.members()
        assert len(members) == int(rows[str(namespace.id.ino)])
        assert {web.pid, sleeper.pid} <= set(members)
        sleeper.end()
        assert sleeper.pid not in namespace.members()


def test_the_owner_is_the_user_namespace_it_was_made_in() -> None:
    with nslab.Container(isolate="user uts") as web, web.namespaces["uts"] as uts, web.namespaces["user"] as user:
        with uts.owner as owner:
            assert owner == user
            assert owner.kind == "user"
        assert uts.parent is None
        assert uts.owner_uid is None
        assert user.owner_uid == os.getuid()
    with nslab.Container(isolate="uts") as web, web.namespaces["uts"] as uts, uts.owner as owner:
        assert str(owner) == link("user", web.pid)


def test_parents_are_those_around() -> None:
    with nslab.Container(isolate="user pid") as outer, outer.namespaces["user"] as user, outer.namespaces["pid"] as pid:
        with pid.parent as parent:
            assert str(parent) == link("pid")
        with user.parent as parent:
            assert str(parent) == (link("user") if os.getuid() == 0 else str(parent))
            assert parent != user


def test_beyond_the_initial_one_there_is_nothing() -> None:
    with nslab.Namespace.of("self", "user") as user:
        assert user.parent is None
    with nslab.Container(isolate="user uts") as web:
        assert web.call(_parent_of_own) is None, "out of sight from inside"


def _parent_of_own() -> object:
    return nslab.Namespace.of("self", "user").parent


def test_a_handle_keeps_the_namespace_alive() -> None:
    web = nslab.Container(isolate="uts", hostname="kept")
    with web.namespaces["uts"] as first:
        second = first.hold()
    web.close()
    assert second.members() == []
    with nslab.process() as process:
        process.setns(second)
        assert process.gethostname() == "kept"
        assert second.members() == [process.pid]
    second.close()
    with pytest.raises(ValueError, match="closed"):
        second.fileno()


def test_a_path_by_which_others_reach_it() -> None:
    with nslab.Container(isolate="uts") as web, web.namespaces["uts"] as uts:
        assert uts.path() == f"/proc/{web.pid}/ns/uts"
        web.close()
        assert uts.path() == f"/proc/{os.getpid()}/fd/{uts.fileno()}", "nobody is in it, but the handle is a way"
    with nslab.Namespace.of("self", "uts") as own:
        assert own.path() == f"/proc/{os.getpid()}/ns/uts"


def test_the_view_of_a_container() -> None:
    with nslab.Container(isolate="uts pid") as web:
        view = web.namespaces
        assert list(view) == [kind for kind in KINDS if Path(f"/proc/self/ns/{kind}").exists()]
        assert len(view) == 8
        assert {kind: f"{kind}:[{identity.ino}]" for kind, identity in view.ids().items()} == {
            kind: link(kind, web.pid) for kind in KINDS
        }
        with pytest.raises(KeyError):
            view["utz"]
        assert "uts:[" in repr(view)
        assert view.membership("x", (), {}).own == tuple(k for k in KINDS if link(k, web.pid) != link(k))
