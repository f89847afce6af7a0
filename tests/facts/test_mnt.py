"""What is true of mount namespaces, each fact shown by the kernel. mount_namespaces(7), pivot_root(2)

The "machine" of these tests is a steered process with a mount table of its own, so that the real one is left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import ops
from tests.helpers import in_python

Pair = tuple[nslab.Process, nslab.Process]


@contextlib.contextmanager
def two(folder: Path, propagation: str) -> Iterator[Pair]:
    """A process with a tmpfs of this propagation at ``folder`` (and a, b and c in it), and its copy in a new namespace."""
    with nslab.process() as one:
        one.unshare("mnt")
        one.mount("tmpfs", str(folder), "tmpfs")
        one.run(["mkdir", *(f"{folder}/{name}" for name in "abc")], check=True)
        one.mount(None, str(folder), None, f"MS_{propagation.upper()}")
        with one.fork("mnt") as other:
            yield one, other


def table(process: nslab.Process) -> list[list[str]]:
    return [line.split() for line in process.read("/proc/self/mountinfo").splitlines()]


def has(process: nslab.Process, target: Path) -> bool:
    return any(line[4] == str(target) for line in table(process))


def tags(process: nslab.Process, target: Path) -> dict[str, int]:
    """The optional fields of the mount at ``target``: {"shared": 3, "master": 1}, 0 where there is no number."""
    line = next(line for line in reversed(table(process)) if line[4] == str(target))
    return {tag.partition(":")[0]: int(tag.partition(":")[2] or 0) for tag in line[6 : line.index("-")]}


def test_mnt_01_a_new_namespace_starts_with_a_copy_of_the_mounts(tmp_path: Path) -> None:
    with two(tmp_path, "private") as (one, other):
        assert [line[4] for line in table(one)] == [line[4] for line in table(other)]
        other.run(["touch", f"{tmp_path}/file"], check=True)
        assert one.run(["ls", f"{tmp_path}/file"]).returncode == 0, "the filesystem is the same one"
        other.umount(str(tmp_path))
        assert has(one, tmp_path) and not has(other, tmp_path)


def test_mnt_02_mounts_under_a_shared_mount_happen_on_both_sides(tmp_path: Path) -> None:
    with two(tmp_path, "shared") as (one, other):
        one.mount("tmpfs", f"{tmp_path}/a", "tmpfs")
        other.mount("tmpfs", f"{tmp_path}/b", "tmpfs")
        for process in (one, other):
            assert has(process, tmp_path / "a") and has(process, tmp_path / "b")
        other.umount(f"{tmp_path}/a")
        assert not has(one, tmp_path / "a")


def test_mnt_03_mounts_under_a_private_mount_do_not_cross(tmp_path: Path) -> None:
    with two(tmp_path, "private") as (one, other):
        one.mount("tmpfs", f"{tmp_path}/a", "tmpfs")
        other.mount("tmpfs", f"{tmp_path}/b", "tmpfs")
        assert (has(one, tmp_path / "a"), has(one, tmp_path / "b")) == (True, False)
        assert (has(other, tmp_path / "a"), has(other, tmp_path / "b")) == (False, True)


def test_mnt_04_a_slave_receives_and_sends_nothing_back(tmp_path: Path) -> None:
    with two(tmp_path, "shared") as (master, slave):
        slave.mount(None, str(tmp_path), None, "MS_SLAVE")
        master.mount("tmpfs", f"{tmp_path}/a", "tmpfs")
        slave.mount("tmpfs", f"{tmp_path}/b", "tmpfs")
        assert has(slave, tmp_path / "a") and not has(master, tmp_path / "b")


def test_mnt_05_an_unbindable_mount_cannot_be_bound(tmp_path: Path) -> None:
    with two(tmp_path, "unbindable") as (one, _), pytest.raises(nslab.SyscallError, match="EINVAL"):
        one.mount(str(tmp_path), "/mnt", None, "MS_BIND")


def test_mnt_06_an_unbindable_mount_tames_the_doubling_of_recursive_binds(tmp_path: Path) -> None:
    def counts(unbindable: bool) -> list[int]:
        with two(tmp_path, "private") as (one, _):
            one.run(["mkdir", *(f"{tmp_path}/{number}" for number in range(4))], check=True)
            found = []
            for number in range(4):
                one.mount(str(tmp_path), f"{tmp_path}/{number}", None, "MS_BIND|MS_REC")
                if unbindable:
                    one.mount(None, f"{tmp_path}/{number}", None, "MS_UNBINDABLE")
                found.append(sum(line[4].startswith(str(tmp_path)) for line in table(one)))
            return found

    assert (counts(False), counts(True)) == ([2, 4, 8, 16], [2, 3, 4, 5])


def test_mnt_07_mountinfo_shows_peers_and_masters(tmp_path: Path) -> None:
    with two(tmp_path, "shared") as (one, other):
        group = tags(one, tmp_path)["shared"]
        assert tags(other, tmp_path) == {"shared": group}
        ids = [next(line[0] for line in table(process) if line[4] == str(tmp_path)) for process in (one, other)]
        assert ids[0] != ids[1]
        other.mount(None, str(tmp_path), None, "MS_SLAVE")
        assert tags(other, tmp_path) == {"master": group}


@pytest.mark.parametrize(
    ("command", "shared", "master"),
    [
        (["unshare", "--mount"], False, False),
        (["unshare", "--mount", "--propagation", "unchanged"], True, False),
        (["unshare", "--mount", "--propagation", "slave"], False, True),
    ],
    ids=["default", "unchanged", "slave"],
)
def test_mnt_08_unshare_1_makes_all_private_and_the_call_does_not(
    tmp_path: Path, command: list[str], shared: bool, master: bool
) -> None:
    with two(tmp_path, "shared") as (one, other):
        assert "shared" in tags(other, tmp_path), "the bare call"
        (line,) = one.run([*command, "grep", f" {tmp_path} ", "/proc/self/mountinfo"]).check().lines
        assert ("shared:" in line, "master:" in line) == (shared, master)


def test_mnt_09_propagation_follows_fixed_rules(tmp_path: Path) -> None:
    with two(tmp_path, "shared") as (one, other):
        one.mount("tmpfs", f"{tmp_path}/a", "tmpfs")
        assert "shared" in tags(one, tmp_path / "a"), "as its parent is"
        other.mount(None, str(tmp_path), None, "MS_SLAVE")
        other.mount(None, str(tmp_path), None, "MS_SHARED")
        assert set(tags(other, tmp_path)) == {"shared", "master"}, "both at once"
        one.mount("tmpfs", "/mnt", "tmpfs")
        one.mount(None, "/mnt", None, "MS_SHARED")
        one.mount(None, "/mnt", None, "MS_SLAVE")
        assert tags(one, Path("/mnt")) == {}, "alone in its group: a slave of nobody is private"


def test_mnt_10_a_mount_under_a_shared_parent_cannot_be_moved(tmp_path: Path) -> None:
    with two(tmp_path, "shared") as (one, _):
        one.mount("tmpfs", f"{tmp_path}/a", "tmpfs")
        with pytest.raises(nslab.SyscallError, match="EINVAL"):
            one.mount(f"{tmp_path}/a", f"{tmp_path}/b", None, "MS_MOVE")
        one.mount(None, str(tmp_path), None, "MS_PRIVATE")
        one.mount(f"{tmp_path}/a", f"{tmp_path}/b", None, "MS_MOVE")
        assert has(one, tmp_path / "b")


@pytest.mark.parametrize("dots", [False, True])
def test_mnt_11_pivot_root_swaps_the_root_and_the_old_one_can_be_let_go(tmp_path: Path, dots: bool) -> None:
    (tmp_path / "old").mkdir()
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount(str(tmp_path), str(tmp_path), None, "MS_BIND")
        if dots:
            process.chdir(str(tmp_path))
            process.pivot_root(".", ".")
            process.umount(".", detach=True)
        else:
            process.pivot_root(str(tmp_path), f"{tmp_path}/old")
            assert "passwd" in process.call(os.listdir, "/old/etc")
            process.umount("/old", detach=True)
        process.chdir("/")
        assert process.call(os.listdir, "/") == ["old"] and process.call(os.listdir, "/old") == []


def test_mnt_12_pivot_root_has_many_reasons_to_refuse(tmp_path: Path) -> None:
    """Those that are left by A28 in tests/test_cases_a.py and tests/test_cases_files.py."""
    new = str(tmp_path)
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount(new, new, None, "MS_BIND")
        with pytest.raises(nslab.SyscallError, match=r"EBUSY|EINVAL"):  # that which came from above is locked besides
            process.pivot_root("/", "/")
        weak = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", "pivot_root", new, new]
        assert "Operation not permitted" in process.run(weak).stderr


def test_mnt_13_pivot_root_moves_others_that_stood_on_the_old_root(tmp_path: Path) -> None:
    with nslab.process() as one:
        one.unshare("mnt")
        one.mount(str(tmp_path), str(tmp_path), None, "MS_BIND")
        one.chdir("/")
        with one.fork() as other:
            one.chdir(str(tmp_path))
            one.pivot_root(".", ".")
            one.umount(".", detach=True)
            assert other.call(os.listdir, "/") == other.call(os.listdir, ".") == []


@pytest.mark.requires("tool:busybox")
def test_mnt_14_root_climbs_out_of_a_chroot_but_not_of_a_pivoted_root(tmp_path: Path) -> None:
    climb = "import os; os.makedirs('/tmp/y'); d = os.open('/', 0); os.chroot('/tmp/y'); os.fchdir(d)\n"
    climb += "for _ in range(30): os.chdir('..')\nos.chroot('.'); print(os.path.exists(%r))"
    (tmp_path / "marker").write_text("")
    code = climb % f"{tmp_path}/marker"
    python = ["/usr/bin/python3", "-c", code]
    assert nslab.run(python, isolate="user mnt", rootfs="machine").check().stdout == "False\n"
    jail = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs x /mnt; mkdir -p /mnt/tmp /mnt/usr; mount --rbind /usr /mnt/usr; '
            'for d in bin lib lib64; do ln -s usr/$d /mnt/$d; done; exec chroot /mnt "$@"', "sh", *python]  # fmt: skip
    assert subprocess.run(jail, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout == "True\n"


def test_mnt_15_inherited_mounts_cannot_be_taken_off_one_by_one(tmp_path: Path) -> None:
    with two(tmp_path, "private") as (one, _), one.fork("user mnt") as below:
        with pytest.raises(nslab.SyscallError, match="EINVAL"):
            below.umount(str(tmp_path))
        below.mount("tmpfs", str(tmp_path), "tmpfs")
        below.umount(str(tmp_path))
        assert has(below, tmp_path)


def test_mnt_16_an_inherited_read_only_mount_stays_so(tmp_path: Path) -> None:
    with two(tmp_path, "private") as (one, _):
        one.mount(str(tmp_path), "/mnt", None, "MS_BIND")
        one.mount(None, "/mnt", None, "MS_REMOUNT|MS_BIND|MS_RDONLY")
        with one.fork("user mnt") as below, pytest.raises(nslab.SyscallError, match=r"(?s)EPERM.*stays read-only"):
            below.mount(None, "/mnt", None, "MS_REMOUNT|MS_BIND")


def test_mnt_17_shared_mounts_turn_into_slaves_in_a_less_privileged_copy(tmp_path: Path) -> None:
    with two(tmp_path, "shared") as (one, _), one.fork("user mnt") as below:
        assert tags(below, tmp_path) == {"master": tags(one, tmp_path)["shared"]}


def test_mnt_18_a_mount_point_of_another_namespace_can_be_removed(tmp_path: Path) -> None:
    with two(tmp_path, "private") as (one, other):
        other.mount("tmpfs", f"{tmp_path}/a", "tmpfs")
        assert other.run(["rmdir", f"{tmp_path}/a"]).returncode != 0, "EBUSY where it is mounted"
        one.run(["rmdir", f"{tmp_path}/a"], check=True)
        assert not has(other, tmp_path / "a")


def test_mnt_19_proc_shows_mounts_and_files_as_a_process_sees_them(tmp_path: Path) -> None:
    with two(tmp_path, "private") as (one, _):
        one.run(["touch", f"{tmp_path}/inside"], check=True)
        assert f" {tmp_path} " in Path(f"/proc/{one.pid}/mountinfo").read_text()
        assert f" {tmp_path} " not in Path("/proc/self/mountinfo").read_text()
        assert os.path.exists(f"/proc/{one.pid}/root{tmp_path}/inside") and not (tmp_path / "inside").exists()


@pytest.mark.requires("root")
def test_mnt_20_entering_needs_cap_sys_chroot_and_a_single_thread() -> None:
    with nslab.Container(isolate="mnt") as box:
        enter = ["nsenter", f"--mount=/proc/{box.pid}/ns/mnt", "true"]
        assert subprocess.run(enter).returncode == 0
        drop = ["setpriv", "--bounding-set=-sys_chroot", "--inh-caps=-sys_chroot"]
        refused = subprocess.run([*drop, *enter], capture_output=True, text=True)
        assert "Operation not permitted" in refused.stderr
        code = f"""
