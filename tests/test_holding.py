"""Namespaces that only descriptors hold, and commands in any namespace."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

import nslab
from tests.helpers import eventually, has_ended, in_python, link, pidfd_of
from tests.test_joining import OWN_USER, foreign
from tests.test_ops_shell import PROBE, by_hand, own, seen

ORDINARY = os.getuid() != 0


# -- create -----------------------------------------------------------------------------------------------------------


def test_created_namespaces_hold_no_process() -> None:
    with nslab.create("uts time net", hostname="held", clock={"monotonic": "+1d"}) as made:
        assert list(made) == ["uts", "net", "time"]
        assert all(namespace.members() == [] for namespace in made.values())
        assert all(str(namespace) != link(kind) for kind, namespace in made.items())
        assert made["uts"].run("hostname").stdout == "held\n"
        assert made.run("hostname; readlink /proc/self/ns/net").lines == ["held", str(made["net"])]
        inside = made["time"].call(time.clock_gettime, time.CLOCK_MONOTONIC)
        assert 86400 <= inside - time.clock_gettime(time.CLOCK_MONOTONIC) + 60 < 86400 + 120
        assert made["net"].run("ip -o link", check=True).stdout.count("\n") <= 2
    with pytest.raises(nslab.DeadNamespace, match="closed"):
        made["uts"].run("true")


@pytest.mark.parametrize("kind", ["mnt", "uts", "ipc", "net", "user", "cgroup", "time"])
def test_each_kind_but_pid_can_be_held(kind: str) -> None:
    with nslab.create(kind) as made:
        there = made.run(["readlink", f"/proc/self/ns/{kind}"]).stdout.strip()
        assert there == str(made[kind]) != link(kind)
        script = made.trace.shell()
    assert own(by_hand(script, PROBE)) == {kind} | ({"user"} if ORDINARY else set())


def test_what_was_left_in_it_is_found_again() -> None:
    with nslab.create("ipc mnt") as made:
        assert made.run("ipcmk -M 4096 && mount -t tmpfs none /mnt && echo text > /mnt/file").returncode == 0
        assert made.run("cat /mnt/file; ipcs -m | grep -c 4096").lines == ["text", "1"]


def test_a_container_in_created_ones() -> None:
    with nslab.create("uts net", hostname="held") as made:
        with nslab.Container(isolate="pid mnt", join={"uts net": made}) as box:
            assert box.run("hostname; readlink /proc/self/ns/net").lines == ["held", str(made["net"])]
            assert box.pid in made["net"].members()
        assert made["net"].members() == []


def test_joining_one_that_only_a_descriptor_holds_is_a_script_too() -> None:
    with nslab.create("uts ipc", hostname="held") as made:
        with nslab.record() as trace:
            inside = seen(made.run(PROBE).stdout)
        assert by_hand(trace.shell()) == inside
        assert "host name held" in inside


def test_they_are_gone_with_the_handle() -> None:
    made = nslab.create("uts")
    number = made["uts"].id.ino
    fds = [link for link in map(_fd, os.listdir("/proc/self/fd")) if link == f"uts:[{number}]"]
    assert len(fds) == 1
    del made
    gc.collect()
    assert f"uts:[{number}]" not in map(_fd, os.listdir("/proc/self/fd"))


def _fd(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("kinds", "options", "rule"),
    [
        ("pid", {}, "pid needs a process"),
        ("all", {}, "pid needs a process"),
        ("", {}, "at least one kind"),
        ("utz", {}, "did you mean 'uts'"),
        ("net", {"hostname": "web"}, "UTS namespace of its own"),
        ("uts", {"clock": {"monotonic": 1}}, "time namespace of its own"),
        ("uts", {"join": {"uts": os.getpid()}}, "not both"),
    ],
)
def test_what_cannot_be_created_is_refused_before(kinds: str, options: dict, rule: str) -> None:
    with nslab.record() as trace, pytest.raises(nslab.SpecError, match=rule):
        nslab.create(kinds, **options)
    assert not trace


def test_they_do_not_outlive_a_killed_notebook() -> None:
    script = """
