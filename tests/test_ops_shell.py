"""The shell commands of a plan, run by plain sh, leave the same state of the kernel as the plan.

Each test makes something with nslab, lets a probe look around inside, and lets the same probe look around in what the
script of the trace makes. What the probe sees must be the same.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import nslab
from nslab import ops
from nslab.container.hardening import confinement
from nslab.model import KINDS, IdRange
from nslab.ops import IdMaps, Plan
from tests import roots

PROBE = r"""
for kind in mnt uts ipc pid net user cgroup time; do echo "namespace $kind $(readlink /proc/self/ns/$kind)"; done
uname -n | sed "s/^/host name /"
sed "s/^/domain name /" /proc/sys/kernel/domainname
echo "ids $(id -u) $(id -g) groups $(id -G)"
for file in uid_map gid_map setgroups timens_offsets; do sed "s/^ */$file /; s/  */ /g" /proc/self/$file; done
echo "pid $(readlink /proc/self)"
sed -n "s/^Cap\(Eff\|Prm\|Inh\|Amb\|Bnd\):/capabilities \1/p; s/^NoNewPrivs/no new privileges/p" /proc/self/status
sed "s/^[0-9]* [0-9]* [0-9:]* /mount /; s/shared:[0-9]*/shared/; s/master:[0-9]*/master/; s/uid=[0-9]*//" /proc/self/mountinfo
echo "working directory $(pwd)"
"""
SMALL = 300  # a PID that only a young PID namespace has: those below are not handed out again


def seen(text: str) -> list[str]:
    """What the probe said, in a form that can be compared: own or the machine's instead of an inode, small or large PIDs."""
    return [plain(line) for line in text.splitlines()]


def plain(line: str) -> str:
    match line.split():
        case ["namespace", kind, link]:
            return f"namespace {kind} {'the same' if link == os.readlink(f'/proc/self/ns/{kind}') else 'own'}"
        case ["pid", number]:
            return f"pid {'small' if int(number) < SMALL else 'large'}"
    return line


def by_hand(script: str, typed: str = "", shell: str = "/bin/sh") -> list[str]:
    """What the probe in a script sees, when sh runs it; ``typed`` is for the shell in which some scripts end."""
    env = {**os.environ, "SHELL": shell}
    done = subprocess.run(["/bin/sh", "-c", script], input=typed, capture_output=True, text=True, env=env, timeout=30)
    assert done.stderr == "", f"{done.stderr}\n{script}"
    return seen(done.stdout)


def both(run: Callable[[], nslab.Result]) -> list[str]:
    """What the probe saw in what nslab made, after it was found to be the same by hand."""
    with nslab.record() as trace:
        made = seen(run().check().stdout)
    assert by_hand(trace.shell()) == made
    assert f"domain name {Path('/proc/sys/kernel/domainname').read_text().strip()}" in made or "namespace uts own" in made
    return made


def own(lines: list[str]) -> set[str]:
    return {line.split()[1] for line in lines if line.startswith("namespace ") and line.endswith(" own")}


BORROWED = {"user"} if os.geteuid() else set()  # an ordinary user's container is in one of these anyway

COMBINATIONS = ["", "uts", "mnt", "pid", "time", "pid mnt", "uts pid mnt", "user", "user uts", "user mnt", "user pid",
                "user uts pid mnt", "uts ipc net cgroup", "user time", "all"]  # fmt: skip


@pytest.mark.parametrize("kinds", COMBINATIONS)
def test_each_combination_of_kinds(kinds: str) -> None:
    names = {"hostname": "web"} if "uts" in kinds or kinds == "all" else {}
    lines = both(lambda: nslab.run(PROBE, isolate=kinds, **names))
    wanted = set(KINDS) if kinds == "all" else set(kinds.split())
    assert own(lines) == wanted | BORROWED
    assert ("host name web" in lines) == bool(names)
    fresh = {"pid", "mnt"} <= wanted
    assert ("pid small" in lines) == fresh
    if fresh:
        assert [line for line in lines if re.match(r"mount / /proc .* - proc", line)]
    if wanted & {"user"} or BORROWED:
        assert "ids 0 0" in " ".join(lines)
        assert "setgroups deny" in lines


