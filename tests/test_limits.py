"""limits=: what cannot be is refused, where they can be had is found, and the kernel holds them.

The last part runs where there is a cgroup v2 with all controllers: the tier uml brings a kernel that has one.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import ops
from nslab.container import limits
from nslab.spawner import cgroups
from tests.helpers import FORK_STORM, ROOT, eventually, has_ended, pidfd_of

# -- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    ("asked", "written"),
    [({"pids": 50}, [("pids.max", "50")]), ({"memory": "256M"}, [("memory.max", str(256 << 20))]),
     ({"memory": 1 << 30}, [("memory.max", str(1 << 30))]), ({"memory": "8 MiB"}, [("memory.max", str(8 << 20))]),
     ({"memory": "1g", "cpu": 2}, [("memory.max", str(1 << 30)), ("cpu.max", "200000 100000")]),
     ({"cpu": 0.5}, [("cpu.max", "50000 100000")]), ({}, []), (None, [])],
)  # fmt: skip
def test_what_is_written(asked, written) -> None:
    assert list(limits.checked(asked).values()) == written


@pytest.mark.parametrize(
    "asked",
    [{"pid": 5}, {"pids": 0}, {"pids": 2}, {"pids": -1}, {"pids": 1.5}, {"pids": True}, {"pids": "5"}, {"pids": 1 << 40},
     {"memory": "256X"}, {"memory": "1K"}, {"memory": -1}, {"memory": True}, {"memory": "1.5G"}, {"memory": 1 << 70},
     {"memory": ""}, {"cpu": 0}, {"cpu": -1}, {"cpu": "half"}, {"cpu": float("nan")}, {"cpu": float("inf")}, {"cpu": True},
     ["pids"], "pids", 5],
)  # fmt: skip
def test_limits_that_cannot_be_are_refused_before_anything_is_made(asked) -> None:
    with nslab.record() as trace, pytest.raises(nslab.SpecError) as caught:
        nslab.run("true", limits=asked)
    assert caught.value.argument == "limits"
    assert not trace


# -- where they can be had: machines made of files ---------------------------------------------------------------------

V2 = "30 1 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "".join(f"33 1 0:30 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n" for name in ("pids", "memory"))
HYBRID = "41 1 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
TABLE = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t{0}\t1\t1\nmemory\t{0}\t1\t1\npids\t{0}\t1\t1\n"
ALL = ("pids", "memory", "cpu")


class Machine:
    def __init__(self, folder: Path, mounts: str, own: str, table: str = TABLE.format(0)):
        self.folder = folder
        (folder / "proc/self").mkdir(parents=True)
        (folder / "proc/self/mountinfo").write_text(mounts)
        (folder / "proc/self/cgroup").write_text(own)
        (folder / "proc/cgroups").write_text(table)

    def cgroup(
        self, path: str, *, has: str = "cpu io memory pids", passes: str = "", procs: str = "", kind: str = "domain"
    ) -> None:
        folder = self.folder / "sys/fs/cgroup" / path.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("controllers", has), ("subtree_control", passes), ("procs", procs), ("type", kind)):
            if kind or name != "type":  # the topmost one has none
                (folder / f"cgroup.{name}").write_text(f"{text}\n")

    def place(self, *controllers: str) -> str:
        return limits.place(controllers or ALL, str(self.folder)).removeprefix(str(self.folder))

    def obstacle(self, *controllers: str) -> str:
        with pytest.raises(nslab.Unavailable) as caught:
            self.place(*controllers)
        assert caught.value.how_to_get_it
        return caught.value.requirement


@pytest.fixture
def machine(tmp_path: Path):
    return lambda mounts, own, *rest: Machine(tmp_path, mounts, own, *rest)


@pytest.mark.unit
def test_the_topmost_cgroup_may_have_processes_in_it(machine) -> None:
    m = machine(V2.format(root="/"), "0::/\n")
    m.cgroup("/", kind="", procs="1\n2")
    assert m.place() == "/sys/fs/cgroup"
    assert m.place("pids") == "/sys/fs/cgroup"


@pytest.mark.unit
def test_A32_a_cgroup_with_processes_is_passed_over_for_the_one_above(machine) -> None:
    """A terminal in a desktop: its scope has processes, the slice above is the user's and has none."""
    m = machine(V2.format(root="/"), "0::/user.slice/app.slice/terminal.scope\n")
    m.cgroup("/", kind="", passes="cpu memory pids")
    m.cgroup("/user.slice", passes="memory pids")
    m.cgroup("/user.slice/app.slice", has="memory pids", passes="memory pids")
    m.cgroup("/user.slice/app.slice/terminal.scope", has="memory pids", procs="7\n8")
    assert m.place("memory", "pids") == "/sys/fs/cgroup/user.slice/app.slice"
    (m.folder / "sys/fs/cgroup/user.slice/cgroup.procs").write_text("5\n")
    assert m.place() == "/sys/fs/cgroup", "cpu can be had at the top only"
    assert m.place("memory") == "/sys/fs/cgroup/user.slice/app.slice"
    assert limits.place((), str(m.folder)).endswith("terminal.scope"), "a group without controllers may be beside processes"


