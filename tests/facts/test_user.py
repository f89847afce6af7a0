"""What is true of user namespaces, each fact shown by the kernel. user_namespaces(7)

Most begin with an ordinary process, outside any user namespace of nslab's, so that they mean the same for root and for anybody.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import shutil
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from errno import EACCES, EINVAL, EPERM, ESPIPE
from pathlib import Path

import pytest

import nslab
from nslab import syscalls
from nslab.model import CAPABILITIES, KINDS
from tests.facts.test_pid import failing
from tests.helpers import connected, link, status

USER, UTS = KINDS["user"].flag, KINDS["uts"].flag
NOBODY = 65534
UID = 1 if os.getuid() == 0 else os.getuid()  # root can be another user than nobody, and so tell the two apart
GID = 1 if os.getuid() == 0 else os.getgid()
SECRET = "/etc/shadow"  # of root, and not for everybody


def refused(errno: str, process: nslab.Process, call: str, *args: object) -> str:
    """Make a call that must fail so; what the error says."""
    with pytest.raises(nslab.SyscallError) as caught:
        getattr(process, call)(*args)
    assert caught.value.name == errno, str(caught.value)
    return str(caught.value)


@contextlib.contextmanager
def somebody() -> Iterator[nslab.Process]:
    """An ordinary process of uid UID and gid GID. It knows this file, which it may not be allowed to read."""
    with nslab.process(as_=None if os.getuid() == 0 else "ordinary") as process:
        process.call(nothing)
        if os.getuid() == 0:
            process.setids(UID, GID)
        yield process


def nothing() -> None:
    """Called in a process, it has this file loaded there."""


@contextlib.contextmanager
def rooted(kinds: str = "user", inside: int = 0) -> Iterator[nslab.Process]:
    """The same in a user namespace of its own, where it is uid ``inside``."""
    with somebody() as process:
        process.unshare(kinds)
        mapped(process, inside)
        yield process


def mapped(process: nslab.Process, inside: int = 0, uid: int = UID, gid: int = GID) -> None:
    """Write the single map, from inside."""
    process.write("/proc/self/setgroups", "deny")
    process.write("/proc/self/uid_map", f"{inside} {uid} 1")
    process.write("/proc/self/gid_map", f"{inside} {gid} 1")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may write to, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


FULL = f"{(1 << int(Path('/proc/sys/kernel/cap_last_cap').read_text()) + 1) - 1:016x}"
NONE = "0" * 16


# -- who one is -------------------------------------------------------------------------------------------------------


def test_user_01_without_a_map_everybody_is_65534() -> None:
    overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
    assert overflow == NOBODY
    with somebody() as process:
        assert process.call(os.getresuid) == (UID,) * 3
        process.unshare("user")
        assert process.call(os.getresuid) == process.call(os.getresgid) == (overflow,) * 3
        assert process.run("stat -c %u /").stdout == f"{overflow}\n"
        assert process.read("/proc/self/uid_map") == ""


def test_user_02_the_creator_holds_every_capability_inside() -> None:
    with somebody() as process:
        assert status(process.pid, "CapEff") == [NONE]
        process.unshare("user")
        assert status(process.pid, "CapEff") == status(process.pid, "CapPrm") == [FULL]
        assert process.capabilities().effective == set(CAPABILITIES)


@pytest.mark.requires("root")
def test_user_03_root_gives_up_its_power_outside() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.sethostname("before")
        process.unshare("user")
        assert status(process.pid, "CapEff") == [FULL]
        assert "belongs to a user namespace in which it lacks CAP_SYS_ADMIN" in refused(
            "EPERM", process, "sethostname", "after"
        )
        assert process.gethostname() == "before"


def test_user_04_with_it_the_other_kinds_need_no_privilege() -> None:
    with somebody() as process:
        for kind in KINDS:
            if kind != "user":
                assert "CAP_SYS_ADMIN" in refused("EPERM", process, "unshare", kind)
        process.unshare("all")
        changed = {kind for kind in KINDS if link(kind, process.pid) != link(kind)}
        assert changed == set(KINDS) - {"pid", "time"}
        child = process.fork()
        assert {kind for kind in KINDS if link(kind, child.pid) != link(kind)} == set(KINDS)


def test_user_05_root_inside_is_an_ordinary_user_outside() -> None:
    with rooted() as process:
        assert process.run("id -u; id -g").lines == ["0", "0"]
        assert status(process.pid, "Uid") == [str(UID)] * 4
        assert status(process.pid, "Gid") == [str(GID)] * 4


# -- maps -------------------------------------------------------------------------------------------------------------


def test_user_06_a_map_is_written_once() -> None:
    with rooted() as process:
        for which, own in (("uid", UID), ("gid", GID)):
            assert "only once" in refused("EPERM", process, "write", f"/proc/self/{which}_map", f"0 {own} 1")
        assert process.read("/proc/self/uid_map").split() == ["0", str(UID), "1"]


@pytest.mark.requires("root")
def test_user_07_a_map_that_makes_no_sense_is_invalid() -> None:
    with nslab.process() as process:
        child = process.fork("user")
        file = f"/proc/{child.pid}/uid_map"
        for text in ("", "a b c", "0 1000", "0 1000 0", "0 1000 1 1", "0 1000 2\n1 2000 1", "0 1000 2\n5 1001 1", "0 -1 1"):
            assert "no two lines may overlap" in refused("EINVAL", process, "write", file, text)
        process.write(file, "0 1000 2\n2 2000 1")


def written(path: str, data: str, how: str) -> int:
    """The errno of a write to a map after an lseek or at an offset, 0 for none."""
    fd = os.open(path, os.O_WRONLY)
    try:
        if how == "pwrite":
            return failing(os.pwrite, fd, data.encode(), 1)
        if how == "lseek":
            os.lseek(fd, 1, os.SEEK_SET)
        return failing(os.write, fd, data.encode())
    finally:
        os.close(fd)


@pytest.mark.requires("root")
def test_user_08_a_map_has_340_lines_in_one_page() -> None:
    def lines(count: int, first: int = 0) -> str:
        return "".join(f"{first + number} {first + number} 1\n" for number in range(count))

    with nslab.process() as process:
        child = process.fork("user")
        file = f"/proc/{child.pid}/uid_map"
        assert len(lines(340)) < 4096 < len(lines(340, 100000))
        assert "340 lines" in refused("EINVAL", process, "write", file, lines(341))
        refused("EINVAL", process, "write", file, lines(340, 100000))
        assert process.call(written, file, "0 0 1", "pwrite") in (ESPIPE, EINVAL)
        assert process.call(written, file, "0 0 1", "lseek") == EINVAL
        process.write(file, lines(340))
        assert len(Path(file).read_text().splitlines()) == 340


def test_user_09_an_ordinary_writer_maps_himself_alone() -> None:
    with somebody() as process:
        process.unshare("user")
        for wrong in (f"0 {UID + 1} 1", f"0 {UID} 2", f"0 {UID} 1\n1 {UID + 1} 1"):
            assert "one line only" in refused("EPERM", process, "write", "/proc/self/uid_map", wrong)
        process.write("/proc/self/uid_map", f"0 {UID} 1")


def test_user_10_the_gid_map_comes_after_setgroups() -> None:
    with somebody() as process:
        process.unshare("user")
        assert "give up setgroups" in refused("EPERM", process, "write", "/proc/self/gid_map", f"0 {GID} 1")
        process.write("/proc/self/setgroups", "deny")
        process.write("/proc/self/gid_map", f"0 {GID} 1")
        assert process.run("id -g").stdout == "0\n"


def test_user_11_setgroups_is_denied_early_for_good_and_below() -> None:
    with somebody() as process:
        process.unshare("user")
        assert process.call(failing, os.setgroups, []) == EPERM, "no gid_map"
        process.write("/proc/self/setgroups", "deny")
        process.write("/proc/self/uid_map", f"0 {UID} 1")
        process.write("/proc/self/gid_map", f"0 {GID} 1")
        assert process.call(failing, os.setgroups, []) == EPERM, "denied"
        assert "stays so" in refused("EPERM", process, "write", "/proc/self/setgroups", "allow")
        process.unshare("user")
        assert process.read("/proc/self/setgroups") == "deny\n"


@pytest.mark.requires("root")
def test_user_11_with_a_gid_map_it_is_too_late_to_deny() -> None:
    with nslab.process() as process:
        child = process.fork("user")
        assert child.call(failing, os.setgroups, []) == EPERM, "no gid_map"
        process.write(f"/proc/{child.pid}/gid_map", "0 1000 10")
        assert child.call(failing, os.setgroups, []) == 0
        refused("EPERM", child, "write", "/proc/self/setgroups", "deny")


@pytest.mark.requires("root")
def test_user_12_a_privileged_parent_maps_ranges(folder: Path) -> None:
    file = folder / "file"
    file.touch()
    with nslab.process() as process:
        process.call(nothing)
        child = process.fork("user")
        for which in ("uid", "gid"):
            process.write(f"/proc/{child.pid}/{which}_map", "0 100000 65536")
        os.chown(file, 100000, 100000)
        child.setids(0, 0)
        child.call(os.chown, str(file), 1, 2)
        assert (file.stat().st_uid, file.stat().st_gid) == (100001, 100002)
        assert child.call(failing, os.setresuid, 70000, 70000, 70000) == EINVAL
        child.setids(65535, 65535)
        assert status(child.pid, "Uid") == ["165535"] * 4


def test_user_13_what_a_map_shows_depends_on_the_reader() -> None:
    def seen(reader: nslab.Process | None, pid: int) -> list[str]:
        file = f"/proc/{pid}/uid_map"
        return (reader.read(file) if reader else Path(file).read_text()).split()

    with rooted(inside=7) as outer, somebody() as sibling:
        inner = outer.fork("user")
        outer.write(f"/proc/{inner.pid}/uid_map", "5 7 1")
        sibling.unshare("user")
        assert seen(inner, inner.pid) == ["5", "7", "1"], "as its parent numbers it"
        assert seen(None, inner.pid) == ["5", str(UID), "1"]
        assert seen(sibling, inner.pid) == ["5", "4294967295", "1"]
        mapped(sibling, 9)
        assert seen(sibling, inner.pid) == ["5", "9", "1"]


@pytest.mark.requires("initial:user")
def test_user_14_the_initial_one_maps_everybody_to_himself() -> None:
    for which in ("uid", "gid"):
        assert Path(f"/proc/self/{which}_map").read_text().split() == ["0", "0", "4294967295"]


# -- capabilities -----------------------------------------------------------------------------------------------------


def test_user_15_exec_keeps_the_capabilities_of_uid_0_only() -> None:
    for inside, held in ((1000, NONE), (0, FULL)):
        with rooted(inside=inside) as process:
            assert status(process.pid, "CapEff") == [FULL]
            assert process.run("grep CapEff /proc/self/status").stdout.split()[1] == held


def nest() -> tuple[int, str]:
    """How many user namespaces could be made, one in the other, and the errno that ended it."""
    for level in range(50):
        uid, gid = os.getuid(), os.getgid()
        try:
            syscalls.unshare(USER)
        except nslab.SyscallError as error:
            return level, error.name
        syscalls.write_file("/proc/self/setgroups", "deny")
        syscalls.write_file("/proc/self/uid_map", f"{uid} {uid} 1")
        syscalls.write_file("/proc/self/gid_map", f"{gid} {gid} 1")
    return 50, ""


@pytest.mark.requires("initial:user")
def test_user_16_they_nest_33_deep() -> None:
    with somebody() as process:
        levels, errno = process.call(nest)
        assert errno == "ENOSPC"
        assert levels == 33
        with process.namespaces["user"] as deepest:
            assert len(deepest.ancestors()) == levels
            assert deepest.uid_map.lines == ((UID, UID, 1),)


def test_user_17_a_child_stays_where_its_parent_is() -> None:
    with rooted() as process:
        child = process.fork()
        assert link("user", child.pid) == link("user", process.pid) != link("user")
        child.unshare("user")
        assert link("user", child.pid) != link("user", process.pid)


def test_user_18_joining_goes_down_only() -> None:
    with rooted() as process, rooted() as sibling:
        child = process.fork("user")
        with process.namespaces["user"] as above, sibling.namespaces["user"] as beside, child.namespaces["user"] as own:
            assert "ancestor or sibling" in refused("EPERM", child, "setns", above)
            refused("EPERM", child, "setns", beside)
            assert "already" in refused("EINVAL", child, "setns", own)
            process.setns(own)
            assert link("user", process.pid) == str(own)


def test_user_19_neither_with_threads_nor_with_a_shared_root() -> None:
    def with_a_thread() -> str:
        done = threading.Event()
        thread = threading.Thread(target=done.wait, daemon=True)
        thread.start()
        try:
            syscalls.unshare(USER)
        except nslab.SyscallError as error:
            return error.name
        finally:
            done.set()
            thread.join()
        return ""

    clone_fs = 0x200
    with somebody() as process:
        assert process.call(with_a_thread) == "EINVAL"
        with pytest.raises(nslab.SyscallError) as caught:
            process.call(syscalls.clone3, USER | clone_fs)
        assert caught.value.name == "EINVAL"
        process.unshare("user")


def test_user_20_not_in_a_chroot_and_not_when_unmapped() -> None:
    with somebody() as process:
        process.unshare("user")
        assert "not mapped" in refused("EPERM", process, "unshare", "user")
        mapped(process)
        child = process.fork()
        child.unshare("user")
        process.chroot("/proc")
        assert "chroot" in refused("EPERM", process, "unshare", "user")


# -- files ------------------------------------------------------------------------------------------------------------


def test_user_21_a_file_made_by_root_inside_is_the_users_own(folder: Path) -> None:
    with rooted() as process:
        assert process.run(f"touch {folder}/file; stat -c %u:%g {folder}/file").stdout == "0:0\n"
        info = (folder / "file").stat()
        assert (info.st_uid, info.st_gid) == (UID, GID)


def test_user_22_files_of_others_stay_out_of_reach() -> None:
    assert os.stat(SECRET).st_uid == 0
    with rooted() as process:
        assert process.capabilities().effective == set(CAPABILITIES)
        assert process.call(lambda: os.stat(SECRET).st_uid) == NOBODY
        assert process.call(failing, open, SECRET) == EACCES
        assert process.call(failing, os.chown, SECRET, 0, 0) == EPERM
        assert process.call(failing, os.chmod, SECRET, 0o644) == EPERM


@pytest.mark.requires("root")
def test_user_23_set_uid_of_an_unmapped_owner_is_ignored(folder: Path) -> None:
    program = folder / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    with somebody() as process:
        assert process.run([str(program), "-u"]).stdout == "0\n"
        process.unshare("user")
        mapped(process, 1000)
        assert process.run([str(program), "-u"]).stdout == "1000\n"


@pytest.mark.requires("tool:su")
def test_user_23_the_loader_sees_no_set_uid_program_either() -> None:
    """Run with more rights than its caller, a program is not told to show what the kernel said to it."""
    su = shutil.which("su") or ""
    assert os.stat(su).st_mode & stat.S_ISUID
    command, env = [su, "--version"], {"LD_SHOW_AUXV": "1"}
    with somebody() as process:
        assert "AT_EUID" not in process.run(command, env=env, check=True).stdout
        process.unshare("user")
        mapped(process, 1000)
        assert ["AT_EUID:", "1000"] in [line.split() for line in process.run(command, env=env, check=True).lines]


def test_user_24_what_is_in_no_namespace_stays_forbidden(folder: Path) -> None:
    with rooted("user mnt") as process:
        assert process.capabilities().effective == set(CAPABILITIES)
        now = time.time()  # should it be allowed, it changes nothing
        assert process.call(failing, time.clock_settime, time.CLOCK_REALTIME, now) == EPERM
        assert process.call(failing, os.mknod, f"{folder}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)) == EPERM
        assert process.call(failing, os.kill, 1, 0) == EPERM
        refused("EPERM", process, "mount", "/dev/vda", "/mnt", "ext4", "MS_RDONLY")
        process.mount("none", "/mnt", "tmpfs")
        assert process.call(failing, os.mkfifo, "/mnt/pipe") == 0


def test_user_25_what_may_be_mounted_inside() -> None:
    needs = {"proc": "pid", "sysfs": "net", "mqueue": "ipc", "cgroup2": "cgroup"}
    with rooted("user mnt") as process:
        process.mount("none", "/mnt", "tmpfs")
        process.run("mkdir /mnt/a /mnt/b /mnt/c /mnt/d /mnt/e", check=True)
        process.mount("none", "/mnt/a", "ramfs")
        process.mount("none", "/mnt/a", "devpts")
        process.mount("none", "/mnt/a", "overlay", (), "lowerdir=/mnt/b,upperdir=/mnt/c,workdir=/mnt/d,userxattr")
        for fstype in needs:
            refused("EPERM", process, "mount", "none", "/mnt/e", fstype)
        for fstype, kind in needs.items():
            own = process.fork(kind)
            own.mount("none", "/mnt/e", fstype)
            assert own.run("stat -f -c %T /mnt/e; umount /mnt/e").returncode == 0


def test_user_26_the_creators_user_has_full_power_from_outside() -> None:
    with rooted() as process, somebody() as same, process.namespaces["user"] as user:
        assert user.owner_uid == UID
        assert same.capabilities().effective == frozenset()
        same.setns(user)
        assert same.capabilities().effective == set(CAPABILITIES)
        if os.getuid() == 0:
            with nslab.process(as_="nobody") as other:
                refused("EPERM", other, "setns", user)
            with nslab.process() as root:
                process.unshare("uts")
                with process.namespaces["uts"] as uts:
                    root.setns(uts)
                root.sethostname("by-root")
                assert process.gethostname() == "by-root"


# -- ids that travel --------------------------------------------------------------------------------------------------


def test_user_27_credentials_carry_the_receivers_uid() -> None:
    def say(end: int) -> None:
        builtins.pair[end].send(b"!")  # type: ignore[attr-defined]

    def writer(end: int) -> int:
        (_, _, data), *_ = builtins.pair[end].recvmsg(1, 64)[1]  # type: ignore[attr-defined]
        return struct.unpack("3i", data)[1]  # type: ignore[no-any-return]

    with somebody() as process:
        process.call(connected)
        child = process.fork("user")
        process.call(say, 0)
        assert child.call(writer, 1) == NOBODY, "as long as nobody is mapped"
        mapped(child, 42)
        process.call(say, 0)
        assert child.call(writer, 1) == 42
        child.call(say, 0)
        assert process.call(writer, 1) == UID


def test_user_28_file_capabilities_from_inside_are_worthless_outside(folder: Path) -> None:
    program = folder / "cat"
    shutil.copy("/usr/bin/cat", program)
    os.chown(program, UID, GID)
    command, line = [str(program), "/proc/self/status"], "CapPrm:\t0000000000002000"  # CAP_NET_RAW
    with rooted(inside=0) as process, somebody() as outside:
        child = process.fork()
        value = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
        child.call(os.setxattr, str(program), "security.capability", value)
        assert len(child.call(os.getxattr, str(program), "security.capability")) == 20
        seen = os.getxattr(program, "security.capability")
        assert (len(seen), struct.unpack("<I", seen[20:])) == (24, (UID,))
        assert line not in outside.run(command).stdout
        child.setids(0, 0)
        assert f"CapPrm:\t{FULL}" in child.run(command).stdout


@pytest.mark.requires("root", "linux:5.12", "tool:setpriv")
def test_user_29_mapping_uid_0_of_the_parent_needs_setfcap() -> None:
    script = """
    unshare --user sleep 1000 & holder=$!
    until [ "$(readlink /proc/$holder/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do :; done
    for map in "0 0 1" "0 100000 1"; do echo "$map" > /proc/$holder/uid_map && echo "$map taken"; done
    kill $holder
    """
    with nslab.process() as process:
        command = ["setpriv", "--bounding-set", "-setfcap", "sh", "-c", script]
        done = process.run(command)
        assert done.stdout == "0 100000 1 taken\n"
        assert "0 0 1 taken" in process.run(["sh", "-c", script]).stdout


@pytest.mark.requires("root")
def test_user_30_six_ranges_are_resolved_through_the_outer_map() -> None:
    with nslab.process() as process:
        process.call(nothing)
        outer = process.fork("user")
        lines = "".join(f"{number} {number} 1\n" for number in range(6))
        for which in ("uid", "gid"):
            process.write(f"/proc/{outer.pid}/{which}_map", "0 100000 65536")
        outer.setids(0, 0)
        inner = outer.fork("user")
        for which in ("uid", "gid"):
            outer.write(f"/proc/{inner.pid}/{which}_map", lines)
        inner.setids(0, 0)
        with inner.namespaces["user"] as user:
            assert [user.uid_map.outside(number) for number in range(6)] == list(range(100000, 100006))
        assert inner.call(failing, open, SECRET) == EACCES
        assert status(inner.pid, "Uid") == ["100000"] * 4
