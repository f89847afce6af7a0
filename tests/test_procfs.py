"""The readers of /proc, on trees of our own with every trap in them, and against the live one."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from pathlib import Path

import pytest

from nslab import procfs
from nslab.model import KINDS, IdRange, NamespaceId

STAT = b"77 (%s) S 12 13 14 34816 77 4194560 1 2 3 4 5 6 7 8 20 0 1 0 424242 10000 5 18446744073709551615 0 0\n"


@pytest.fixture
def tree(tmp_path: Path):
    """Write files of a fake /proc by keyword of path."""

    def write(files: dict[str, bytes | str]) -> str:
        for path, content in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(tmp_path)

    return write


@pytest.mark.unit
@pytest.mark.parametrize("name", ["sh", ") R 1 (x", "a b", "a\nb", "((", "))", "", "\udcff", ") S 1 1 1"])
def test_E07_E08_stat_with_any_name(tree, name: str) -> None:
    stat = procfs.stat(77, tree({"77/stat": STAT % os.fsencode(name)}))
    assert (stat.pid, stat.name, stat.state) == (77, name, "S")
    assert (stat.ppid, stat.pgrp, stat.session, stat.start) == (12, 13, 14, 424242)


@pytest.mark.parametrize("name", [") R 1 (x", "a\nb"])
def test_E07_E08_stat_of_a_live_process(name: str) -> None:
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(15, name.encode(), 0, 0, 0)
        os.kill(os.getpid(), 19)  # SIGSTOP
        os._exit(0)
    try:
        os.waitpid(pid, os.WUNTRACED)
        stat = procfs.stat(pid)
        assert (stat.name, stat.state, stat.ppid) == (name, "T", os.getpid())
        assert (stat.pgrp, stat.session) == (os.getpgid(pid), os.getsid(pid))
        assert procfs.status(pid)["Name"] == name.replace("\n", "\\n")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


MOUNTINFO = (
    rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 22 0:26 /sub /a\040b\011c\012d\134e rw,nosuid shared:232 master:7 - tmpfs none rw
31 22 0:27 / /x rw - tmpfs  rw,size=64k
32 22 0:28 / /plain#x rw unbindable - ext4 /dev/disk\040with\040space rw
33 22 0:29 / /over rw propagate_from:3 master:2 - overlay overlay rw,lowerdir=/a b:/c,upperdir=/d
34 22 0:30 net:[4026531840] /run/ns rw - nsfs nsfs rw
35 22 0:31 / /caf"""
    + b"\xc3\xa9\xff rw - fuse.x source ro\n"
)


@pytest.mark.unit
def test_E14_each_trap_of_mountinfo(tree) -> None:
    mounts = procfs.mountinfo(5, tree({"5/mountinfo": MOUNTINFO}))
    by_id = {mount.id: mount for mount in mounts}
    assert len(mounts) == 7
    assert by_id[22].peers == {"shared": 1}
    assert by_id[22].super_options == ("rw", "errors=remount-ro")
    assert by_id[30].target == "/a b\tc\nd\\e"
    assert (by_id[30].root, by_id[30].parent, by_id[30].device) == ("/sub", 22, "0:26")
    assert by_id[30].options == ("rw", "nosuid")
    assert by_id[30].peers == {"shared": 232, "master": 7}
    assert (by_id[31].fstype, by_id[31].source, by_id[31].super_options) == ("tmpfs", "", ("rw", "size=64k"))
    assert (by_id[32].target, by_id[32].source, by_id[32].peers) == ("/plain#x", "/dev/disk with space", {"unbindable": 0})
    assert by_id[33].peers == {"propagate_from": 3, "master": 2}
    assert by_id[33].super_options == ("rw", "lowerdir=/a b:/c", "upperdir=/d")
    assert by_id[34].root == "net:[4026531840]"
    assert os.fsencode(by_id[35].target) == b"/caf\xc3\xa9\xff"