@pytest.mark.unit
def test_A32_in_a_container_whose_processes_are_all_in_the_topmost_one(machine) -> None:
    m = machine(V2.format(root="/"), "0::/\n")
    m.cgroup("/", procs="1\n2\n3")  # it has a type: not the topmost of the machine
    said = m.obstacle("pids")
    assert "/sys/fs/cgroup: 3 processes are in it" in said


@pytest.mark.unit
def test_only_what_is_visible_of_a_hierarchy_is_used(machine) -> None:
    m = machine(V2.format(root="/docker/abc"), "0::/docker/abc/inner\n")
    m.cgroup("/", procs="")
    m.cgroup("/inner", procs="9")
    assert m.place() == "/sys/fs/cgroup"
    (m.folder / "proc/self/cgroup").write_text("0::/elsewhere\n")
    assert "shows the cgroup of this process (/elsewhere)" in m.obstacle()
    (m.folder / "proc/self/cgroup").write_text("0::/../x\n")
    assert "/../x" in m.obstacle()


@pytest.mark.unit
@pytest.mark.requires("ordinary")
def test_what_belongs_to_somebody_else_is_not_used(machine) -> None:
    m = machine(V2.format(root="/"), "0::/own\n")
    m.cgroup("/", kind="")
    m.cgroup("/own", procs="5")
    (m.folder / "sys/fs/cgroup/cgroup.procs").chmod(0o444)
    said = m.obstacle()
    assert f"/sys/fs/cgroup: cgroup.procs is not writable for uid {os.geteuid()}" in said
    assert "/sys/fs/cgroup/own: 1 processes" in said


@pytest.mark.unit
def test_a_threaded_cgroup_is_none_to_be_below(machine) -> None:
    m = machine(V2.format(root="/"), "0::/\n")
    m.cgroup("/", kind="domain invalid")
    assert "'domain invalid'" in m.obstacle()


@pytest.mark.unit
def test_A32_a_controller_of_v1_is_named_with_its_hierarchy(machine) -> None:
    """The reference machine: v1 has the controllers, v2 next to none."""
    m = machine(V1 + HYBRID, "8:pids:/\n4:memory:/x\n0::/\n", TABLE.format(4))
    m.cgroup("/unified", has="hugetlb", kind="")
    said = m.obstacle("pids", "cpu")
    assert "/sys/fs/cgroup/unified has hugetlb" in said
    assert "pids belongs to cgroup v1 (hierarchy 4, mounted at /sys/fs/cgroup/pids)" in said
    assert "cpu belongs to cgroup v1 (hierarchy 4, not mounted here)" in said
    assert limits.place((), str(m.folder)).endswith("unified"), "its freezer needs no controller"


@pytest.mark.unit
def test_without_any_v2_it_says_so(machine) -> None:
    assert "no hierarchy of v2 is mounted" in machine(V1, "8:pids:/\n").obstacle()
    with pytest.raises(nslab.Unavailable, match="no cgroup v2"):
        limits.place((), str(machine.__closure__[0].cell_contents) if machine.__closure__ else "/")


@pytest.mark.unit
def test_a_controller_that_the_kernel_lacks(machine) -> None:
    m = machine(V2.format(root="/"), "0::/\n", "#subsys_name\n")
    m.cgroup("/", kind="", has="memory")
    assert "pids is not enabled above" in m.obstacle("pids")