@pytest.mark.parametrize(
    "name", ["web", "a b/c", "it's", "ü" * 20, "-n", "%s%d", "h" * 64, "with.dots-and-hyphens", "two\nlines", "\\n"]
)
@pytest.mark.parametrize("kinds", ["uts", "user uts"])
def test_any_name(kinds: str, name: str) -> None:
    lines = both(lambda: nslab.run(PROBE, isolate=kinds, hostname=name, domainname=name[::-1]))
    assert f"host name {name}" in "\n".join(lines).replace("\nhost name lines", "\nlines")
    assert "\n" in name or f"domain name {name[::-1]}" in lines


@pytest.mark.parametrize("kinds", ["pid mnt", "user pid mnt"])
def test_the_old_proc(kinds: str) -> None:
    assert "pid large" in both(lambda: nslab.run(PROBE, isolate=kinds, proc="old"))


@pytest.mark.parametrize("kinds", ["time", "user time pid mnt uts"])
@pytest.mark.parametrize("clock", [{"monotonic": "+1d"}, {"boottime": 3600, "monotonic": -5}, {"boottime": "90m"}, {}])
def test_clocks(kinds: str, clock: dict[str, float | str]) -> None:
    lines = both(lambda: nslab.run(PROBE, isolate=kinds, clock=clock))
    if "boottime" in clock:
        assert f"timens_offsets boottime {3600 if len(clock) == 2 else 5400} 0" in lines


def test_a_clock_that_the_tool_cannot_set_says_so() -> None:
    """unshare(1) takes whole seconds."""
    with nslab.record() as trace:
        nslab.run("true", isolate="time", clock={"monotonic": 1.5, "boottime": 2})
    assert "# no standard tool: unshare(1) takes whole seconds; monotonic is 1.5 s" in trace.shell()


def test_the_script_begins_with_the_command() -> None:
    """What no tool can do is said after what one can; all kinds are made by one unshare(1), within one layer of quotes."""
    texts = []
    for kinds in ("time", "uts time"):
        with nslab.record() as trace:
            nslab.run("true", isolate=kinds, clock={"monotonic": "+1d"})
        texts.append(trace.shell().replace(" --user --map-root-user", ""))
    comment = ops.Adopt().shell()
    assert texts == [
        f"unshare {option}--time --fork --monotonic 86400 sh -c '(true)\n{comment}'\n" for option in ("", "--uts ")
    ]


SETTINGS = "\necho lo $(cat /sys/class/net/lo/flags); ip -o addr | sed 's/valid_lft.*//'; cat /proc/sys/kernel/shmmax"


@pytest.mark.requires("tool:ip")
@pytest.mark.parametrize("kinds", ["net ipc mnt", "user net ipc mnt pid"])
def test_loopback_message_queues_and_settings(kinds: str) -> None:
    settings = {"kernel.shmmax": 65536, "net.ipv4.ip_default_ttl": "77", "fs.mqueue.msg_max": 3}
    lines = both(lambda: nslab.run(PROBE + SETTINGS, isolate=kinds, loopback=True, mqueue="/mnt", sysctls=settings))
    assert any("127.0.0.1/8" in line for line in lines)
    assert "65536" in lines
    assert [line for line in lines if re.match(r"mount / /mnt .* - mqueue", line)]


@pytest.mark.requires("root")
@pytest.mark.parametrize(
    ("options", "uid_map"),
    [
        ({"uid_map": "subordinate"}, "uid_map 0 "),
        ({"uid_map": [(0, 1000, 5), (5, 70000, 1)], "gid_map": [(0, 100, 3)]}, "uid_map 0 1000 5"),
        ({"uid_map": [(0, 0, 65536)], "gid_map": [(0, 0, 65536)]}, "uid_map 0 0 65536"),
        ({"uid_map": [(0, 1000, 1)], "gid_map": [(0, 1000, 1)], "setgroups": "deny"}, "uid_map 0 1000 1"),
        ({"uid_map": [(0, 1000, 1)], "gid_map": [(0, 1000, 1)], "setgroups": "allow"}, "uid_map 0 1000 1"),
        ({"setgroups": "allow"}, "uid_map 0 0 1"),
        ({"uid_map": [(0, 1000, 2)], "gid_map": [(5, 1000, 1)]}, "uid_map 0 1000 2"),
        ({"uid_map": [(0, 1000, 2)], "gid_map": [(5, 1000, 1)], "setgroups": "deny"}, "uid_map 0 1000 2"),
    ],
    ids=["subordinate", "lines", "identity", "deny", "allow", "single-allow", "no-gid-0", "no-gid-0-deny"],
)
@pytest.mark.parametrize("kinds", ["user", "user uts", "user pid mnt"])
def test_id_maps_of_root(kinds: str, options: dict, uid_map: str) -> None:
    lines = both(lambda: nslab.run(PROBE, isolate=kinds, **options))
    assert [line for line in lines if line.startswith(uid_map)]
    assert ("setgroups deny" in lines) == (options.get("setgroups") == "deny")


