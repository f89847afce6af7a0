"""What /proc shows of namespaces and what it does not, each fact shown by the kernel. proc(5), namespaces(7)"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

import nslab
from nslab import ops

CEILING = "/proc/sys/user/max_uts_namespaces"


def nested(limits: str) -> nslab.Result:
    """A shell in a user namespace that may change its own ceilings."""
    return nslab.run(limits, isolate="user")


def test_proc_01_past_the_ceiling_of_namespaces_is_enospc() -> None:
    script = f"""
echo 1 > {CEILING}
unshare --uts sh -c 'unshare --uts true 2>&1; echo in; exec unshare --uts true 2>&1'
unshare --uts echo room again
"""
    lines = nested(script).lines
    assert lines[-1] == "room again"
    assert sum("No space left on device" in line for line in lines) == 2, lines


def test_proc_02_a_child_advertises_the_maximum_but_is_bound_by_its_ancestors() -> None:
    script = f"""
echo 1 > {CEILING}
unshare --user --map-root-user sh -c 'cat {CEILING}; unshare --uts sh -c "unshare --uts true 2>&1; :"'
"""
    initial, threads = (int(Path(file).read_text()) for file in (CEILING, "/proc/sys/kernel/threads-max"))
    assert initial == threads // 2
    number, refused = nested(script).lines
    assert int(number) >= 2**31 - 1 and "No space left" in refused


def test_proc_03_the_host_name_file_answers_for_the_reader() -> None:
    name = os.uname().nodename

    def read_by_an_old_descriptor() -> tuple[str, str]:
        fd = os.open("/proc/sys/kernel/hostname", os.O_RDONLY)
        before = os.pread(fd, 100, 0).decode().strip()
        nslab.syscalls.unshare(0x04000000)
        nslab.syscalls.sethostname(b"renamed")
        return before, os.pread(fd, 100, 0).decode().strip()

    with nslab.Container(isolate="user uts") as box:
        assert box.call(read_by_an_old_descriptor) == (name, "renamed")


def test_proc_04_root_inside_writes_settings_of_its_own_namespaces_only() -> None:
    maps = {"uid_map": "subordinate"} if os.geteuid() == 0 else {}  # who is root outside owns the machine's settings
    with nslab.Container(isolate="user net ipc uts", **maps) as box:
        for own in ("net/ipv4/ip_forward", "kernel/shmmax"):
            box.run(f"cat /proc/sys/{own} > /dev/null; echo 1 > /proc/sys/{own}", check=True)
        for machine in ("vm/swappiness", "kernel/threads-max", "kernel/hostname"):
            assert box.run(f"test -w /proc/sys/{machine}").returncode != 0, machine
        box.call(nslab.syscalls.sethostname, b"although")


@pytest.mark.requires("root")
def test_proc_05_options_of_a_procfs_belong_to_one_mount() -> None:
    with nslab.Container(isolate="mnt pid") as box:
        box.run("mount -t tmpfs x /mnt && mkdir /mnt/hidden /mnt/subset", check=True)
        box.run("mount -t proc -o hidepid=invisible p /mnt/hidden && mount -t proc -o subset=pid p /mnt/subset", check=True)
        assert box.run("ls -d /mnt/hidden/1 /proc/1", user=1000).lines == ["/proc/1"]
        assert box.run("ls -d /mnt/subset/meminfo /proc/meminfo /mnt/subset/1").lines == ["/mnt/subset/1", "/proc/meminfo"]


def test_proc_06_locks_are_shown_of_processes_in_sight(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        inode = str(os.fstat(file.fileno()).st_ino)
        assert inode in Path("/proc/locks").read_text()
        assert inode not in nslab.run(["cat", "/proc/locks"], isolate="pid mnt").stdout


def test_proc_07_meminfo_cpuinfo_and_version_are_the_machine_s() -> None:
    script = "head -n1 /proc/meminfo; grep -c ^processor /proc/cpuinfo; cat /proc/version"
    assert nslab.run(script, isolate="all").check().stdout == nslab.run(script).stdout


def test_proc_08_a_bind_mount_fakes_a_file_of_proc(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemFree: 1024 kB\nMemAvailable: 1024 kB\n")
    bound = [nslab.Bind(f"{tmp_path}/meminfo", "/proc/meminfo")]
    assert nslab.run("free -k", isolate="pid mnt", mounts=bound).check().lines[1].split()[1] == "4096"
    assert "MemTotal: 4096 kB" not in Path("/proc/meminfo").read_text()


def test_proc_09_parts_of_proc_can_be_masked_and_made_read_only() -> None:
    with nslab.process() as process:
        process.unshare("mnt")
        process.do(ops.ReadOnly(("/proc/sys",)))
        process.do(ops.Mask(("/proc/fs", "/proc/version")))
        assert "Read-only file system" in process.run("echo 1 > /proc/sys/kernel/domainname").stderr
        assert process.run("ls /proc/fs; cat /proc/version").check().stdout == ""
    assert Path("/proc/version").read_text() and os.listdir("/proc/fs")


@pytest.mark.parametrize("covered", [False, True])
def test_proc_10_no_fresh_proc_in_a_user_namespace_where_it_is_masked(covered: bool) -> None:
    with nslab.process() as process:
        process.unshare("mnt")
        if covered:
            process.mount("tmpfs", "/proc/sys", "tmpfs")
        done = process.run("unshare --user --map-root-user --mount --pid --fork mount -t proc proc /proc")
        assert done.returncode == (32 if covered else 0), done
        assert ("permission denied" in done.stderr) == covered
