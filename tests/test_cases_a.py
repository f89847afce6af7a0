"""What goes wrong with namespaces elsewhere, after reports of users of other tools; each must go right here."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import nslab
from nslab import hints, syscalls
from nslab.model import KINDS
from tests.helpers import eventually, has_ended, idle_thread, in_python, link, pidfd_of, with_a_thread

USER, MNT, TIME, UTS = 0x10000000, 0x00020000, 0x00000080, 0x04000000
ORDINARY = os.getuid() or 65534  # the uid of nslab.process(as_="ordinary")


def join_own(kind: str, flag: int) -> None:
    with open(f"/proc/self/ns/{kind}") as file:
        syscalls.setns(file.fileno(), flag)


def test_A01_a_user_namespace_needs_no_single_threaded_caller() -> None:
    with idle_thread():
        assert nslab.run("id -u", isolate="user").stdout == "0\n"
    with nslab.process() as process:
        with pytest.raises(nslab.SyscallError, match="has 2 threads") as caught:
            process.call(with_a_thread, syscalls.unshare, USER)
        assert caught.value.name == "EINVAL"
        process.unshare("user")  # with one thread again


def test_A03_entering_does_not_trip_over_what_is_shared() -> None:
    with nslab.Container(isolate="uts", hostname="web") as web:
        assert web.run("hostname", check=True).stdout == "web\n"
        with web.namespaces["user"] as user:
            assert str(user) == (link("user") if os.getuid() == 0 else link("user", web.pid))
    with nslab.process() as process, pytest.raises(nslab.SyscallError, match="in that user namespace already") as caught:
        process.call(join_own, "user", USER)
    assert caught.value.name == "EINVAL"


@pytest.mark.uml
@pytest.mark.skipif(os.path.exists("/proc/self/ns/time"), reason="this kernel has time namespaces")
def test_a_kind_that_the_kernel_was_built_without_is_named() -> None:
    """Debian's user-mode Linux has no time namespaces."""
    with nslab.process() as process, pytest.raises(nslab.SyscallError, match="no namespaces of kind time"):
        process.unshare("uts time")


@pytest.mark.parametrize("call", ["unshare", "clone3"])
def test_a_refused_time_namespace_is_a_kernel_without_also_where_no_proc_is_in_sight(tmp_path: Path, call: str) -> None:
    tmp_path.chmod(0o755)
    with nslab.process() as process:
        process.chroot(str(tmp_path))
        assert "no namespaces of kind time" in process.call(hints.explain, call, errno.EINVAL, flags=KINDS["time"].flag)


def test_what_flags_of_a_pidfd_do_not_name_is_not_joined_and_the_hint_says_so() -> None:
    def join(kinds: int) -> None:
        pidfd = os.pidfd_open(os.getppid())
        try:
            syscalls.setns(pidfd, kinds)
        finally:
            os.close(pidfd)

    with nslab.process() as process:
        with pytest.raises(nslab.SyscallError, match="the flags name, and here they name none") as caught:
            process.call(join, 0)
        assert caught.value.name == "EINVAL"


def test_A04_mount_and_time_namespaces_are_entered_from_a_threaded_process() -> None:
    with idle_thread(), nslab.Container(isolate="mnt time") as container:
        assert container.run("readlink /proc/self/ns/mnt /proc/self/ns/time").lines == [
            link("mnt", container.pid),
            link("time", container.pid),
        ]
    with nslab.process() as process:
        process.unshare("mnt time")
        for kind, flag, name in (("mnt", MNT, "EINVAL"), ("time_for_children", TIME, "EUSERS")):
            process.call(join_own, kind, flag)
            with pytest.raises(nslab.SyscallError, match="2 threads") as caught:
                process.call(with_a_thread, join_own, kind, flag)
            assert caught.value.name == name
            assert "Too many users" not in str(caught.value)


def test_A05_the_caller_can_still_start_threads_and_programs() -> None:
    for _ in range(3):
        nslab.run("true", isolate="pid")
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    for _ in range(2):
        subprocess.run(["true"], check=True)
    assert link("pid") == link("pid_for_children")