# -- this machine: either they can be had, or it is said why not --------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_A32_no_limit_is_silently_left_out(name: str) -> None:
    asked = {"pids": 50, "memory": "64M", "cpu": 0.5}
    with nslab.record() as trace:
        try:
            shown = nslab.run("cat /proc/self/cgroup", limits={name: asked[name]}).lines
        except nslab.Unavailable as error:
            assert name in error.requirement and "cgroup" in error.requirement
            assert not trace
        else:
            assert next(line for line in shown if line.startswith("0::")).startswith("0::/nslab-")


@pytest.mark.unit
def test_the_journal_names_all_that_was_made(tmp_path: Path) -> None:
    """sweep() removes what the journal names, whatever of it there still is."""
    base = tmp_path / "base"
    (base / "nslab-1-x/1/inner").mkdir(parents=True)
    (base / "other").mkdir()
    journal = os.memfd_create("journal")
    try:
        groups = cgroups.Groups(journal)
        for leaf in "12":
            groups._note(ops.InCgroup(str(base), "nslab-1-x", leaf), set())
        groups._note(ops.InCgroup(str(tmp_path / "gone"), "nslab-1-x", "1"), set())
        assert os.fstat(journal).st_size == len(f"{base}\0nslab-1-x\0\n{tmp_path}/gone\0nslab-1-x\0\n")
        with pytest.raises(nslab.Refused):
            cgroups.sweep(journal)  # nothing of it in this process
        assert (base / "nslab-1-x").exists()
    finally:
        os.close(journal)


# -- the kernel holds them ----------------------------------------------------------------------------------------------

real = [pytest.mark.uml, pytest.mark.requires("cgroup2:pids+memory+cpu", "root")]
TREE = Path("/sys/fs/cgroup")


def uml(function):
    for mark in real:
        function = mark(function)
    return function


def groups() -> list[str]:
    return [folder for folder, _, _ in os.walk(TREE) if "nslab-" in folder]


def group_of(pid: int) -> str:
    text = Path(f"/proc/{pid}/cgroup").read_text()
    return next(line[3:] for line in text.splitlines() if line.startswith("0::"))


