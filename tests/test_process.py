"""nslab.process(): a live process that makes one system call for each call of a method."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path

import pytest

import nslab
from nslab import ops
from tests.helpers import eventually, has_ended, link, pidfd_of

ORDINARY = os.getuid() or 65534


def test_it_starts_in_the_machines_namespaces() -> None:
    with nslab.process() as process:
        own = {kind for kind in os.listdir("/proc/self/ns") if link(kind, process.pid) != link(kind)}
        assert own == ({"user"} if os.getuid() else set())
        assert Path(f"/proc/{process.pid}/comm").read_text() == "nslab-process\n"
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Threads:\t1\n" in status
        assert process.pid_inside == process.getpid() == process.pid
        assert f"Process {process.pid}" in repr(process)


def test_each_call_of_a_method_is_one_system_call() -> None:
    with nslab.process() as process:
        steps = len(process.trace)
        process.unshare("uts")
        assert [str(step) for step in process.trace[steps:]] == ["unshare(CLONE_NEWUTS) = 0"]
        process.sethostname("web")
        process.setdomainname("zone")
        assert [step.call for step in process.trace[steps + 1 :]] == ["sethostname", "setdomainname"]
        assert {step.pid for step in process.trace[steps:]} == {process.pid}
        assert process.gethostname() == "web"
        assert process.run("hostname; domainname").lines == ["web", "zone"]
        assert process.read("/proc/sys/kernel/domainname") == "zone\n"
        assert str(process.trace[-1]) == "read('/proc/sys/kernel/domainname') = 5", "how many bytes, as the kernel answers"
        assert link("uts", process.pid) == str(process.namespaces["uts"]) != link("uts")


def test_mounts(tmp_path: Path) -> None:
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount("none", str(tmp_path), "tmpfs", ["MS_NOSUID"], "size=64k")
        process.chdir(str(tmp_path))
        process.run("echo there > file")
        assert process.run("pwd; cat file").lines == [str(tmp_path), "there"]
        assert process.read(f"{tmp_path}/file") == "there\n"
        assert f"{tmp_path} rw,nosuid" in Path(f"/proc/{process.pid}/mountinfo").read_text()
        assert os.listdir(tmp_path) == []
        with pytest.raises(nslab.SyscallError, match="is in use"):
            process.umount(str(tmp_path))
        process.chdir("/")
        process.umount(str(tmp_path))
        assert str(tmp_path) not in Path(f"/proc/{process.pid}/mountinfo").read_text()


def test_a_new_root(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount(str(tmp_path), str(tmp_path), None, "MS_BIND")
        process.pivot_root(str(tmp_path), f"{tmp_path}/old")
        process.chdir("/")
        process.mount("/old/proc", "/old/mnt", None, "MS_BIND|MS_REC")  # guarded still, with no /proc at all
        process.umount("/old", detach=True)
        assert process.call(os.listdir, "/") == ["old"]
        with pytest.raises(nslab.SyscallError, match="no program"):
            process.run(["true"])
        assert process.call(os.listdir, "/") == ["old"], "a command that is not there does it no harm"


def test_chroot(tmp_path: Path) -> None:
    (tmp_path / "inside").touch()
    with nslab.process() as process:
        process.chroot(str(tmp_path))
        process.chdir("/")
        assert process.call(os.listdir, "/") == ["inside"]


def test_joining_a_namespace() -> None:
    with nslab.Container(isolate="uts", hostname="theirs") as web, nslab.process() as process:
        with web.namespaces["uts"] as uts:
            process.setns(uts)
            assert process.namespaces["uts"] == uts
        assert process.gethostname() == "theirs"


def test_joining_by_a_path() -> None:
    """As the process sees /proc: "self" is the process, and the script of it can name what others can find."""
    with nslab.Container(isolate="uts", hostname="theirs") as web, nslab.process() as process:
        mine = process.namespaces["uts"]
        process.setns(Path(f"/proc/{web.pid}/ns/uts"))
        assert process.gethostname() == "theirs"
        assert process.namespaces["uts"] == web.namespaces["uts"]
        assert [step.call for step in process.trace if step.call in ("open", "setns")] == ["open", "setns"]
        assert f"nsenter --uts=/proc/{web.pid}/ns/uts" in process.trace.shell()
        process.unshare("uts")
        process.sethostname("own")
        process.setns("/proc/self/ns/uts")
        assert process.gethostname() == "own"
        with web.namespaces["uts"] as uts:
            number = process.call(os.open, uts.path(), os.O_RDONLY)
        process.setns(f"/proc/{process.pid}/fd/{number}")
        assert process.gethostname() == "theirs"
        assert "# no standard tool: setns() of a namespace that only a descriptor holds" in process.trace.shell()
        before = process.call(os.listdir, "/proc/self/fd")
        for path, errno in (
            (f"/proc/{web.pid}/ns/utz", "ENOENT"),
            ("/proc/4194304/ns/uts", "ENOENT"),
            ("/etc/passwd", "EINVAL"),
        ):
            with pytest.raises(nslab.SyscallError, match=rf"{errno}\n +\w") as caught:
                process.setns(path)
            assert caught.value.hint
        assert process.call(os.listdir, "/proc/self/fd") == before
        mine.close()
        with pytest.raises(nslab.DeadNamespace, match=r"this handle on uts:.* was closed"):
            process.setns(mine)


@pytest.mark.parametrize("wrong", [5, None, "uts", "", ["uts"], b"/proc/1/ns/uts", "/proc/1/ns/uts\0", nslab])
def test_what_cannot_be_joined_is_refused(wrong) -> None:
    with nslab.process() as process:
        steps = len(process.trace)
        with pytest.raises(nslab.SpecError) as caught:
            process.setns(wrong)
        assert caught.value.argument == "namespace"
        assert len(process.trace) == steps


@pytest.mark.parametrize("wrong", [5, None, object(), 1.5, {}])
def test_what_no_method_takes_is_refused(wrong) -> None:
    with nslab.process() as process:
        asked = {
            "op": lambda: process.do(wrong),
            "child": lambda: process.wait(wrong),
            "flags": lambda: process.mount(None, "/nowhere", None, wrong or 5),
            "groups": lambda: process.setids(0, 0, wrong or 5),
            "kind": lambda: nslab.Namespace.of("self", wrong),
            "as_": lambda: nslab.process(as_=wrong or 5),
            "user": lambda: nslab.run("true", isolate="user", user=wrong if wrong not in (5, None) else 1.5),
        }
        for argument, ask in asked.items():
            with pytest.raises(nslab.SpecError) as caught:
                ask()
            assert caught.value.argument == argument or (argument, os.getuid() > 0) == ("as_", True)
        assert process.getpid() == process.pid_inside


@pytest.mark.parametrize("wrong", [5, None, "os.getpid", threading.Lock().acquire])
def test_what_is_no_function_is_refused(wrong) -> None:
    with nslab.Container(isolate="uts") as web, nslab.process() as process, web.namespaces["uts"] as uts:
        for call in (web.call, process.call, uts.call):
            with pytest.raises(nslab.SpecError, match=r"^function: (must be|it, or what it is called with)"):
                call(wrong)
        with pytest.raises(nslab.SpecError, match="cannot be sent"):
            web.call(print, threading.Lock())
        assert process.getpid() == process.pid_inside


def test_a_kind_that_is_not_there() -> None:
    """It stays a mapping: ``in`` and get() work, and whoever expects a KeyError gets one."""
    with nslab.process() as process, nslab.create("uts net") as made:
        for view in (process.namespaces, made):
            assert "utz" not in view and view.get("utz") is None and 5 not in view
            for kind, guess in (("utz", "uts"), ("UTS", "uts"), ("network", "net")):
                with pytest.raises(KeyError) as caught:
                    view[kind]
                assert isinstance(caught.value, nslab.SpecError)
                assert str(caught.value).startswith(f"kind: {kind!r} is none of ")
                assert str(caught.value).endswith(f"; did you mean {guess!r}?")


# -- processes --------------------------------------------------------------------------------------------------------


def test_a_pid_namespace_is_for_the_children() -> None:
    with nslab.process() as process:
        process.unshare("pid")
        assert process.getpid() == process.pid
        assert link("pid", process.pid) == link("pid")
        child = process.fork()
        assert child.pid_inside == child.getpid() == 1
        assert Path(f"/proc/{child.pid}/status").read_text().count(f"NSpid:\t{child.pid}\t1\n") == 1
        second = process.fork()
        assert second.pid_inside == 2
        with pytest.raises(nslab.SyscallError, match="asked for a new PID namespace before"):
            process.unshare("pid")
        child.close()
        assert process.wait(child) == -signal.SIGKILL
        assert eventually(lambda: not second.alive), "init is dead, and so is everybody"
        assert process.wait(second) == -signal.SIGKILL
        with pytest.raises(nslab.SpecError, match=r"fork\(\) of this one"):
            process.wait(process)
        with pytest.raises(nslab.SyscallError, match=r"init \(PID 1\) of .* has ended"):
            process.fork()


def test_fork_shares_and_then_goes_its_own_way() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.sethostname("both")
        with process.fork() as child:
            assert child.gethostname() == "both"
            child.unshare("uts")
            child.sethostname("child")
            assert (process.gethostname(), child.gethostname()) == ("both", "child")
            with child.fork() as grandchild:
                assert grandchild.gethostname() == "child"
                parent = Path(f"/proc/{grandchild.pid}/stat").read_text().rpartition(")")[2].split()[1]
                assert int(parent) == child.pid


def test_kill_and_wait() -> None:
    with nslab.process() as process:
        child = process.fork()
        process.kill(child.pid, signal.SIGTERM)
        assert process.wait(child) == -signal.SIGTERM
        assert not child.alive
        assert repr(child) == "<Process, ended>"
        with pytest.raises(nslab.DeadNamespace):
            child.getpid()
        with pytest.raises(nslab.SyscallError) as caught:
            process.kill(child.pid, 0)
        assert caught.value.name == "ESRCH"
        child.close()


def test_closing_ends_it_and_what_it_started() -> None:
    process = nslab.process()
    child = process.fork()
    number = int(process.run("setsid sleep 1000 > /dev/null 2>&1 & echo $!").stdout)
    with pidfd_of(process.pid) as one, pidfd_of(child.pid) as two, pidfd_of(number) as three:
        process.close()
        assert all(has_ended(fd, 2) for fd in (one, two, three))
    with pytest.raises(nslab.DeadNamespace, match="closed"):
        process.unshare("uts")
    with pytest.raises(nslab.DeadNamespace):
        process.namespaces["uts"]
    process.close()
    child.close()


def test_dropping_it_ends_it() -> None:
    process = nslab.process()
    with pidfd_of(process.pid) as fd:
        del process
        gc.collect()
        assert has_ended(fd, 2)


def test_one_that_was_killed_says_so() -> None:
    with nslab.process() as process:
        with pidfd_of(process.pid) as fd:
            os.kill(process.pid, signal.SIGKILL)
            assert has_ended(fd, 2)
        assert not process.alive
        for order in (lambda: process.unshare("uts"), lambda: process.run("true"), lambda: process.call(os.getpid)):
            with pytest.raises(nslab.DeadNamespace):
                order()


# -- commands and functions -------------------------------------------------------------------------------------------


def test_run_has_the_options_of_nslab_run(tmp_path: Path) -> None:
    with nslab.process() as process:
        assert process.run(["cat"], input="in").stdout == "in"
        assert process.run(["env"], env={"A": "1"}).stdout == "A=1\n"
        assert process.run(["pwd"], cwd=tmp_path).stdout == f"{tmp_path}\n"
        assert process.run(["pwd"]).stdout != f"{tmp_path}\n", "it went there for that command only"
        assert process.run("kill -9 $$").returncode == -9
        with pytest.raises(nslab.CommandError, match="status 3"):
            process.run("exit 3", check=True)
        with pytest.raises(nslab.CommandTimeout):
            process.run("sleep 1000", timeout=0.1)
        with pytest.raises(nslab.SyscallError, match="chdir"):
            process.run("true", cwd="/no/such")
        assert process.run("echo fine").stdout == "fine\n"


@pytest.mark.parametrize("command", [["/no/such/program"], ["no-such-program"], ["/etc/passwd"]])
def test_a_command_that_cannot_be_started_leaves_it_ready(command: list[str]) -> None:
    with nslab.process() as process:
        before = process.run(["pwd"]).stdout
        with pytest.raises(nslab.SyscallError):
            process.run(command, cwd="/tmp")
        assert process.run(["pwd"]).stdout == before


def test_interrupting_a_command_ends_it_and_not_the_process() -> None:
    with nslab.process() as process:
        with pytest.raises(KeyboardInterrupt):
            process.run("echo go; sleep 1000", stream=lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert process.alive
        assert process.run("echo fine").stdout == "fine\n"


def test_call_runs_in_the_very_process() -> None:
    with nslab.process() as process:
        word = "kept"
        assert process.call(lambda: os.environ.__setitem__("WORD", word)) is None
        assert process.call(lambda: os.environ.get("WORD")) == "kept"
        with pytest.raises(KeyError) as caught:
            process.call(lambda: {}["missing"])
        assert "inside:" in caught.value.__notes__[0]
        with pytest.raises(nslab.DeadNamespace):
            process.call(os._exit, 3)


def test_orders_from_several_threads_take_turns() -> None:
    with nslab.process() as process:
        answers: list[str] = []
        threads = [threading.Thread(target=lambda n=n: answers.append(process.run(f"echo {n}").stdout)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [f"{n}\n" for n in range(8)]


def test_call_works_where_python_is_not() -> None:
    word = "here"
    with nslab.process() as process:
        process.chroot("/proc")
        assert process.call(lambda: word) == process.fork().call(lambda: word) == "here"


@pytest.mark.requires("root")
def test_call_works_as_somebody_who_may_not_read_python() -> None:
    with nslab.process() as process:
        process.setids(1000, 1000)
        assert process.call(lambda: [os.getuid()]) == [1000]


# -- without privilege ------------------------------------------------------------------------------------------------


def test_an_ordinary_process_is_outside_any_user_namespace_of_ours() -> None:
    with nslab.process(as_="ordinary") as process:
        assert link("user", process.pid) == link("user")
        assert process.run("id -u").stdout == f"{ORDINARY}\n"
        assert "CapEff:\t0000000000000000" in Path(f"/proc/{process.pid}/status").read_text()
        with pytest.raises(nslab.SyscallError, match=r"needs CAP_SYS_ADMIN.*lacks it") as caught:
            process.unshare("uts")
        assert caught.value.name == "EPERM"
        process.unshare("user uts")
        process.sethostname("mine")
        assert process.gethostname() == "mine"


@pytest.mark.requires("root")
def test_an_ordinary_process_of_a_user_by_name() -> None:
    with nslab.process(as_="nobody") as process:
        assert process.run("id -un").stdout == "nobody\n"


def test_ids_are_set_groups_first() -> None:
    with nslab.process() as process:
        if os.getuid() == 0:
            process.setids(1234, 1235, [7, 8])
            assert process.run("id -u; id -g; id -G").lines == ["1234", "1235", "1235 7 8"]
            assert [step.call for step in process.trace][-5:-1] == ["setgroups", "setresgid", "setresuid", "prctl"]
        else:
            with pytest.raises(nslab.SyscallError, match="not mapped"):
                process.setids(1234, 0)


def test_any_op_can_be_done() -> None:
    with nslab.process() as process:
        process.do(ops.Unshare(("uts", "mnt")))
        process.do(ops.SetPropagation("slave"))
        process.do(ops.SetHostname("by-op"))
        assert process.gethostname() == "by-op"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (nslab.syscalls.sethostname, (b"nslab-must-not",)),
        (nslab.syscalls.setdomainname, (b"nslab-must-not",)),
        (nslab.syscalls.mount, ("none", "/mnt", "tmpfs", 0)),
        (nslab.syscalls.umount2, ("/nonexistent",)),
        (nslab.syscalls.write_file, ("/proc/sys/kernel/hostname", "nslab-must-not")),
        (nslab.syscalls.write_file, ("/proc/sys/kernel/printk", "4")),
    ],
)
def test_a_raw_call_that_would_change_the_machine_is_refused_also_inside_a_function(function, arguments) -> None:
    with nslab.process() as process, pytest.raises(nslab.Refused, match="machine"):
        process.call(function, *arguments)
    with nslab.Container(isolate="ipc") as box, pytest.raises(nslab.Refused, match="machine"):
        box.call(function, *arguments)


def test_a_raw_call_works_in_a_namespace_of_ones_own() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.call(nslab.syscalls.sethostname, b"own")
        assert process.gethostname() == "own"


def test_a_closed_copy_is_gone_at_once() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        for _ in range(20):
            copy = process.fork()
            copy.unshare("uts")
            with copy.namespaces["uts"] as room:
                copy.close()
                assert room.members() == []