def test_A06_a_namespace_whose_init_is_dead_is_said_to_be_that() -> None:
    with nslab.Container(isolate="pid") as container, container.namespaces["pid"] as held, pidfd_of(container.pid) as init:
        inode = held.id.ino
        signal.pidfd_send_signal(init, signal.SIGKILL)
        assert has_ended(init)
        with pytest.raises(nslab.DeadNamespace, match="init"):
            container.run("true")
        with nslab.process() as process:
            process.setns(held)
            with pytest.raises(nslab.SyscallError) as caught:
                process.run("true")
            assert caught.value.name == "ENOMEM"
            assert f"init (PID 1) of pid:[{inode}] has ended" in str(caught.value)
            assert "Cannot allocate memory" not in str(caught.value)


def test_A07_what_ignores_the_polite_signal_is_ended_anyway() -> None:
    with nslab.Container(isolate="pid mnt") as container, pidfd_of(container.pid) as init:
        stubborn = container.popen("trap '' TERM INT; echo ready; while :; do sleep 1; done")
        assert stubborn.stdout and stubborn.stdout.readline() == b"ready\n"
        assert container.run("kill -9 1; echo survived").stdout == "survived\n"
        begin = time.monotonic()
        container.stop(timeout=0.3)
        assert 0.3 <= time.monotonic() - begin < 1.3
        assert has_ended(init, 0)
        assert stubborn.wait(2) == -signal.SIGKILL
        stubborn.end()