@pytest.mark.requires("tool:findmnt")
def test_mountinfo_says_what_findmnt_says() -> None:
    command = ["findmnt", "--list", "--json", "-o", "TARGET,FSTYPE"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["filesystems"]
    assert sorted((mount.target, mount.fstype) for mount in procfs.mountinfo()) == sorted(
        (e["target"], e["fstype"]) for e in said
    )


@pytest.mark.unit
def test_what_covers_proc(tree) -> None:
    lines = "".join(
        f"{n} 1 0:1 / {path} rw - tmpfs none rw\n" for n, path in enumerate(["/proc", "/proc/fs", "/processes", "/proc/acpi"])
    )
    assert procfs.covered("/proc", root=tree({"self/mountinfo": lines})) == ["/proc/fs", "/proc/acpi"]


@pytest.mark.unit
def test_id_maps(tree) -> None:
    root = tree({"5/uid_map": "         0       1000          1\n         1     100000      65536\n", "5/gid_map": ""})
    assert procfs.id_map(5, "uid", root) == (IdRange(0, 1000, 1), IdRange(1, 100000, 65536))
    assert procfs.id_map(5, "gid", root) == ()


@pytest.mark.unit
def test_status(tree) -> None:
    root = tree({"5/status": "Name:\ta: b\nThreads:\t12\nCapEff:\t0000000000200000\nNSpid:\t5\t1\n"})
    assert procfs.status(5, root)["Name"] == "a: b"
    assert procfs.threads(5, root) == 12
    assert procfs.capabilities(5, root) == 1 << 21


@pytest.mark.unit
def test_children_of_all_threads(tree) -> None:
    assert sorted(procfs.children(5, tree({"5/task/5/children": "6 7 ", "5/task/9/children": "8 "}))) == [6, 7, 8]


@pytest.mark.unit
def test_only_numbers_are_processes(tree) -> None:
    root = tree({"1/stat": "", "20/stat": "", "self/stat": "", "sys/x": "", "3x/stat": ""})
    assert sorted(procfs.pids(root)) == [1, 20]


@pytest.mark.unit
def test_subordinate_ids(tree) -> None:
    etc = tree({"subuid": "root:1:5\nme:100000:65536\n\nme:bad\n1000:200000:10\nme:300000:0\n# me:1:1\n", "subgid": ""})
    assert procfs.subordinate_ids("uid", {"me": None, "1000": None}, etc) == [(100000, 65536), (200000, 10)]
    assert procfs.subordinate_ids("gid", {"me": None}, etc) == []
    assert procfs.subordinate_ids("gid", {"me": None}, "/nowhere") == []


@pytest.mark.unit
def test_a_kind_that_the_kernel_lacks_is_left_out(tree) -> None:
    root = tree({"5/ns/uts": "", "5/ns/pid": ""})
    assert set(procfs.namespaces(5, root)) == {"uts", "pid"}
    with pytest.raises(FileNotFoundError):
        procfs.namespaces(6, root)


def test_namespaces_of_this_process() -> None:
    expected = {kind: os.stat(f"/proc/self/ns/{kind}") for kind in KINDS}
    assert procfs.namespaces() == {kind: NamespaceId(info.st_dev, info.st_ino) for kind, info in expected.items()}


def test_who_is_behind_a_pidfd() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    fd = os.pidfd_open(child.pid)
    try:
        assert procfs.pid_behind(fd) == child.pid
        child.kill()
        child.wait()
        assert procfs.pid_behind(fd) == -1
        with open("/dev/null") as file, pytest.raises(ValueError, match="is not a pidfd"):
            procfs.pid_behind(file.fileno())
    finally:
        os.close(fd)


def test_the_kinds_that_a_kernel_was_built_with(tmp_path):
    """In the order of the table; where /proc has none at all, nothing is known, and all may be there."""
    folder = tmp_path / "self" / "ns"
    assert list(procfs.kinds(str(tmp_path))) == list(KINDS)
    folder.mkdir(parents=True)
    for name in ("uts", "pid", "mnt", "pid_for_children"):
        (folder / name).touch()
    procfs.kinds.cache_clear()
    assert list(procfs.kinds(str(tmp_path))) == ["mnt", "uts", "pid"]
    procfs.kinds.cache_clear()
    assert set(procfs.kinds()) == {name for name in KINDS if os.path.exists(f"/proc/self/ns/{name}")}