import nslab, os, signal
made = nslab.create("uts net")
print(os.getpid(), [str(namespace) for namespace in made.values()], flush=True)
made["uts"].popen("exec sleep 1000")
sleeper = made.popen("exec sleep 1001")
print(sleeper.pid, flush=True)
signal.pause()
"""
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env) as notebook:
        assert notebook.stdout
        notebook.stdout.readline()
        sleeper = int(notebook.stdout.readline())
        uts = link("uts", sleeper)
        assert uts != link("uts")
        with pidfd_of(sleeper) as pidfd:
            notebook.send_signal(signal.SIGKILL)
            assert has_ended(pidfd)
    assert eventually(
        lambda: (
            not subprocess.run(["lsns", "-n", "-t", "uts", "-o", "NS"], capture_output=True, text=True).stdout.count(uts[5:-1])
        )
    )


# -- any namespace ----------------------------------------------------------------------------------------------------


def test_commands_and_functions_in_a_namespace_of_a_container() -> None:
    with nslab.Container("web", isolate="uts net", hostname="web") as web:
        uts = web.namespaces["uts"]
        assert uts.run("hostname; readlink /proc/self/ns/net").lines == ["web", link("net")]
        assert uts.call(os.uname).nodename == "web"
        command = uts.popen("echo up; exec sleep 1000")
        assert command.stdout
        assert command.stdout.readline() == b"up\n"
        assert link("uts", command.pid) == str(uts)
        command.kill()
        assert command.wait(2) == -signal.SIGKILL
        held = uts.hold()
    uts.close()
    assert held.run("hostname").stdout == "web\n", "a handle keeps it when the container has ended"
    held.close()


@pytest.mark.parametrize("kind", ["mnt", "uts", "ipc", "net", "cgroup", "time", "pid", "user"])
def test_in_each_kind(kind: str) -> None:
    with nslab.Container(isolate="user mnt uts ipc net cgroup time pid") as web, web.namespaces[kind] as namespace:
        if kind == "mnt":  # its /proc knows only those in its PID namespace
            assert nslab.run("readlink /proc/self/ns/mnt", join={"mnt pid": web}).stdout.strip() == str(namespace)
            assert namespace.run("ls /proc/1/ns").returncode == 0
        else:
            assert namespace.run(["readlink", f"/proc/self/ns/{kind}"]).stdout.strip() == str(namespace)


def test_what_a_command_leaves_behind_ends_with_it() -> None:
    with nslab.create("uts") as made:
        pid = int(made.run("setsid sleep 1000 >/dev/null 2>&1 & echo $!").stdout)
        assert not os.path.exists(f"/proc/{pid}")


def test_in_what_another_tool_made() -> None:
    with foreign(*OWN_USER, "--uts", "--net") as pid, nslab.Namespace.of(pid, "net") as net:
        assert net.run("readlink /proc/self/ns/net; id -u").lines == [str(net), "0"]
        assert net.call(os.readlink, "/proc/self/ns/user") == (link("user", pid) if ORDINARY else link("user"))


def test_in_the_machines_own() -> None:
    with nslab.Namespace.of("self", "uts") as own_uts:
        assert own_uts.run("hostname").stdout.strip() == os.uname().nodename
        with pytest.raises(nslab.Refused):
            own_uts.call(nslab.syscalls.sethostname, b"never")


def test_A06_a_pid_namespace_without_init() -> None:
    container = nslab.Container(isolate="pid")
    with container.namespaces["pid"] as held:
        assert int(held.run("echo $$").stdout) < 64
        container.close()
        for attempt in (lambda: held.run("true"), lambda: held.popen("true"), lambda: held.call(os.getpid)):
            with pytest.raises(nslab.DeadNamespace, match=f"init .PID 1. of pid:.{held.id.ino}. has ended"):
                attempt()


def test_options_of_a_command(tmp_path) -> None:
    with nslab.create("uts mnt") as made:
        assert made["uts"].run("pwd", cwd=tmp_path).stdout.strip() == str(tmp_path)
        assert made["uts"].run("pwd").stdout.strip() == os.getcwd()
        assert made["mnt"].run("pwd").stdout == "/\n"
        assert made.run(["cat"], input="text").stdout == "text"
        assert made.run("echo $WORD", env={"WORD": "x", "PATH": os.environ["PATH"]}).stdout == "x\n"
        assert made.run("id -u; id -g", user=0).lines == ["0", "0"]
        assert made.run("test -t 1 && echo tty", tty=True).stdout.strip() == "tty"
        with pytest.raises(nslab.CommandError):
            made.run("exit 3", check=True)
        with pytest.raises(nslab.CommandTimeout):
            made.run("exec sleep 1000", timeout=0.1)
        with pytest.raises(nslab.SpecError, match="no program"):
            made["uts"].run(["no-such-program"])
        with pytest.raises(nslab.SyscallError, match="no-such-program"):
            made["mnt"].run(["no-such-program"])


def test_an_exception_of_a_function_comes_back() -> None:
    with nslab.create("uts") as made, pytest.raises(ZeroDivisionError):
        made.call(lambda: 1 / 0)


def test_the_display() -> None:
    with nslab.create("uts net") as made:
        sleeper = made["uts"].popen(["sleep", "1000"])
        shown = made["uts"]._repr_mimebundle_()
        assert shown["text/plain"] == f"<Namespace {made['uts']}>"
        assert str(sleeper.pid) in shown["text/html"]
        assert "owner: user:[" in shown["text/html"]
        assert "#56B4E9" in shown["text/html"]
        both = made._repr_mimebundle_()
        assert str(made["uts"]) in both["text/plain"]
        assert "none, a descriptor holds it" in both["text/html"]
        sleeper.end()
    assert ", closed>" in made["uts"]._repr_mimebundle_()["text/plain"]
    assert "closed" in made._repr_mimebundle_()["text/html"]


def test_from_a_process_with_threads() -> None:
    done = in_python(
        "import threading, nslab\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print(nslab.create('mnt time uts', hostname='held').run('hostname').stdout)"
    )
    assert done.stdout.strip() == "held", done.stderr