def test_A07_what_ends_politely_is_not_waited_for_longer() -> None:
    with nslab.Container(isolate="pid mnt") as container:
        polite = container.popen("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
        assert polite.stdout and polite.stdout.readline() == b"ready\n"
        begin = time.monotonic()
        container.stop(timeout=10)
        assert time.monotonic() - begin < 5
        assert polite.wait(2) == 5
        assert polite.stdout.read() == b"bye\n"
        polite.end()


def children(parent: int) -> list[str]:
    """Of all threads, zombies included."""
    return [pid for path in Path(f"/proc/{parent}/task").glob("*/children") for pid in path.read_text().split()]


@pytest.mark.parametrize("kinds", ["pid mnt", "uts"])
def test_A08_orphans_do_not_stay_as_zombies(kinds: str) -> None:
    forks = "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; exit 7"
    assert nslab.run(forks, isolate=kinds).returncode == 7
    if kinds == "uts":
        return
    with nslab.Container(isolate=kinds) as container:
        container.run(forks)
        assert eventually(lambda: not children(container.pid)), "its init has buried them"


def test_A09_the_exit_status_is_the_commands_own() -> None:
    result = nslab.run("kill -9 $$", isolate="pid mnt")
    assert (result.returncode, result.stdout, result.stderr) == (-9, "", "")
    result = nslab.run("sleep 1000 & exit 3", isolate="pid mnt")  # and what it left behind is gone: the leak check
    assert (result.returncode, result.stderr) == (3, "")


def test_A09_the_end_of_init_is_the_end_of_the_command_by_a_signal() -> None:
    with nslab.Container(isolate="pid") as container:
        result = container.run("echo go; exec sleep 1000", stream=lambda *_: os.kill(container.pid, signal.SIGKILL))
        assert (result.returncode, result.stdout, result.stderr) == (-9, "go\n", "")


def test_A10_a_map_is_written_once() -> None:
    with nslab.process(as_="ordinary") as process:
        process.unshare("user")
        process.write("/proc/self/uid_map", f"0 {ORDINARY} 1")
        with pytest.raises(nslab.SyscallError, match=f"it is now: 0 {ORDINARY} 1.*only once") as caught:
            process.write("/proc/self/uid_map", f"5 {ORDINARY} 1")
        assert caught.value.name == "EPERM"
        assert process.read("/proc/self/uid_map").split() == ["0", str(ORDINARY), "1"]


def test_A11_the_map_rules_of_an_ordinary_user_by_hand() -> None:
    with nslab.process(as_="ordinary") as process:
        process.unshare("user")
        for wrong in (f"0 {ORDINARY} 1\n1 {ORDINARY + 1} 1", f"0 {ORDINARY} 2", "0 4242 1"):
            with pytest.raises(nslab.SyscallError, match="one line only, of length 1, that maps one's own uid") as caught:
                process.write("/proc/self/uid_map", wrong)
            assert caught.value.name == "EPERM"
        process.write("/proc/self/uid_map", f"0 {ORDINARY} 1")
        assert process.run("id -u").stdout == "0\n"


@pytest.mark.requires("ordinary")
@pytest.mark.parametrize("lines", [[(0, ORDINARY, 1), (1, ORDINARY + 1, 1)], [(0, ORDINARY, 2)], [(0, 4242, 1)]])
def test_A11_a_map_that_may_not_be_is_refused_before(lines) -> None:
    with (
        nslab.record() as trace,
        pytest.raises(nslab.SpecError, match=f"one line, of length 1, that maps the own uid .{ORDINARY}"),
    ):
        nslab.run("true", isolate="user", uid_map=lines)
    assert len(trace) == 0
    assert nslab.run("id -u", isolate="user", uid_map=[(7, ORDINARY, 1)]).stdout == "7\n"


def test_A12_setgroups_is_denied_before_the_gid_map() -> None:
    gid = os.getgid() if os.getuid() else ORDINARY
    with nslab.process(as_="ordinary") as process:
        process.unshare("user")
        with pytest.raises(nslab.SyscallError, match="give up setgroups") as caught:
            process.write("/proc/self/gid_map", f"0 {gid} 1")
        assert caught.value.name == "EPERM"
        process.write("/proc/self/setgroups", "deny")
        process.write("/proc/self/gid_map", f"0 {gid} 1")
        with pytest.raises(nslab.SyscallError, match="says deny in this user namespace"):
            process.call(syscalls.setgroups, ())
        with pytest.raises(nslab.SyscallError, match="once denied stays so"):
            process.write("/proc/self/setgroups", "allow")
    with nslab.Container(isolate="user") as container:
        assert container.run("cat /proc/self/setgroups").stdout == "deny\n"
        assert container.run("id -u", user=0, check=True).stdout == "0\n"


@pytest.mark.requires("root", "tool:setpriv")
def test_A14_mapping_root_without_setfcap_says_so() -> None:
    script = """
import nslab
try:
    nslab.run("true", isolate="user", uid_map=[(0, 0, 1)])
except nslab.SyscallError as error:
    print(error.name, error)
print(nslab.run("id -u", isolate="user", uid_map=[(0, 1000, 1)]).stdout)
"""
    done = in_python(script, ["setpriv", "--bounding-set", "-setfcap"])
    assert done.stdout.startswith("EPERM "), done.stderr
    assert "CAP_SETFCAP" in done.stdout
    assert done.stdout.endswith("\n0\n\n"), "the cause is the map of uid 0, nothing else"


def nest_users() -> int:
    for depth in range(1, 50):
        uid, gid = os.getuid(), os.getgid()
        try:
            syscalls.unshare(USER)
        except nslab.SyscallError as error:
            error.add_note(str(depth))
            raise
        syscalls.write_file("/proc/self/setgroups", "deny")
        syscalls.write_file("/proc/self/uid_map", f"{uid} {uid} 1")
        syscalls.write_file("/proc/self/gid_map", f"{gid} {gid} 1")
    return 0


def test_A15_a_limit_of_depth_is_not_a_full_disk() -> None:
    with nslab.process() as process, pytest.raises(nslab.SyscallError) as caught:
        process.call(nest_users)
    assert caught.value.name == "ENOSPC"
    assert "user namespaces nest at most 33 deep" in str(caught.value)
    assert "space left" not in str(caught.value)
    refused = 34 if os.geteuid() == 0 else 33  # an ordinary user begins one level down, in the borrowed namespace
    assert str(refused) in caught.value.__notes__[0].splitlines()


def test_A15_a_limit_of_number_names_the_sysctl() -> None:
    with nslab.process() as process:
        process.unshare("user")
        process.write("/proc/self/setgroups", "deny")
        own = process.call(lambda: (os.geteuid(), os.getegid()))
        assert own == (65534, 65534)
        outside = 0
        process.write("/proc/self/uid_map", f"0 {outside} 1")
        process.write("/proc/self/gid_map", f"0 {outside} 1")
        process.write("/proc/sys/user/max_uts_namespaces", "0")
        with pytest.raises(nslab.SyscallError, match=r"/proc/sys/user/max_uts_namespaces is 0") as caught:
            process.unshare("uts")
        assert caught.value.name == "ENOSPC"
        assert "space left" not in str(caught.value)


@pytest.mark.parametrize(
    ("sysctl", "value", "words"),
    [
        ("apparmor_restrict_unprivileged_userns", 1, "AppArmor restricts user namespaces"),
        ("unprivileged_userns_clone", 0, "ordinary users may not make user namespaces"),
        ("apparmor_restrict_unprivileged_userns", 0, "chroot"),
    ],
)
def test_A16_a_sysctl_that_keeps_ordinary_users_out_is_named(tmp_path: Path, sysctl: str, value: int, words: str) -> None:
    """A chroot refuses as such a machine does, and shows a /proc that says so."""
    files = {
        f"sys/kernel/{sysctl}": f"{value}\n", "self/status": "CapEff:\t0\nSeccomp:\t0\nThreads:\t1\n",
        "self/uid_map": "0 1000 1", "self/gid_map": "0 1000 1", "7/uid_map": "",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in (tmp_path, *tmp_path.rglob("*")):
        folder.chmod(0o755)
    with nslab.process() as process:
        process.chroot(str(tmp_path))
        with pytest.raises(nslab.SyscallError, match=words) as caught:
            process.unshare("user")
        assert caught.value.name == "EPERM"
        if value != 0 or "clone" in sysctl:
            assert f"/proc/sys/kernel/{sysctl} is {value}" in str(caught.value)
            late = process.call(hints.explain, "write", errno.EACCES, path="/proc/7/uid_map", text="0 1000 1")
            assert words in late, "it may come as late as at the map"


@pytest.mark.requires("root")
def test_A17_a_masked_proc_is_named_with_the_way_out() -> None:
    script = """
import nslab
try:
    nslab.run("true", isolate="user pid mnt")
except nslab.SyscallError as error:
    print(error.name, error)
print("old", nslab.run("true", isolate="user pid mnt", proc="old").returncode)
"""
    done = in_python(script, ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /proc/fs && exec "$@"', "sh"])
    assert done.stdout.startswith("EPERM mount("), done.stderr
    assert "partly covered by mounts on /proc/fs." in done.stdout
    assert "proc='old'" in done.stdout
    assert done.stdout.endswith("old 0\n")


def test_A18_a_new_pid_namespace_has_its_own_proc() -> None:
    own, me, count = nslab.run("readlink /proc/self; echo $$; ls /proc | grep -c ^[0-9]", isolate="pid mnt").lines
    assert int(own) <= 5
    assert int(me) <= 3
    assert int(count) <= 5
    numbers = nslab.run("readlink /proc/self; ls /proc | grep -c ^[0-9]", isolate="pid mnt", proc="old").lines
    assert int(numbers[0]) > 5, "without it the machine's PIDs are seen"


def test_A19_an_offset_that_comes_too_late() -> None:
    with nslab.process() as process:
        process.unshare("time")
        process.write("/proc/self/timens_offsets", "monotonic 7 0")
        process.run("true")
        with pytest.raises(nslab.SyscallError, match="too late") as caught:
            process.write("/proc/self/timens_offsets", "monotonic 9 0")
        assert caught.value.name == "EACCES"
    with nslab.Container(isolate="time", clock={"monotonic": 100}) as container:
        container.run("echo monotonic 5 0 > /proc/self/timens_offsets")
        assert container.run("grep monotonic /proc/self/timens_offsets").stdout.split() == ["monotonic", "100", "0"]


def test_A21_only_the_asked_clock_is_shifted() -> None:
    def uptime() -> float:
        return float(Path("/proc/uptime").read_text().split()[0])

    before, date = uptime(), time.time()
    inside = nslab.run("cut -d' ' -f1 /proc/uptime; date +%s", isolate="time", clock={"boottime": 10**6}).lines
    assert before + 10**6 - 0.1 <= float(inside[0]) <= uptime() + 10**6 + 0.1
    assert date - 1 <= int(inside[1]) <= time.time() + 1
    assert uptime() < before + 1000


def test_A22_a_host_name_has_64_bytes_at_most() -> None:
    for name in ("h" * 64, "ü" * 32):
        assert nslab.run("uname -n", isolate="uts", hostname=name).stdout == f"{name}\n"
    for name in ("h" * 65, "ü" * 33):
        with nslab.record() as trace, pytest.raises(ValueError, match="maximum 64 bytes"):
            nslab.Container(isolate="uts", hostname=name)
        assert len(trace) == 0
    with pytest.raises(nslab.SpecError, match="NUL"):
        nslab.Container(isolate="uts", hostname="a\0b")


def test_A23_the_machine_keeps_its_name() -> None:
    name = socket.gethostname()
    with nslab.record() as trace, pytest.raises(nslab.SpecError, match="rename the machine"):
        nslab.run("true", isolate="net", hostname="zz")
    assert len(trace) == 0
    with nslab.process() as process:
        process.unshare("net mnt")
        with pytest.raises(nslab.Refused, match=r"unshare\(.uts"):
            process.sethostname("zz")
        with pytest.raises(nslab.Refused, match="uts"):
            process.write("/proc/sys/kernel/hostname", "zz")
        with pytest.raises(nslab.Refused, match="belongs to no namespace"):
            process.write("/proc/sys/kernel/core_uses_pid", process.read("/proc/sys/kernel/core_uses_pid"))
    with nslab.process() as process:
        process.unshare("uts")
        process.unshare("user")  # and the name belongs to the old one
        with pytest.raises(nslab.SyscallError, match="lacks CAP_SYS_ADMIN") as caught:
            process.call(syscalls.sethostname, b"zz")
        assert caught.value.name == "EPERM"
    assert socket.gethostname() == name


def shared_memory() -> int:
    """What /proc/meminfo counts as shared memory, in kB."""
    return next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:"))


FILL = """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
address = libc.shmat(libc.shmget(7, 192 << 20, 0o1600), None, 0)
ctypes.memset(ctypes.c_void_p(address), 1, 192 << 20)
print("filled")
"""


def is_free_again(kinds: str) -> bool:
    """Whether as much is used when run() and close() return as before, and more in between; others use and free some, too."""
    before, margin = shared_memory(), 96 << 10
    assert nslab.run([sys.executable, "-c", FILL], isolate=kinds).stdout == "filled\n"
    used = [shared_memory()]
    with nslab.Container(isolate=kinds) as web:
        web.run([sys.executable, "-c", FILL], check=True)
        seen = shared_memory()
    used.append(shared_memory())
    assert "shmctl(" in str(web.trace[-1])
    return max(used) < before + margin < seen


@pytest.mark.parametrize("kinds", ["ipc", "user ipc pid mnt"])
def test_A24_shared_memory_is_free_when_close_returns(kinds) -> None:
    """The kernel counts for the whole machine: of a few tries nobody else disturbs one."""
    assert any(is_free_again(kinds) for _ in range(5))


def test_A24_what_somebody_else_holds_stays() -> None:
    with nslab.Container(isolate="ipc") as web, nslab.process() as process:
        with web.namespaces["ipc"] as held:
            process.setns(held)
        assert web.run("ipcmk -Q").returncode == 0
        web.close()
        assert len(process.ipc()) == 1


def test_A25_message_queues_are_mounted_only_with_an_own_ipc_namespace() -> None:
    with nslab.record() as trace, pytest.raises(ValueError, match="ipc"):
        nslab.Container(isolate="user mnt", mqueue="/mnt")
    assert len(trace) == 0
    with nslab.process() as process:
        process.unshare("mnt")
        process.unshare("user")
        with pytest.raises(nslab.SyscallError, match="only with an own ipc namespace") as caught:
            process.mount("mqueue", "/mnt", "mqueue")
        assert caught.value.name == "EPERM"
    with nslab.Container(isolate="user ipc mnt", mqueue="/mnt") as web:
        assert web.run("findmnt -no FSTYPE /mnt && ls -A /mnt").stdout == "mqueue\n"


def test_A26_a_sysctl_belongs_to_a_namespace_or_is_refused() -> None:
    somaxconn, swappiness = Path("/proc/sys/net/core/somaxconn"), Path("/proc/sys/vm/swappiness")
    before = somaxconn.read_text(), swappiness.read_text()
    with nslab.Container(isolate="user net", sysctls={"net.ipv4.ping_group_range": "0 0"}) as web:
        assert web.sysctl("net.ipv4.ping_group_range").split() == ["0", "0"]
        with pytest.raises(nslab.SyscallError, match="must be mapped") as caught:
            web.sysctl("net.ipv4.ping_group_range", "0 2147483647")
        assert caught.value.name == "EINVAL"
        assert web.sysctl("net.core.somaxconn", 77) == "77" == web.run("cat /proc/sys/net/core/somaxconn").stdout.strip()
        with pytest.raises(nslab.SyscallError, match=r"whole machine|only the initial one") as caught:
            web.sysctl("net.core.rmem_max", 1 << 20)
        assert caught.value.name in ("EACCES", "ENOENT")
        with pytest.raises(nslab.Refused, match="belongs to no namespace"):
            web.sysctl("vm.swappiness", 1)
        with pytest.raises(nslab.SpecError, match="is of kind ipc"):
            web.sysctl("kernel.shmmax", 1)
    assert (somaxconn.read_text(), swappiness.read_text()) == before


SHARED = """
import nslab, sys
folder = sys.argv[1] if len(sys.argv) > 1 else "/mnt"
def table():
    return open("/proc/self/mountinfo").read()
before = table()
assert any(line.split()[4] == folder and "shared:" in line for line in before.splitlines())
with nslab.Container(isolate="mnt") as container:
    container.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    assert container.run(["findmnt", "-n", "-o", "FSTYPE", folder]).lines[-1] == "tmpfs"
    print("container", table() == before)
with nslab.process() as process:
    process.unshare("mnt")
    process.mount("none", folder, "tmpfs")
    print("process", table() == before)
import subprocess
subprocess.run(["unshare", "--mount", "--propagation", "unchanged", "mount", "-t", "tmpfs", "none", folder], check=True)
print("without care", table() == before)
"""


@pytest.mark.requires("root", "tool:findmnt")
def test_A27_mounts_do_not_leak_through_a_shared_mount() -> None:
    setup = 'mount -t tmpfs none /mnt && mount --make-shared /mnt && exec "$@"'
    done = in_python(SHARED, ["unshare", "--mount", "sh", "-c", setup, "sh"])
    assert done.stdout.splitlines() == ["container True", "process True", "without care False"], done.stderr


def test_A28_each_reason_why_pivot_root_refuses_is_said(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "new" / "old"
    old.mkdir(parents=True)
    with nslab.process() as process:
        process.unshare("mnt")

        def refused(errno: str, why: str, *paths: object) -> None:
            with pytest.raises(nslab.SyscallError, match=why) as caught:
                process.pivot_root(*map(str, paths))
            assert caught.value.name == errno

        if os.getuid() == 0:
            refused("EBUSY", "same mount as the current root", new, old)
        else:  # the mounts of a user namespace above are locked
            refused("EINVAL", "bind mount it on itself", new, old)
        process.mount(str(new), str(new), None, "MS_BIND")
        refused("ENOENT", "does not exist", new, new / "missing")
        if os.getuid() == 0:
            refused("EBUSY", "must be at or below", new, tmp_path)
        process.mount(str(tmp_path), str(tmp_path), None, "MS_BIND")
        refused("EINVAL", "must be at or below", new, tmp_path)
        process.umount(str(tmp_path))
        process.mount(None, str(new), None, "MS_SHARED")
        refused("EINVAL", "shared propagation", new, old)
        process.mount(None, str(new), None, "MS_PRIVATE")
        process.chdir(str(new))
        process.pivot_root(".", ".")
        process.umount(".", detach=True)
        assert process.call(os.listdir, "/") == ["old"]


THREAD = """
import sys, threading, nslab
made = []
thread = threading.Thread(target=lambda: made.append(nslab.Container("web", isolate="pid")))
thread.start(); thread.join()
print(made[0].pid, made[0].run("echo still here").stdout, end="", flush=True)
sys.stdin.read()
"""


def test_A29_a_container_outlives_the_thread_that_made_it_but_not_the_process() -> None:
    command = [sys.executable, "-c", THREAD]
    env = {**os.environ, "PYTHONPATH": str(Path(nslab.__file__).parents[1])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as maker:
        assert maker.stdout
        pid, words = maker.stdout.readline().split(" ", 1)
        assert words == "still here\n"
        with pidfd_of(int(pid)) as init:
            maker.kill()
            assert has_ended(init, 2)


FILTER = """
import ctypes, struct, sys, nslab
number = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x00050000 | number), (0x06, 0, 0, 0x7FFF0000)]
program = b"".join(struct.pack("HBBI", *line) for line in code)
buffer = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
rule = Program(len(code), ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(rule)) == 0
with nslab.record() as trace:
    print(nslab.run("uname -n", isolate="uts pid", hostname="web").stdout, end="")
    with nslab.Stepper(isolate="uts", hostname="web") as web:  # no process that was made ahead of time can do that one
        web.finish()
print([step.call for step in trace if step.call.startswith("clone")])
"""


@pytest.mark.parametrize("number", [38, 1], ids=["ENOSYS", "EPERM"])
def test_A30_where_clone3_is_filtered_clone_is_used(number: int) -> None:
    done = in_python(FILTER.replace("sys.argv[1]", str(number)))
    name, calls = done.stdout.splitlines() or ["", done.stderr]
    assert name == "web"
    assert calls.endswith("'clone', 'clone3', 'clone']"), calls


BOTH = """
import ctypes, os, struct, nslab
libc = ctypes.CDLL(None, use_errno=True)
clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x00050026), (0x15, 0, 3, clone), (0x20, 0, 0, 16),
        (0x45, 0, 1, 0x7E020000), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
program = b"".join(struct.pack("HBBI", *line) for line in code)
buffer = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(code), ctypes.addressof(buffer)))) == 0
try:
    nslab.run("true", isolate="uts")
except nslab.SyscallError as error:
    print(error)
"""


def test_A30_where_both_are_filtered_the_filter_is_named() -> None:
    done = in_python(BOTH)
    assert done.stdout.startswith("clone("), done.stderr
    assert "seccomp filter around this process" in done.stdout


@pytest.mark.requires("root")
def test_A31_a_number_that_was_given_away_again_is_not_entered() -> None:
    container, ended = nslab.Container("web", isolate="uts"), nslab.process()
    with container.namespaces["uts"] as held, nslab.process() as process:
        container.close()
        ended.close()
        processes = [process.fork(set_tid=[pid]) for pid in (container.pid, ended.pid)]
        assert [each.pid for each in processes] == [container.pid, ended.pid]
        for attempt in (
            lambda: container.run("true"),
            lambda: container.namespaces["uts"],
            lambda: container.pids,
            container.capabilities,
            lambda: ended.run("true"),
            lambda: ended.namespaces["uts"],
            lambda: ended.pids,
        ):
            with pytest.raises(nslab.DeadNamespace):
                attempt()
        assert not container.alive and not ended.alive
        assert held.members() == []
        assert all(each.alive for each in processes)


def test_A31_what_has_ended_is_never_taken_for_another() -> None:
    container = nslab.Container("web", isolate="uts")
    held = container.namespaces["uts"]
    container.stop()
    for attempt in (
        lambda: container.run("true"),
        lambda: container.popen("true"),
        lambda: container.call(os.getpid),
        lambda: container.namespaces["uts"],
    ):
        with pytest.raises(nslab.DeadNamespace):
            attempt()
    assert not container.alive
    assert held.members() == [], "a handle keeps the namespace, not the container"
    held.close()
