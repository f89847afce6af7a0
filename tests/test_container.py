"""Container and Stepper: commands and functions enter, and the end is the end of everything inside."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import nslab
from nslab.model import KINDS
from tests.helpers import eventually, has_ended, link, pidfd_of

ALL = "user uts pid mnt"


def processes_in(kind: str, inode: str) -> list[str]:
    """Who is in a namespace, read by hand."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += [pid] if link(kind, pid) == inode else []
        except OSError:
            continue
    return found


# -- what it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["", "uts", "pid mnt", ALL, "all"])
def test_what_is_asked_for_is_its_own_and_the_rest_is_the_machines(kinds: str) -> None:
    with nslab.Container("web", isolate=kinds) as web:
        asked = set(KINDS) if kinds == "all" else set(kinds.split())
        own = {kind for kind in KINDS if link(kind, web.pid) != link(kind)}
        assert own == asked | ({"user"} if os.getuid() else set())
        inside = web.run(["readlink", *(f"/proc/self/ns/{kind}" for kind in KINDS)]).lines
        assert inside == [link(kind, web.pid) for kind in KINDS]


def test_it_is_one_place_for_all_that_enters() -> None:
    with nslab.Container(isolate=ALL, hostname="first") as web:
        web.run("hostname second; mount -t tmpfs none /mnt; echo kept > /mnt/file", check=True)
        assert web.run("hostname; cat /mnt/file").lines == ["second", "kept"]
        assert web.call(lambda: (os.uname().nodename, Path("/mnt/file").read_text())) == ("second", "kept\n")
    assert not Path("/mnt/file").exists()


def test_two_containers_do_not_see_each_other() -> None:
    with nslab.Container(isolate=ALL, hostname="a") as a, nslab.Container(isolate=ALL, hostname="b") as b:
        sleeper = a.popen("exec sleep 1000")
        assert a.run("hostname").stdout + b.run("hostname").stdout == "a\nb\n"
        assert "sleep" in a.run("ps ax").stdout
        assert "sleep" not in b.run("ps ax").stdout
        sleeper.end()


def test_ps_inside_shows_a_handful_and_init_is_ours() -> None:
    with nslab.Container(isolate="pid mnt") as web:
        lines = web.run("ps -A -o pid=,comm=").lines
        assert lines[0].split() == ["1", "nslab-init"]
        assert len(lines) <= 4
        assert web.run("readlink /proc/1/exe; ls /proc/1/fd | wc -l").returncode == 0


# -- commands ---------------------------------------------------------------------------------------------------------


def test_run_has_the_options_of_nslab_run(tmp_path: Path) -> None:
    with nslab.Container(isolate=ALL) as web:
        assert web.run(["cat"], input="in").stdout == "in"
        assert web.run(["env"], env={"A": "1"}).stdout == "A=1\n"
        assert web.run(["pwd"], cwd=tmp_path).stdout == f"{tmp_path}\n"
        assert web.run(["pwd"]).stdout == "/\n"
        assert web.run("id -u", user=0).stdout == "0\n"
        assert web.run(["printf", "\\377"], text=False).stdout == b"\xff"
        assert web.run("test -t 0", tty=True).returncode == 0
        assert web.run("yes | head -c 5000", max_output=100).omitted == 4900
        with pytest.raises(nslab.CommandError, match="status 3"):
            web.run("exit 3", check=True)
        with pytest.raises(nslab.CommandTimeout):
            web.run("sleep 1000", timeout=0.1)
        assert web.run("echo fine").stdout == "fine\n"


@pytest.mark.parametrize("kinds", ["uts", "pid mnt"])
def test_what_a_command_leaves_in_the_background_goes_on_until_the_end(kinds: str) -> None:
    with nslab.Container(isolate=kinds) as web:
        begin = time.monotonic()
        web.run("setsid sleep 1000 > /dev/null 2>&1 & echo $!")
        assert time.monotonic() - begin < 5

        def sleepers() -> list[str]:
            inside = processes_in(kinds[:3], link(kinds[:3], web.pid))
            return [pid for pid in inside if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]

        assert eventually(lambda: len(sleepers()) == 1)
        one = sleepers()
        with pidfd_of(int(one[0])) as sleeper:
            assert not has_ended(sleeper, 0)
            web.close()
            assert has_ended(sleeper, 0), "close() returns when nothing is left"


