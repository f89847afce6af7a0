"""Id maps: single, subordinate and by lines; written before anything else is done, and seen from both sides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import nslab
from nslab.model import IdRange
from nslab.namespaces import privilege
from nslab.ops import IdMaps

UID, GID = os.getuid(), os.getgid()


def table(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, line.split())) for line in text.splitlines()]


def outside(pid: int, which: str) -> list[tuple[int, ...]]:
    """The map as this process sees it."""
    return table(Path(f"/proc/{pid}/{which}_map").read_text())


def test_single_is_oneself_as_root() -> None:
    with nslab.Container(isolate="user mnt") as web:
        assert web.run("id -u; id -g; cat /proc/self/setgroups").lines == ["0", "0", "deny"]
        assert outside(web.pid, "uid") == [(0, UID, 1)]
        assert outside(web.pid, "gid") == [(0, GID, 1)]
        owner = os.stat(f"/proc/{web.pid}/status")
        assert (owner.st_uid, owner.st_gid) == (UID, GID)


def test_a_file_made_by_root_inside_is_ones_own_outside(tmp_path: Path) -> None:
    nslab.run(["touch", "file"], isolate="user", cwd=tmp_path, check=True)
    info = (tmp_path / "file").stat()
    assert (info.st_uid, info.st_gid) == (UID, GID)


def test_any_number_inside() -> None:
    with nslab.Container(isolate="user uts", uid_map=[(1000, UID, 1)], gid_map=[(50, GID, 1)], hostname="web") as web:
        assert web.run("id -u; id -g; hostname").lines == ["1000", "50", "web"]
        assert outside(web.pid, "uid") == [(1000, UID, 1)]
        assert outside(web.pid, "gid") == [(50, GID, 1)]


def test_a_single_map_may_be_given_as_a_line() -> None:
    assert nslab.run("cat /proc/self/uid_map", isolate="user", uid_map=[(0, UID, 1)]).stdout.split()[::2] == ["0", "1"]
    assert nslab.run("cat /proc/self/setgroups", isolate="user", setgroups="deny").stdout == "deny\n"


@pytest.mark.requires("root")
def test_lines_of_root() -> None:
    maps = [(0, 1000, 10), (10, 5000, 1)]
    with nslab.Container(isolate="user mnt", uid_map=maps, gid_map=[(0, 2000, 3), (65534, 7, 1)]) as web:
        assert outside(web.pid, "uid") == maps
        assert outside(web.pid, "gid") == [(0, 2000, 3), (65534, 7, 1)]
        assert web.run("cat /proc/self/setgroups").stdout == "allow\n"
        assert web.run("id -u; id -g; id -G", user=2).lines == ["2", "2", "2"]
        assert os.stat(f"/proc/{web.pid}").st_uid == 1000
        with pytest.raises(nslab.SpecError, match="uid 11 is in no line of the id map"):
            web.run("true", user=11)


@pytest.mark.requires("root")
def test_subordinate_ids_of_root_are_nobody_elses() -> None:
    with nslab.Container(isolate="user", uid_map="subordinate") as web:
        ((inside, first, count),) = outside(web.pid, "uid")
        assert (inside, count >= 65536) == (0, True)
        assert first >= 100000, "no id of a person or a service"
        assert outside(web.pid, "gid") == [(inside, first, count)]
        assert web.run("id -u", user=count - 1).stdout == f"{count - 1}\n"


@pytest.mark.requires("root")
def test_setgroups_may_be_denied_or_allowed() -> None:
    for word in ("allow", "deny"):
        with nslab.Container(isolate="user", uid_map="subordinate", setgroups=word) as web:
            assert web.run("cat /proc/self/setgroups").stdout == f"{word}\n"
            assert web.run("id -u; id -G", user=0).returncode == 0


@pytest.mark.requires("root")
@pytest.mark.parametrize("lines", [340, 1])
def test_as_many_lines_as_the_kernel_takes(lines: int) -> None:
    maps = [(n, 2 * n, 1) for n in range(lines)]
    with nslab.Container(isolate="user", uid_map=maps) as web:
        assert outside(web.pid, "uid") == maps


@pytest.mark.requires("ordinary")
def test_an_ordinary_user_without_a_range_cannot_have_more() -> None:
    if len(privilege.borrowable().uid) > 1:
        pytest.skip("this user has subordinate ids")
    for options, argument, rule in (
        ({"uid_map": "subordinate"}, "uid_map", "no subordinate ids: an entry in /etc/subuid"),
        ({"gid_map": "subordinate"}, "gid_map", "no subordinate ids: an entry in /etc/subgid"),
        ({"gid_map": [(0, GID, 2)]}, "gid_map", "one line, of length 1"),
        ({"setgroups": "allow"}, "setgroups", "must deny it"),
    ):
        with pytest.raises(nslab.SpecError, match=rule) as caught:
            nslab.run("true", isolate="user", **options)
        assert caught.value.argument == argument


@pytest.mark.unit
def test_lines_are_translated_into_the_borrowed_user_namespace() -> None:
    """There, the subordinate range 100000... is 1..., and one's own id is 0."""
    ranges = (IdRange(0, UID, 1), IdRange(1, 100000, 1000), IdRange(1001, 300000, 10))
    around = IdMaps(ranges, ranges, "allow", helpers=True)
    maps = privilege.id_maps([(0, 100005, 10), (10, UID, 1), (11, 300000, 10)], "single", None, around)
    assert maps.uid == (IdRange(0, 6, 10), IdRange(10, 0, 1), IdRange(11, 1001, 10))
    assert maps.gid == (IdRange(0, 0, 1),)
    for wrong in ((0, 100990, 20), (0, 99999, 1), (0, 300000, 11)):
        with pytest.raises(nslab.SpecError, match="outside the own uid"):
            privilege.id_maps([wrong], "single", None, around)
    whole = privilege.id_maps("subordinate", "subordinate", None, around)
    assert [tuple(line) for line in whole.uid] == [(0, 0, 1), (1, 1, 1000), (1001, 1001, 10)]


@pytest.mark.unit
def test_what_is_single() -> None:
    own = (IdRange(0, 1000, 1),)
    assert IdMaps(own, own, "deny", caller=(1000, 1000)).single
    assert not IdMaps(own, own, "deny", caller=(0, 0)).single, "somebody else's id"
    assert not IdMaps(own, own, "allow", caller=(1000, 1000)).single
    assert not IdMaps((IdRange(5, 1000, 1),), own, "deny", caller=(1000, 1000)).single
    assert IdMaps.text((IdRange(0, 1, 2), IdRange(3, 4, 5))) == "0 1 2\n3 4 5\n"
