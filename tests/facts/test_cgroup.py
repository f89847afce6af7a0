"""What is true of cgroups and their namespaces, each fact shown by the kernel. cgroup_namespaces(7), cgroups(7)

The cgroups are made by hand, as root, with names of this test, in the hierarchies that the machine has: v2, and of v1 some.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import procfs, syscalls
from tests.helpers import FORK_STORM, eventually, has_ended, pidfd_of


def hierarchies() -> dict[tuple[str, ...], Path]:
    """Where each hierarchy is mounted, by its controllers; v2 is ()."""
    found: dict[tuple[str, ...], Path] = {}
    for mount in procfs.mountinfo():
        if mount.fstype == "cgroup2":
            found.setdefault((), Path(mount.target))
        elif mount.fstype == "cgroup" and mount.root == "/":
            found |= {key: Path(mount.target) for key in procfs.cgroups() if key and set(key) <= set(mount.super_options)}
    return found


def with_controller(name: str) -> tuple[tuple[str, ...], Path]:
    """The hierarchy that has a controller, and where it is mounted."""
    for key, path in hierarchies().items():
        if name in key or (not key and name in (path / "cgroup.controllers").read_text().split()):
            return key, path
    pytest.skip(f"this machine has no controller {name}")


@contextlib.contextmanager
def cgroup(top: Path, *below: str) -> Iterator[Path]:
    """A new cgroup, and some below it, removed again with what is in them."""
    root = top / f"nslab-fact-{os.getpid()}"
    for path in (root, *(root / name for name in below)):
        path.mkdir()
    try:
        yield root
    finally:
        for path in [Path(folder) for folder, _, _ in os.walk(root, topdown=False)]:
            for pid in (path / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            assert eventually(lambda path=path: not removal_fails(path)), path


def removal_fails(path: Path) -> int:
    try:
        path.rmdir()
    except OSError as error:
        return error.errno or -1
    return 0


def put(pid: int, path: Path) -> None:
    (path / "cgroup.procs").write_text(str(pid))


def seen(process: nslab.Process, pid: int | str = "self") -> dict[tuple[str, ...], str]:
    """/proc/PID/cgroup as a process sees it."""
    rows = (line.split(":", 2) for line in process.read(f"/proc/{pid}/cgroup").splitlines())
    return {tuple(filter(None, controllers.split(","))): path for _, controllers, path in rows}


def v2() -> Path:
    return hierarchies()[()]


@pytest.mark.requires("root")
def test_cgroup_01_the_own_path_is_the_root_right_after_creation() -> None:
    """In a hierarchy of v1, where there is one, and in v2."""
    with contextlib.ExitStack() as stack, nslab.process() as process:
        tops = {key: top for key, top in hierarchies().items() if key in ((), ("freezer",))}
        assert () in tops
        for top in tops.values():
            put(process.pid, stack.enter_context(cgroup(top, "sub")) / "sub")
        before = seen(process)
        assert all(before[key].endswith("/sub") for key in tops)
        process.unshare("cgroup")
        assert {path for path in seen(process).values()} == {"/"}
        process.close()


def test_cgroup_01_for_anybody() -> None:
    shown = nslab.run("cat /proc/self/cgroup", isolate="cgroup").lines
    assert shown
    assert {line.split(":", 2)[2] for line in shown} == {"/"}


@pytest.mark.requires("root")
def test_cgroup_02_processes_outside_the_root_have_paths_with_dots() -> None:
    with cgroup(v2(), "sub", "other") as x, nslab.process() as process, nslab.process() as sibling:
        put(process.pid, x / "sub")
        put(sibling.pid, x / "other")
        process.unshare("cgroup")
        assert seen(process, sibling.pid)[()] == "/../other"
        put(sibling.pid, x)
        assert seen(process, sibling.pid)[()] == "/.."
        assert seen(process, os.getpid())[()].startswith("/../..")


@pytest.mark.requires("root")
def test_cgroup_03_joining_changes_the_view_but_not_the_membership() -> None:
    with cgroup(v2(), "sub") as x, nslab.process() as process, nslab.process() as guest:
        put(process.pid, x / "sub")
        process.unshare("cgroup")
        before = procfs.cgroups(guest.pid)
        with process.namespaces["cgroup"] as namespace:
            guest.setns(namespace)
        assert procfs.cgroups(guest.pid) == before
        assert seen(guest)[()] == "/../.." + before[()].rstrip("/")
        assert seen(guest, process.pid)[()] == "/"


@pytest.mark.requires("root")
def test_cgroup_04_only_a_mount_made_inside_shows_the_subtree() -> None:
    def mounted(process: nslab.Process, target: str) -> str:
        lines = (line.split() for line in process.read("/proc/self/mountinfo").splitlines())
        return next(fields[3] for fields in lines if fields[4] == target)

    with cgroup(v2(), "sub") as x, nslab.process() as process:
        put(process.pid, x / "sub")
        process.unshare("mnt cgroup")
        assert mounted(process, str(v2())) == "/../.."
        process.mount("none", "/mnt", "cgroup2")
        assert mounted(process, "/mnt") == "/"
        assert process.read("/mnt/cgroup.procs").split() == [str(process.pid)]


@pytest.mark.requires("root")
def test_cgroup_05_the_root_stays_where_it_was_when_it_was_made() -> None:
    with cgroup(v2(), "sub", "sub/inner", "other") as x, nslab.process() as process:
        put(process.pid, x / "sub")
        process.unshare("cgroup")
        put(process.pid, x / "sub/inner")
        assert seen(process)[()] == "/inner"
        put(process.pid, x / "other")
        assert seen(process)[()] == "/../other"


def test_cgroup_06_it_needs_a_capability_that_a_user_namespace_of_the_same_call_gives() -> None:
    with nslab.process(as_="ordinary") as process:
        with pytest.raises(nslab.SyscallError) as caught:
            process.unshare("cgroup")
        assert caught.value.name == "EPERM"
        before = process.namespaces.ids()["cgroup"]
        process.unshare("user cgroup")
        assert process.namespaces.ids()["cgroup"] != before


@pytest.mark.requires("root")
def test_cgroup_07_a_delegated_subtree_can_be_divided_but_not_its_own_limits_changed() -> None:
    with cgroup(v2(), "given") as x, nslab.process(as_="ordinary") as process:
        given = x / "given"
        for name in ("", "cgroup.procs", "cgroup.subtree_control"):
            os.chown(given / name, 65534, 65534)
        put(process.pid, given)
        process.unshare("user cgroup mnt")
        process.write("/proc/self/setgroups", "deny")
        process.write("/proc/self/uid_map", "0 65534 1\n")
        process.write("/proc/self/gid_map", "0 65534 1\n")
        process.mount("none", "/mnt", "cgroup2")
        process.call(os.mkdir, "/mnt/inner")
        process.write("/mnt/inner/cgroup.max.depth", "1")
        for path in ("/mnt/cgroup.max.depth", f"/proc/1/root{x}/cgroup.procs"):
            with pytest.raises(nslab.SyscallError) as caught:
                process.write(path, "0")
            assert caught.value.name == "EACCES"


@pytest.mark.requires("root")
def test_cgroup_08_a_limit_on_pids_stops_a_fork_storm() -> None:
    """Also from inside a cgroup namespace of its own: the limit is that of the cgroup."""
    key, top = with_controller("pids")
    with contextlib.ExitStack() as stack:
        if not key:
            (top / "cgroup.subtree_control").write_text("+pids")
            stack.callback((top / "cgroup.subtree_control").write_text, "-pids")
        x = stack.enter_context(cgroup(top))
        (x / "pids.max").write_text("5")
        storm = f"echo $$ > {x}/cgroup.procs && exec unshare --cgroup {sys.executable} -S -c '{FORK_STORM}'"
        with nslab.Container() as box:
            shown = box.popen(storm).stdout.readline()
            assert shown == b"4 11\n"  # with itself five; EAGAIN
            assert (x / "pids.current").read_text() == "5\n"


@pytest.mark.requires("root")
def test_cgroup_09_frozen_uses_no_processor_and_kill_ends_all() -> None:
    with cgroup(v2(), "sub") as x, nslab.Container() as box:
        loops = [box.popen(["sh", "-c", "while :; do echo; done"]) for _ in range(2)]
        put(loops[0].pid, x)
        put(loops[1].pid, x / "sub")
        (x / "cgroup.freeze").write_text("1")
        assert eventually(lambda: "frozen 1" in (x / "cgroup.events").read_text())
        select.select([], [], [], 0.02)  # what they used before is counted a little later
        used = [Path(f"/proc/{loop.pid}/schedstat").read_text().split()[0] for loop in loops]
        select.select([], [], [], 0.05)
        assert [Path(f"/proc/{loop.pid}/schedstat").read_text().split()[0] for loop in loops] == used
        (x / "cgroup.freeze").write_text("0")
        for loop in loops:
            os.set_blocking(loop.stdout.fileno(), False)
            while loop.stdout.read(1 << 20):
                pass
            assert select.select([loop.stdout], [], [], 2)[0], "it runs again"
        with pidfd_of(loops[0].pid) as one, pidfd_of(loops[1].pid) as two:
            (x / "cgroup.kill").write_text("1")
            assert has_ended(one) and has_ended(two)


@pytest.mark.requires("root")
def test_cgroup_10_processes_that_the_reader_cannot_see_are_zeros() -> None:
    with cgroup(v2()) as x, nslab.Container(isolate="pid mnt") as box, nslab.process() as outside:
        sleeper = box.popen(["sleep", "1000"])
        put(sleeper.pid, x)
        put(outside.pid, x)
        assert sorted(map(int, box.run(["cat", f"{x}/cgroup.procs"]).lines)) == [0, sleeper.pid_inside]
        assert sorted(map(int, (x / "cgroup.procs").read_text().split())) == sorted([sleeper.pid, outside.pid])


def born_in(path: str) -> str:
    """What a child that clone3 has put into a cgroup finds in /proc/self/cgroup."""
    fd, (out, into) = os.open(path, os.O_RDONLY | os.O_DIRECTORY), os.pipe()
    pid = syscalls.clone3(0, cgroup=fd)
    if pid == 0:
        os.write(into, procfs.read("self/cgroup"))
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(out, 65536).decode()


@pytest.mark.requires("root")
def test_cgroup_11_a_child_can_be_born_in_another_cgroup() -> None:
    with cgroup(v2(), "sub") as x, nslab.process() as process:
        assert f"0::/{x.name}/sub\n" in process.call(born_in, str(x / "sub"))
        assert x.name not in process.read("/proc/self/cgroup")