def test_popen_is_a_handle_on_a_live_command() -> None:
    with nslab.Container(isolate="pid mnt") as web:
        command = web.popen("read line; echo got $line; echo oops >&2; exit 5", stdin=True)
        assert command.poll() is None
        status = Path(f"/proc/{command.pid}/status").read_text()
        assert command.pid_inside == int(next(line for line in status.splitlines() if line.startswith("NSpid")).split()[-1])
        assert 1 < command.pid_inside < 20
        assert "running" in repr(command)
        command.stdin.write(b"it\n")
        assert command.wait(5) == command.returncode == 5
        assert (command.stdout.read(), command.stderr.read()) == (b"got it\n", b"oops\n")
        command.kill()  # nothing happens
        command.end()


def test_popen_can_be_signalled_and_waited_for() -> None:
    with nslab.Container(isolate=ALL) as web:
        command = web.popen(["sleep", "1000"])
        with pytest.raises(nslab.CommandTimeout, match="still running"):
            command.wait(0.05)
        command.terminate()
        assert command.wait(5) == -signal.SIGTERM
        with pytest.raises(nslab.DeadNamespace):
            command.pid_inside
        command.end()
        with pytest.raises(nslab.SyscallError, match="not an executable file"):
            web.popen(["/etc/passwd"])


# -- functions --------------------------------------------------------------------------------------------------------


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not to be sent")


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two

    def __reduce__(self):
        return Odd, (self.args[0], self.two)


def fail() -> None:
    raise Odd("deep", 2)


def test_call_runs_a_function_inside() -> None:
    with nslab.Container(isolate=ALL, hostname="inside") as web:
        offset = 40
        assert web.call(lambda a, *, b: (a + b + offset, os.uname().nodename), 1, b=1) == (42, "inside")
        assert 1 < web.call(os.getpid) < 20
        assert web.call(os.getuid) == 0
        big = web.call(os.urandom, 5 << 20)
        assert len(big) == 5 << 20
        assert web.call(len, big) == 5 << 20
        assert web.call(lambda: None) is None


def test_an_exception_inside_is_raised_here_with_where_it_was() -> None:
    with nslab.Container(isolate="uts") as web:
        with pytest.raises(Odd, match="deep") as caught:
            web.call(fail)
        assert caught.value.two == 2
        assert "in fail" in caught.value.__notes__[0]
        with pytest.raises(SystemExit):
            web.call(sys.exit, 3)
        with pytest.raises(nslab.SyscallError, match="at most 64") as error:
            web.call(nslab.syscalls.sethostname, b"x" * 65)
        assert error.value.name == "EINVAL"
        with pytest.raises(nslab.NslabError, match="Unpicklable that it returned cannot be sent back"):
            web.call(Unpicklable)
        with pytest.raises(nslab.NslabError, match="ended its process without an answer"):
            web.call(os._exit, 3)
        with pytest.raises(nslab.NslabError, match="ended its process without an answer"):
            web.call(lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert web.call(os.getpid) > 0


def test_what_a_function_prints_is_shown_here(capsys: pytest.CaptureFixture[str]) -> None:
    with nslab.Container(isolate="uts") as web:
        web.call(lambda: (print("out"), print("err", file=sys.stderr)))
    assert tuple(capsys.readouterr()) == ("out\n", "err\n")


# -- the end ----------------------------------------------------------------------------------------------------------


def test_closing_ends_everything_inside() -> None:
    web = nslab.Container("web", isolate="uts pid mnt")
    commands = [web.popen("trap '' TERM HUP; sleep 1000 & wait") for _ in range(3)]
    inode = link("pid", web.pid)
    assert len(processes_in("pid", inode)) >= 4
    web.close()
    assert processes_in("pid", inode) == []
    assert [command.wait(2) for command in commands] == [-signal.SIGKILL] * 3
    web.close()  # once more does nothing
    assert not web.alive
    assert "ended" in repr(web)
    assert "ended" in web._repr_mimebundle_()["text/html"]
    for command in commands:
        command.end()


def test_dropping_the_last_reference_ends_it() -> None:
    web = nslab.Container(isolate="pid")
    web.run("true")
    web.call(os.getpid)
    with pidfd_of(web.pid) as init:
        del web
        gc.collect()
        assert has_ended(init, 2)


def test_an_error_in_a_with_block_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), nslab.Container(isolate="pid") as web:
        pid = web.pid
        1 // 0
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("kinds", ["pid mnt", "uts"])
def test_when_init_is_killed_everything_is_gone_and_said_to_be(kinds: str) -> None:
    web = nslab.Container("web", isolate=kinds)
    sleeper = web.popen(["sleep", "1000"])
    with pidfd_of(web.pid) as init:
        signal.pidfd_send_signal(init, signal.SIGKILL)
        assert has_ended(init, 2)
    assert not web.alive
    with pytest.raises(nslab.DeadNamespace, match=r"'web'.*ended"):
        web.run("true")
    if "pid" in kinds:
        assert sleeper.wait(2) == -signal.SIGKILL
    web.close()
    assert sleeper.wait(2) == -signal.SIGKILL
    sleeper.end()


