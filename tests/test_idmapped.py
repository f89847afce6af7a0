"""Mounts on which files belong to others than on disk: what stat(2) says inside and outside."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nslab
from nslab import ops, procfs
from nslab.model import IdRange
from nslab.spawner import ensure

ROOT_INSIDE = pytest.mark.requires("root", "linux:6.3", "tool:busybox")  # 6.3 maps the owners of a tmpfs
LOOK = "stat -c %u:%g /mnt/root /mnt/other; touch /mnt/new && stat -c %u:%g /mnt/new"
SUBORDINATE = {"isolate": "user mnt pid", "uid_map": "subordinate"}


@pytest.fixture
def source() -> Iterator[Path]:
    """A folder on a tmpfs of the machine with a file of root and one of uid 1000, gid 2000."""
    folder = Path(tempfile.mkdtemp(prefix="nslab-idmap-", dir="/dev/shm"))
    folder.chmod(0o755)
    for name, uid, gid in (("root", 0, 0), ("other", 1000, 2000)):
        (folder / name).touch()
        os.chown(folder / name, uid, gid)
    yield folder
    shutil.rmtree(folder)


def held() -> list[str]:
    """What the spawner has open that has a name: mounts and namespaces, not sockets and pipes."""
    folder = f"/proc/{procfs.children(ensure().watchdog.pid)[0]}/fd"
    links = [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]
    return sorted(link for link in links if not link.startswith(("socket:", "pipe:", "anon_inode:")))


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


@ROOT_INSIDE
@pytest.mark.parametrize("options", [SUBORDINATE, {**SUBORDINATE, "rootfs": "busybox"}, {"hardened": True}])
def test_what_is_root_s_on_disk_belongs_to_root_inside(options: dict[str, Any], source: Path) -> None:
    plain = nslab.run(LOOK, mounts=[f"{source}:/mnt"], **options)
    assert plain.lines == ["65534:65534"] * 2 and "Permission denied" in plain.stderr
    mapped = nslab.run(LOOK, mounts=[nslab.Bind(str(source), "/mnt", idmap="container")], **options).check()
    assert mapped.lines == ["0:0", "1000:2000", "0:0"]
    assert [owner(source / name) for name in ("root", "other", "new")] == [(0, 0), (1000, 2000), (0, 0)]


@ROOT_INSIDE
def test_lines_say_who_is_who_and_all_others_are_nobody(source: Path) -> None:
    lines = [(0, 5000, 1), (1000, 0, 1)]
    with nslab.Container(isolate="mnt", mounts=[nslab.Bind(str(source), "/mnt", idmap=lines)]) as box:
        assert box.run(LOOK).lines == ["5000:5000", "0:65534", "0:0"]
        assert owner(source / "new") == (1000, 1000)
        source.chmod(0o777)
        assert "Value too large" in box.run("touch /mnt/no", user=1).stderr, "whose uid would be nobody's on disk"
        assert "idmapped" in box.run("grep /mnt /proc/self/mountinfo").stdout
    assert "idmapped" not in Path("/proc/self/mountinfo").read_text()


@ROOT_INSIDE
def test_read_only_step_by_step_and_after_a_join(source: Path) -> None:
    mounts = [nslab.Bind(str(source), "/mnt", read_only=True, idmap="container")]
    with nslab.Container(isolate="uts", hostname="joined") as web:
        stepper = nslab.Stepper(**SUBORDINATE, join={"uts": web}, mounts=mounts)
        with stepper.finish() as box:
            look = box.run(f"hostname; {LOOK}")
    assert look.lines == ["joined", "0:0", "1000:2000"] and "Read-only file system" in look.stderr
    assert stepper.ops[1].startswith(f"copy the mount at {source}, with the owners on it shown as others: 0 as ")


@ROOT_INSIDE
def test_no_mount_travels_into_it_or_out(source: Path) -> None:
    """The machine of this test is a steered process, whose mounts are shared."""

    def show() -> None:
        lines, context = (IdRange(0, 5000, 1),), ops.Context({}, {})
        ops.Idmapped("/mnt/a", "tree", lines, lines).perform(context)
        ops.BindInside("/mnt/a", "/mnt/b", tree="tree").perform(context)

    with nslab.process() as machine:
        machine.unshare("mnt")
        machine.mount("tmpfs", "/mnt", "tmpfs")
        machine.mount(None, "/mnt", None, "MS_SHARED")
        machine.run("mkdir /mnt/a /mnt/b /mnt/a/c", check=True)
        machine.call(show)
        assert machine.run("stat -c %u /mnt/b/c").stdout == "5000\n"
        machine.mount("tmpfs", "/mnt/a/c", "tmpfs")
        machine.mount("tmpfs", "/mnt/b", "tmpfs", data="size=64k")
        targets = machine.run("findmnt -no TARGET -R /mnt -l").lines
        assert sorted(targets) == ["/mnt", "/mnt/a/c", "/mnt/b", "/mnt/b"]


@ROOT_INSIDE
def test_a_filesystem_that_cannot_is_named_and_nothing_is_left(source: Path) -> None:
    before = held()
    for _ in range(3):
        with pytest.raises(nslab.Unavailable, match="each of the filesystems there: proc\n") as caught:
            nslab.run("true", isolate="mnt", mounts=[nslab.Bind("/proc/sys", "/mnt", idmap=[(0, 5, 1)])])
        assert "ext4" in caught.value.how_to_get_it
    nslab.run("true", isolate="mnt", mounts=[nslab.Bind(str(source), "/mnt", idmap=[(0, 5, 1)])]).check()
    assert held() == before


@pytest.mark.requires("ordinary")
@pytest.mark.parametrize("kinds", ["user mnt", "mnt"])
def test_an_ordinary_user_is_told_who_could(kinds: str) -> None:
    with pytest.raises(nslab.Unavailable, match=r"(?s)idmap of /etc needs CAP_SYS_ADMIN.*start it as root, or copy the files"):
        nslab.run("true", isolate=kinds, mounts=[nslab.Bind("/etc", "/mnt", idmap=[(0, 0, 1)])])


@pytest.mark.parametrize(
    ("kinds", "idmap", "rule"),
    [
        ("mnt", "container", "needs a user namespace of its own"),
        ("user mnt", "containers", "neither 'container' nor lines of"),
        ("mnt", [], "at least one line"),
        ("mnt", 5, "neither 'container' nor lines of"),
        ("mnt", [(0, 1)], "three whole numbers"),
        ("mnt", [(0, 1, 0)], "count must be at least 1"),
        ("mnt", [(0, 10, 2), (1, 20, 1)], "overlap inside"),
        ("mnt", [(0, 10, 2), (5, 11, 1)], "overlap outside"),
        ("mnt", [(2 * i, 2 * i, 1) for i in range(341)], "at most 340"),
    ],
)
def test_a_bad_map_is_refused(kinds: str, idmap: Any, rule: str) -> None:
    with pytest.raises(nslab.SpecError, match=rule) as caught:
        nslab.run("true", isolate=kinds, mounts=["/etc:/mnt", nslab.Bind("/etc", "/srv", idmap=idmap)])
    assert caught.value.argument == "mounts[1]"


def test_its_script_says_what_no_tool_can_do() -> None:
    op = ops.Idmapped("/a", "tree0", (IdRange(0, 5, 1),), (IdRange(0, 6, 2),))
    text = op.shell()
    assert all(line.startswith("#") for line in text.splitlines())
    assert "X-mount.idmap='u:0:5:1 g:0:6:2'" in text