import ctypes, os, threading
fd, done = os.open('/proc/{box.pid}/ns/mnt', 0), threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
libc = ctypes.CDLL(None, use_errno=True)
print(libc.setns(fd, 0), os.strerror(ctypes.get_errno()))
done.set(); thread.join()
os.chdir('/tmp')
print(libc.setns(fd, 0), os.getcwd())
"""
        assert in_python(code).stdout.splitlines() == ["-1 Invalid argument", "0 /"]


def test_mnt_21_unsharing_mounts_stops_sharing_the_working_directory() -> None:
    code = """
import ctypes, os, threading
os.chdir('/')
def change():
    assert ctypes.CDLL(None).unshare(0x20000) == 0
    os.chdir('/usr')
thread = threading.Thread(target=change); thread.start(); thread.join()
print(os.getcwd())
"""
    inside = ["unshare", "-Ur"] if os.geteuid() else []
    assert in_python(code, inside).stdout == "/\n"


def test_mnt_22_an_overlay_is_a_writable_view_of_an_untouched_tree(tmp_path: Path) -> None:
    for name in ("lower", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "edited").write_text("old")
    (tmp_path / "lower" / "deleted").write_text("old")
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount("tmpfs", "/mnt", "tmpfs")
        process.run("mkdir /mnt/upper /mnt/work", check=True)
        data = f"lowerdir={tmp_path}/lower,upperdir=/mnt/upper,workdir=/mnt/work" + (",userxattr" if os.geteuid() else "")
        process.mount("overlay", f"{tmp_path}/merged", "overlay", "", data)
        process.run(f"cd {tmp_path}/merged; echo new > edited; rm deleted; touch added", check=True)
        assert process.run("ls /mnt/upper").lines == ["added", "deleted", "edited"]
        assert process.run("stat -c '%F %t %T' /mnt/upper/deleted").stdout == "character special file 0 0\n", "a whiteout"
    assert sorted(os.listdir(tmp_path / "lower")) == ["deleted", "edited"]
    assert (tmp_path / "lower" / "edited").read_text() == "old"


def test_mnt_23_a_master_out_of_sight_is_named_by_propagate_from(tmp_path: Path) -> None:
    """A chain of two: the slave of a slave, in a root where the one between cannot be seen."""
    with two(tmp_path, "shared") as (one, _):
        first = tags(one, tmp_path)["shared"]
        for target in ("b", "c"):
            one.mount(f"{tmp_path}/{'a' if target == 'b' else 'b'}", f"{tmp_path}/{target}", None, "MS_BIND")
            one.mount(None, f"{tmp_path}/{target}", None, "MS_SLAVE")
            one.mount(None, f"{tmp_path}/{target}", None, "MS_SHARED")
        assert tags(one, tmp_path / "b")["master"] == first
        one.run(f"mkdir -p {tmp_path}/c/proc {tmp_path}/c/x", check=True)
        one.mount("/proc", f"{tmp_path}/c/proc", None, "MS_BIND|MS_REC")
        one.mount(str(tmp_path), f"{tmp_path}/c/x", None, "MS_BIND")
        one.do(ops.Chroot(f"{tmp_path}/c"))
        text = one.read("/proc/self/mountinfo")
        assert re.search(rf"master:\d+ propagate_from:{first} ", text), text