@contextlib.contextmanager
def python(script: str, before: tuple[str, ...] = (), program: str = sys.executable) -> Iterator[subprocess.Popen[str]]:
    command = [*before, program, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{script}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@uml
@pytest.mark.parametrize("kinds", ["", "all"])
def test_a_command_is_born_in_a_leaf_with_the_limits_which_is_gone_afterwards(kinds: str) -> None:
    kinds = " ".join(
        kind for kind in ["mnt", "uts", "ipc", "pid", "net", "user", "cgroup"] if kinds == "all" or kind in kinds.split()
    )
    show = "cat /proc/self/cgroup; for f in pids.max memory.max cpu.max; do cat {}/$f; done; cat {}/../cgroup.procs"
    with nslab.record() as trace:
        script = f"p=$(ls -d /sys/fs/cgroup/nslab-*/*/); {show.format('$p', '$p')}"
        shown = nslab.run(script, isolate=kinds, limits={"pids": 50, "memory": "64M", "cpu": 0.5}).check().lines
    assert shown[1:] == ["50", str(64 << 20), "50000 100000"], "and no process in the group between"
    assert re.fullmatch(r"0::/" if "cgroup" in kinds else r"0::/nslab-\d+-\w+/\d+", shown[0])
    assert not groups()
    assert (TREE / "cgroup.subtree_control").read_text().split() == [], "what was enabled is not any more"
    assert next(step for step in trace if step.call == "clone3").args[0].endswith("CLONE_INTO_CGROUP")


@uml
def test_pids_stop_a_fork_storm_also_of_what_enters() -> None:
    with nslab.Container("web", isolate="pid mnt", limits={"pids": 20}) as web:
        first, number = web.popen([sys.executable, "-c", FORK_STORM]).stdout.readline().split()
        assert int(number) == 11  # EAGAIN
        assert 10 <= int(first) < 20
        with pytest.raises(nslab.SyscallError, match="pids"):
            web.run("true")
        assert web.stats().cgroup["pids.max"] == 20
        assert nslab.run("true").returncode == 0, "outside nothing is short"


@uml
def test_memory_ends_what_takes_too_much() -> None:
    with nslab.Container("web", isolate="uts", limits={"memory": "16M"}) as web:
        assert web.run([sys.executable, "-S", "-c", "x = b'x' * (4 << 20)"]).returncode == 0
        assert web.run([sys.executable, "-S", "-c", "x = b'x' * (24 << 20)"]).returncode == -signal.SIGKILL
        assert web.alive
        counted = web.stats().cgroup
        assert counted["memory.events oom_kill"] == 1
        assert 4 << 20 < counted["memory.peak"] <= 16 << 20
        assert 0 < counted["memory.current"] <= 16 << 20


@uml
def test_cpu_is_handed_out_in_parts() -> None:
    spin = (
        "from time import *\na, b = monotonic(), process_time()\nwhile process_time() - b < 0.2: pass\nprint(monotonic() - a)"
    )
    with nslab.Container("web", limits={"cpu": 0.5}) as web:
        assert float(web.run([sys.executable, "-S", "-c", spin]).stdout) > 0.3
        assert web.stats().cgroup["cpu.stat throttled_usec"] > 0


@uml
def test_a_paused_container_uses_no_processor_time() -> None:
    with nslab.Container("web", isolate="pid", limits={"pids": 20}) as web:
        loop = web.popen(["sh", "-c", "while :; do echo; done"])
        web.pause()
        leaf = TREE / group_of(loop.pid).lstrip("/")
        assert "frozen 1" in (leaf / "cgroup.events").read_text()
        before = Path(f"/proc/{loop.pid}/schedstat").read_text()
        select.select([], [], [], 0.05)
        assert Path(f"/proc/{loop.pid}/schedstat").read_text() == before
        web.resume()
        assert "frozen 0" in (leaf / "cgroup.events").read_text()


@uml
def test_two_containers_have_a_leaf_each_and_the_group_goes_with_the_last() -> None:
    one, two = (nslab.Container(limits={"pids": 20}) for _ in range(2))
    assert Path(group_of(one.pid)).parent == Path(group_of(two.pid)).parent
    assert group_of(one.pid) != group_of(two.pid)
    one.close()
    assert group_of(two.pid) in "".join(groups())
    assert two.run("cat /proc/self/cgroup").stdout.strip() == f"0::{group_of(two.pid)}"
    two.close()
    assert not groups()


@uml
@pytest.mark.parametrize("how", ["close", "drop", "init"])
def test_what_is_inside_ends_with_the_cgroup(how: str) -> None:
    """Without a PID namespace; the container had made a cgroup of its own, and moved there."""
    web = nslab.Container(limits={"pids": 20})
    leaf = TREE / group_of(web.pid).lstrip("/")
    nested = web.popen(f"mkdir {leaf}/inner && echo $$ > {leaf}/inner/cgroup.procs && echo && setsid sleep 1000")
    assert nested.stdout.readline() == b"\n"
    with pidfd_of(nested.pid) as pidfd, pidfd_of(web.pid) as init:
        if how == "close":
            web.close()
        elif how == "drop":
            del web, nested
        else:
            os.kill(web.pid, signal.SIGKILL)
        assert has_ended(pidfd) and has_ended(init)
    nslab.run("true")  # the spawner has buried it
    assert not leaf.exists()


@uml
@pytest.mark.parametrize("victim", ["notebook", "spawner", "watchdog"])
def test_nothing_is_left_when_somebody_is_killed(victim: str) -> None:
    """Neither of a container with limits nor of one that is held still."""
    script = f"""
import nslab, nslab.spawner, os
web = nslab.Container(isolate="uts", limits={{"pids": 20, "memory": "64M"}})
plain = nslab.Container(isolate="pid")
for box in web, plain:
    box.popen("setsid sleep 1000 & sleep 1000")
plain.pause()
watchdog = nslab.spawner.ensure().watchdog.pid
spawner = int(open(f"/proc/{{watchdog}}/task/{{watchdog}}/children").read().split()[0])
print(dict(notebook=os.getpid(), spawner=spawner, watchdog=watchdog)[{victim!r}], flush=True)
input()
"""
    with python(script) as process:
        pid = int(process.stdout.readline())
        assert len(groups()) == 3
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not groups(), 5)  # 2 s, but this machine is slow
        assert eventually(lambda: not (TREE / "cgroup.subtree_control").read_text().split(), 5), "and then the controllers"