def test_a_plan_that_fails_says_what_was_done_and_leaves_nothing(tmp_path: Path) -> None:
    """The host name is set, the command cannot be started."""
    file = tmp_path / "file"
    file.touch()
    with nslab.record() as trace, pytest.raises(nslab.SyscallError, match="done before it, and undone since") as caught:
        nslab.run([str(file)], isolate="pid uts", hostname="web")
    assert [step.call for step in trace.failed] == ["posix_spawn"]
    assert "sethostname" in [step.call for step in caught.value.steps]
    assert caught.value.name == "EACCES"


def test_a_hundred_at_once() -> None:
    """Each with a process namespace; all of them end."""
    with ThreadPoolExecutor(4) as pool:
        fleet = list(pool.map(lambda n: nslab.Container(f"c{n}", isolate=ALL, hostname=f"h{n}"), range(100)))
    try:
        assert len({link("pid", web.pid) for web in fleet}) == 100
        assert [web.run("hostname").stdout for web in fleet[::25]] == ["h0\n", "h25\n", "h50\n", "h75\n"]
        listed = subprocess.run(["lsns", "-t", "uts", "-n", "-o", "NS"], capture_output=True, text=True).stdout.split()
        assert {link("uts", web.pid).strip("uts:[]") for web in fleet} <= set(listed)
    finally:
        for web in fleet:
            web.close()
    assert not [web for web in fleet if Path(f"/proc/{web.pid}").exists()]


# -- step by step -----------------------------------------------------------------------------------------------------


def test_a_stepper_does_one_op_at_a_time() -> None:
    stepper = nslab.Stepper("web", isolate="uts mnt", hostname="later")
    try:
        before = link("uts", stepper.pid)
        assert not stepper.finished
        assert "set the host name to 'later'" in stepper.ops
        with pytest.raises(nslab.SpecError, match="finish"):
            stepper.run("true")
        names = []
        while not stepper.finished:
            names += [step.call for step in stepper.step()]
        assert names[-2:] == ["sethostname", "execve"], "and then it is init"
        assert names.count("mount") == 1
        assert link("uts", stepper.pid) == before != link("uts")
        assert stepper.run("hostname").stdout == "later\n"
        with pytest.raises(nslab.SpecError, match="every op is done"):
            stepper.step()
    finally:
        stepper.close()


def test_a_stepper_that_is_dropped_halfway_leaves_nothing() -> None:
    stepper = nslab.Stepper(isolate="pid mnt")
    stepper.step()
    with pidfd_of(stepper.pid) as init:
        del stepper
        gc.collect()
        assert has_ended(init, 2)


def test_a_stepper_whose_process_is_killed_says_so() -> None:
    stepper = nslab.Stepper(isolate="uts", hostname="x")
    os.kill(stepper.pid, signal.SIGKILL)
    with pytest.raises(nslab.DeadNamespace):
        stepper.finish()
    assert eventually(lambda: not stepper.alive)
    stepper.close()


@pytest.mark.parametrize("kinds", ["uts", "pid mnt"])
def test_what_runs_out_of_time_ends_with_its_children(kinds: str) -> None:
    with nslab.Container("web", isolate=kinds) as web:
        with pytest.raises(nslab.CommandTimeout) as caught:
            web.run("sleep 1000 & echo $!; sleep 1001; true", timeout=0.3)
        number = int(caught.value.result.stdout)
        assert not web.call(os.path.exists, f"/proc/{number}")
        assert "sleep" not in web.run("ps -e -o comm=").lines or "pid" not in kinds


def test_commands_that_ended_hold_no_descriptor() -> None:
    """Each had one for as long as its container lived: after a thousand of them there were no more."""

    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    with nslab.Container(isolate="uts pid mnt") as web:
        web.run("true")
        before = held()
        for _ in range(40):
            web.run("true")
            web.popen("exit 3").wait()
        assert eventually(lambda: web.run("true").returncode == 0 and held() <= before + 4)