@pytest.mark.requires("root")
def test_a_map_without_root() -> None:
    """A user namespace alone is the same by hand; for more the tool would need capabilities that execve takes away."""
    lines = both(lambda: nslab.run(PROBE, isolate="user", uid_map=[(1000, 0, 1)], gid_map=[(1000, 0, 1)]))
    assert "ids 1000 1000 groups 1000" in lines
    with nslab.record() as trace:
        nslab.run("true", isolate="user uts", uid_map=[(1000, 0, 1)])
    assert "# no standard tool: with no uid 0 in the map" in trace.shell()


@pytest.mark.requires("root")
@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("kinds", ["uts", "user pid mnt"])
def test_another_user(kinds: str, user: int) -> None:
    options = {"uid_map": "subordinate"} if "user" in kinds else {}
    assert f"ids {user} {user} groups {user}" in both(lambda: nslab.run(PROBE, isolate=kinds, user=user, **options))


def test_a_user_where_setgroups_is_denied() -> None:
    assert "setgroups deny" in both(lambda: nslab.run(PROBE, isolate="user", user=0))


@pytest.mark.requires("tool:busybox")
@pytest.mark.parametrize("kinds", ["mnt", "uts user pid mnt", "all"])
@pytest.mark.parametrize("rootfs", ["machine", "busybox", "folder", "tar", "image"])
def test_each_root_filesystem(kinds: str, rootfs: str, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    mounts = ["tmpfs:/deep/memory", f"{tmp_path}/a b:/bound:ro", f"overlay:{tmp_path}/a b:/layers", "/etc/passwd:/etc/users"]
    given: str | Path = rootfs
    if rootfs == "folder":
        given = roots.folder(tmp_path / "root")
    elif rootfs == "tar":
        given = roots.tar(tmp_path)
    elif rootfs == "image":
        given = roots.image(tmp_path, roots.layer({"etc/.wh.name": "", "new": "x"}))
    look = (
        PROBE
        + "ls -la / /etc /bin | sed 's/  */ /g; s/[A-Z][a-z][a-z] [0-9]* [0-9:]* / /; /^total/d; / proc$/d; s/[0-9]* \\.*$/./'"
    )
    look = look.replace('echo "pid $(readlink /proc/self)"', "")  # the commands of the script count, and there are hundreds
    lines = both(lambda: nslab.run(look, isolate=kinds, rootfs=given, mounts=mounts))
    assert [line for line in lines if line.startswith("mount / /deep/memory rw,nosuid,nodev")]
    assert [line for line in lines if " /bound ro" in line]


@pytest.mark.parametrize("propagation", ["private", "slave", "shared"])
def test_propagation(propagation: str) -> None:
    lines = both(lambda: nslab.run(PROBE, isolate="mnt", propagation=propagation))
    tagged = [line for line in lines if line.startswith("mount ") and " shared" in line.partition(" - ")[0]]
    assert bool(tagged) == (propagation == "shared")


def test_mounts_on_the_machine_s_own_tree(tmp_path: Path) -> None:
    mounts = [f"/etc:{tmp_path}:ro", nslab.Overlay("/etc", "/mnt")]
    assert f"mount /etc {tmp_path} ro" in "\n".join(both(lambda: nslab.run(PROBE, isolate="mnt", mounts=mounts)))


def test_a_working_directory(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    assert f"working directory {folder}" in both(lambda: nslab.run(PROBE, isolate="uts", cwd=str(folder)))


def test_a_container_and_all_that_ran_in_it() -> None:
    with nslab.Container("web", isolate="uts pid mnt", hostname="web") as web:
        one = seen(web.run(PROBE).stdout)
        two = web.run(["printf", "%s\n", "a 'b' \"c\" $d"]).stdout.splitlines()
    assert by_hand(web.trace.shell()) == one + two


@pytest.mark.parametrize("ran", ["nothing", "something"])
@pytest.mark.parametrize(
    "options",
    [{"isolate": "uts pid mnt", "hostname": "web"}, {"isolate": "user time"}, {"isolate": "net"}, {"hardened": True}],
    ids=["few", "user", "net", "hardened"],
)
def test_the_script_of_a_container_ends_in_a_shell_in_it(options: dict, ran: str) -> None:
    """Whoever pastes it is where a command of that container was."""
    with nslab.Container(**options) as web:
        made = [line for _ in range(2 if ran == "something" else 0) for line in seen(web.run(PROBE).stdout)]
        script = web.trace.shell()
        assert by_hand(script, PROBE) == made + seen(web.run(PROBE).stdout), script


@pytest.mark.requires("tool:busybox")
def test_the_shell_at_the_end_where_the_user_s_own_is_missing() -> None:
    for shell in ("/bin/bash", "/nowhere/a shell", "fish"):
        with nslab.Container(isolate="uts pid mnt", hostname="small", rootfs="busybox") as small:
            assert by_hand(small.trace.shell(), "uname -n; ls /proc/1/exe; pwd", shell) == ["small", "/proc/1/exe", "/"]
            assert small.run("echo ran").returncode == 0
            assert by_hand(small.trace.shell(), "uname -n", shell) == ["ran", "small"]
    with nslab.process() as process:
        process.unshare("uts")
        process.sethostname("small")
        assert by_hand(process.trace.shell(), "uname -n", "/nowhere") == ["small"]


def test_a_hardened_container() -> None:
    """All but the keyring and the filter, which no tool can make."""
    hidden = PROBE + "ulimit -n; ulimit -c; cat /proc/keys /proc/interrupts"
    with nslab.Container("web", hardened=True, hostname="web") as web:
        one = seen(web.run(hidden).stdout)
        two = seen(web.run(PROBE, cwd="/tmp").stdout)
    text = web.trace.shell()
    assert by_hand(text) == one + two
    assert "capabilities Bnd" in "\n".join(one)
    assert [
        line for line in one if line.startswith("mount / /proc/interrupts") or line.startswith("mount /null /proc/interrupts")
    ]


@pytest.mark.requires("root")
def test_another_user_of_a_hardened_container() -> None:
    lines = both(lambda: nslab.run(PROBE, hardened=True, user=33))
    assert "ids 33 33 groups 33" in lines


def test_a_container_made_step_by_step() -> None:
    with nslab.Stepper(isolate="user uts pid mnt", hostname="web") as stepper:
        made = seen(stepper.finish().run(PROBE).stdout)
    assert by_hand(stepper.trace.shell()) == made


NEW = ["", "uts", "pid mnt", "time", "user", "user uts pid mnt"]
SHARED = ["net", "net ipc", "net pid", "user net"]


@pytest.mark.parametrize(
    ("kinds", "join"), [(new, shared) for new in NEW for shared in SHARED if not {*new.split()} & {*shared.split()}]
)
def test_shared_and_new_at_once(kinds: str, join: str) -> None:
    with nslab.Container(isolate="user net ipc pid") as web:
        lines = both(lambda: nslab.run(PROBE, isolate=kinds, join={join: web}))
        assert own(lines) == {*kinds.split(), *join.split()} | BORROWED


def test_a_container_that_shares() -> None:
    with nslab.Container(isolate="uts net", hostname="shared") as web:
        with nslab.Container(isolate="mnt pid", join={"uts net": web}) as log:
            made = seen(log.run(PROBE).stdout)
        assert by_hand(log.trace.shell()) == made
        assert "host name shared" in made


# -- orders of a steered process ---------------------------------------------------------------------------------------


def orders(steer: Callable[[nslab.Process], object], **options: str) -> list[str]:
    with nslab.process(**options) as process:
        steer(process)
        made = seen(process.run(PROBE).check().stdout)
        script = process.trace.shell()
    assert by_hand(script) == made, script
    return made


def test_orders_with_a_host_name() -> None:
    def steer(process: nslab.Process) -> None:
        process.unshare("uts")
        process.sethostname("a")
        process.unshare("uts")
        process.setdomainname("b")

    lines = orders(steer)
    assert own(lines) == {"uts"} | BORROWED
    assert {"host name a", "domain name b"} <= set(lines)


def test_orders_with_mounts(tmp_path: Path) -> None:
    target = tmp_path / "a place"
    target.mkdir()

    def steer(process: nslab.Process) -> None:
        process.unshare("mnt")
        process.mount("tmpfs", str(target), "tmpfs", "MS_NOSUID|MS_NODEV", "size=64k")
        process.mount(str(target), str(target), None, "MS_BIND")
        process.mount(None, str(target), None, "MS_REMOUNT|MS_BIND|MS_RDONLY|MS_NOSUID|MS_NODEV")
        process.mount(None, str(target), None, "MS_SHARED")
        process.mount("/dev", "/mnt", None, "MS_BIND|MS_REC")
        process.umount("/mnt", detach=True)
        process.chdir(str(target))

    lines = orders(steer)
    assert len([line for line in lines if "a\\040place" in line]) == 2
    assert [line for line in lines if "a\\040place ro,nosuid,nodev" in line and "shared - tmpfs" in line]


def test_orders_with_a_new_root(tmp_path: Path) -> None:
    def steer(process: nslab.Process) -> None:
        process.unshare("mnt")
        process.mount("/", str(tmp_path), None, "MS_BIND|MS_REC")
        process.pivot_root(str(tmp_path), f"{tmp_path}/mnt")
        process.umount("/mnt", detach=True)
        process.chdir("/")

    assert not [line for line in orders(steer) if str(tmp_path) in line and line.startswith("mount")]


def test_orders_with_a_chroot() -> None:
    def steer(process: nslab.Process) -> None:
        process.unshare("mnt")
        process.mount("/", "/mnt", None, "MS_BIND|MS_REC")
        process.chroot("/mnt")
        process.chdir("/tmp")

    assert "working directory /tmp" in orders(steer)


def test_orders_of_an_ordinary_user() -> None:
    """The maps by hand, from inside the new user namespace."""
    uid = os.getuid() or 65534

    def steer(process: nslab.Process) -> None:
        process.unshare("user")
        process.write("/proc/self/setgroups", "deny")
        process.write("/proc/self/uid_map", f"0 {uid} 1")
        process.write("/proc/self/gid_map", f"0 {uid if os.getuid() == 0 else os.getgid()} 1\n")
        process.unshare("uts")
        process.sethostname("mine")

    lines = orders(steer, as_="ordinary")
    assert own(lines) == {"user", "uts"}
    assert {"host name mine", f"uid_map 0 {uid} 1", "setgroups deny"} <= set(lines)


@pytest.mark.parametrize("kinds", ["time", "uts time", "user time"])
def test_orders_with_clocks(kinds: str) -> None:
    """The shell of a script is in the new time namespace as soon as it runs: offsets that are written then come too late."""

    def steer(process: nslab.Process) -> None:
        process.unshare("time")  # of which only the next one counts
        process.write("/proc/self/timens_offsets", "monotonic 1 0")
        process.unshare(kinds)
        process.unshare("uts")
        process.sethostname("later")
        process.write("/proc/self/timens_offsets", "monotonic 5 0\nboottime 86400 0\n")
        process.write("/proc/self/timens_offsets", "1 -7 0")

    lines = orders(steer)
    assert {"timens_offsets monotonic -7 0", "timens_offsets boottime 86400 0", "host name later"} <= set(lines)
    with nslab.process() as process:
        steer(process)
        with process.fork() as child:
            made = seen(child.run(PROBE).check().stdout)
            assert by_hand(child.trace.shell()) == made
        process.unshare("time")
        process.write("/proc/self/timens_offsets", "boottime 12 500000000")
        assert "# no standard tool: unshare(1) takes whole seconds; boottime is 12.5 s\n" in process.trace.shell()


@pytest.mark.parametrize("kinds", ["", "uts", "pid mnt", "user", "user pid uts", "time", "user time"])
def test_orders_of_a_forked_process(kinds: str) -> None:
    def steer(process: nslab.Process) -> nslab.Process:
        process.unshare("uts")
        process.sethostname("both")
        process.run("hostname")
        child = process.fork(kinds)
        if "mnt" in kinds:
            child.mount("proc", "/proc", "proc")
        if "uts" in kinds:
            child.sethostname("child")
        return child

    with nslab.process() as process:
        child = steer(process)
        made = seen(child.run(PROBE).check().stdout)
        script = child.trace.shell()
        assert by_hand(script) == made, script
        assert own(made) == {"uts", *kinds.split()} | BORROWED
        assert ("host name child" in made) == ("uts" in kinds)
        assert "# no standard tool" not in script
        assert "# no standard tool: clone3() with set_tid" in child.fork("pid", set_tid=[1]).trace.shell()


def test_orders_of_a_child_in_the_pid_namespace_that_was_unshared() -> None:
    with nslab.process() as process:
        process.unshare("pid uts")
        child = process.fork()
        child.unshare("mnt")
        child.mount("proc", "/proc", "proc")
        made = seen(child.run(PROBE).check().stdout)
        assert by_hand(child.trace.shell()) == made
        assert own(made) == {"pid", "uts", "mnt"} | BORROWED
        assert "pid small" in made


def test_orders_that_join_a_namespace() -> None:
    with nslab.Container(isolate="uts", hostname="joined") as web, web.namespaces["uts"] as uts:
        lines = orders(lambda process: process.setns(uts))
    assert "host name joined" in lines


def test_what_no_tool_can_do_is_a_comment() -> None:
    """The short list: everything else is a command."""
    idmapped = ops.Idmapped("/a", "tree0", (IdRange(0, 5, 1),), (IdRange(0, 5, 1),))
    here = [
        op.shell()
        for op in (
            ops.NewNamespaces(("uts",)), ops.Borrow(IdMaps((IdRange(0, 1, 1),), (IdRange(0, 1, 1),), "deny")),
            ops.NewTime({"boottime": 10**9}), ops.Join("init", 1, ("uts",)), ops.Unshare(("uts",)),
            ops.Setns("n", "uts", "/proc/1/ns/uts"), ops.Adopt(), ops.WriteFile("/proc/self/uid_map", "0 1 1"),
            ops.SetHostname("a"), ops.SetDomainname("a"), ops.SetPropagation("private"), ops.Mount("a", "/b"), ops.MountProc(),
            ops.Umount("/b"), ops.PivotRoot("/a", "/b"), ops.Chroot("/a"), ops.Chdir("/a"), ops.SetIds(1, 1), ops.BecomeRoot(),
            ops.Mask(("/a",)), ops.ReadOnly(("/a",)), ops.MakeFolders((("/a", 0o755),)), ops.MakeLinks((("/a", "b"),)),
            ops.MountInside("tmpfs", "/a"), ops.BindInside("/a", "/b"), ops.MakeDev("/a"), ops.EnterRoot("/a"),
            ops.FillBusybox("/a", "/b"), ops.Unpack("/a", "/b"), ops.RemoveObjects(),
            ops.SetUp("lo"), ops.InCgroup("/a", "b", "c", ("pids",), (("pids.max", "5"),)), idmapped,
        )
    ]  # fmt: skip
    assert len(here) == len([name for name in ops.__all__ if name not in ("Context", "Execute", "IdMaps", "Op", "Plan")])
    comments = {op.shell() for op in (ops.Adopt(), ops.BecomeRoot(), idmapped)}
    assert {text for text in here if text.startswith(("#", ":"))} == comments
    assert ops.BecomeRoot().wrap("x") == "x"


def test_what_no_tool_can_do_for_a_hardened_container() -> None:
    texts = [op.shell() for op in confinement()]
    assert [text.split(":")[0] for text in texts if text.startswith("#")] == ["# no standard tool"] * 3
    assert len(texts) == 6
    assert [op.wrap("x") for op in confinement()][-1] == "x"


def test_orders_that_are_python_are_a_comment() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.call(nslab.syscalls.sethostname, b"by-python")
        assert "# no standard tool: sethostname() was called in the process, as Python" in process.trace.shell()


def test_a_plan_without_a_command_ends_in_a_shell() -> None:
    plan = Plan((ops.NewNamespaces(("uts",)), ops.SetHostname("web")))
    assert plan.shell() == 'unshare --uts sh -c \'hostname web\nexec "$(command -v "${SHELL:-sh}" || echo sh)"\'\n'