@uml
def test_two_notebooks_do_not_take_each_others_controllers_away() -> None:
    script = 'import nslab\nweb = nslab.Container(limits={"pids": 20})\nprint(web.pid, flush=True)\ninput()'
    with python(script) as other:
        leaf = TREE / group_of(int(other.stdout.readline())).lstrip("/")
        nslab.run("true", limits={"pids": 10})
        assert (leaf / "pids.max").read_text() == "20\n"
    assert eventually(lambda: not leaf.exists())


@uml
def test_A32_an_ordinary_user_has_limits_in_a_subtree_handed_over() -> None:
    """As systemd does: a slice of one's own without processes, and a scope in it where one is. cgroups(7), delegation."""
    (TREE / "cgroup.subtree_control").write_text("+pids +memory")
    for name in ("user", "user/scope"):
        (TREE / name).mkdir()
    try:
        for path in (TREE / "user", TREE / "user/scope"):
            for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
                os.chown(path / name, 65534, 65534)
        enter = (
            "sh",
            "-c",
            f'echo $$ > {TREE}/user/scope/cgroup.procs; exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"',
            "-",
        )
        script = """
import nslab
web = nslab.Container(isolate="uts pid mnt cgroup", limits={"pids": 20, "memory": "64M"})
print(open(f"/proc/{web.pid}/cgroup").read().strip(), web.run("cat /proc/self/cgroup").stdout.strip(), flush=True)
web.pause(); web.resume()
try:
    nslab.run("true", limits={"cpu": 1})
except nslab.Unavailable as error:
    print(str(error).count("/sys/fs/cgroup/user/scope: cpu not enabled"), flush=True)
web.close()
import os
left = os.listdir("/sys/fs/cgroup/user")
print(left.count("scope"), [name for name in left if "nslab" in name], flush=True)
input()
"""
        with python(script, enter, "/usr/bin/python3") as process:  # root's own may be out of sight
            outside, inside = process.stdout.readline().split()
            assert re.fullmatch(r"0::/user/nslab-\d+-\w+/\d+", outside)
            assert inside == "0::/"
            assert process.stdout.readline() == "1\n"
            assert process.stdout.readline() == "1 []\n"
    finally:
        for name in ("user/scope", "user"):
            (TREE / name / "cgroup.kill").write_text("1")
            deadline = time.monotonic() + 2
            while (TREE / name / "cgroup.procs").read_text() and time.monotonic() < deadline:
                select.select([], [], [], 0.01)
            (TREE / name).rmdir()
        (TREE / "cgroup.subtree_control").write_text("-pids -memory")


@uml
def test_the_script_leaves_the_same_state() -> None:
    probe = "cat /proc/self/cgroup; cd /sys/fs/cgroup; cat nslab-*/*/pids.max nslab-*/*/memory.max */cgroup.procs"
    with nslab.record() as trace:
        shown = nslab.run(probe, isolate="uts user cgroup mnt", limits={"pids": 20, "memory": "64M"}).check().stdout
    script = trace.shell()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    leftover = groups()
    for folder in reversed(leftover):
        os.rmdir(folder)
    (TREE / "cgroup.subtree_control").write_text("-pids -memory")
    assert (done.stdout, done.stderr) == (shown, "")
    assert len(leftover) == 2


@uml
def test_a_plan_that_fails_leaves_no_cgroup() -> None:
    with pytest.raises(nslab.SyscallError):
        nslab.run("/etc/passwd", isolate="uts", limits={"pids": 20})
    assert not groups()


@uml
def test_A32_a_cgroup_with_processes_enables_nothing_for_those_below() -> None:
    """The rule by hand, and the hint."""
    (TREE / "x").mkdir()
    (TREE / "cgroup.subtree_control").write_text("+memory")
    try:
        with nslab.Container() as web:
            (TREE / "x/cgroup.procs").write_text(str(web.pid))
            with pytest.raises(OSError) as caught:
                (TREE / "x/cgroup.subtree_control").write_text("+memory")
            assert caught.value.errno == 16
            from nslab.hints import explain

            assert "leaves" in explain("write", 16, path=str(TREE / "x/cgroup.subtree_control"))
    finally:
        (TREE / "x").rmdir()
        (TREE / "cgroup.subtree_control").write_text("-memory")
