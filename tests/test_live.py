"""A container that lives: who is inside, what that uses, waiting for something there, and holding it still."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import procfs
from nslab.model.words import readable, shift
from nslab.spawner import conditions
from tests.helpers import ROOT, eventually, has_ended, in_python, pidfd_of, state

KINDS = ["uts", "pid mnt", "all"]
COUNT = ["sh", "-c", "while :; do echo; done"]  # writes a line as often as it may


def runs(stream) -> bool:
    """Whether whoever writes there still does, after what it has written so far was taken."""
    os.set_blocking(stream.fileno(), False)
    while stream.read(1 << 20):
        pass
    return bool(select.select([stream], [], [], 0.05)[0])


@contextlib.contextmanager
def container(kinds: str) -> Iterator[nslab.Container]:
    with nslab.Container("web", isolate=kinds) as web:
        yield web


# -- who is inside ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", KINDS)
def test_processes_are_those_that_ps_finds(kinds: str) -> None:
    with container(kinds) as web:
        sleeper = web.popen(["sleep", "1000"])
        web.run("setsid sleep 1001 >/dev/null 2>&1 & true")
        assert eventually(lambda: {("sleep", "1000"), ("sleep", "1001")} <= {each.command for each in web.processes()})
        found = {each.pid: each for each in web.processes()}
        assert next(iter(found)) == web.pid
        shown = subprocess.run(
            ["ps", "-o", "pid=,args=", "-p", ",".join(map(str, found))], capture_output=True, text=True
        ).stdout
        assert {int(line.split(None, 1)[0]): line.split(None, 1)[1] for line in shown.splitlines()} == {
            pid: " ".join(each.command) for pid, each in found.items()
        }
        assert {"sleep 1000", "sleep 1001"} <= {" ".join(each.command) for each in found.values()}
        assert found[sleeper.pid].pid_inside == sleeper.pid_inside == (2 if "pid" in kinds or kinds == "all" else sleeper.pid)
        assert "nslab-run" not in {each.name for each in found.values()}, "supervisors are not inside"


def test_processes_of_a_nested_pid_namespace_have_the_containers_numbers() -> None:
    with container("all") as web:
        web.popen("exec unshare --pid --fork sleep 1000")
        assert eventually(lambda: [each for each in web.processes() if each.command == ("sleep", "1000")])
        sleeper = next(each for each in web.processes() if each.command == ("sleep", "1000"))
        numbers = procfs.status(sleeper.pid)["NSpid"].split()
        assert numbers[-1] == "1"
        assert str(sleeper.pid_inside) == numbers[-2]


def test_a_command_line_that_is_no_text_is_shown_all_the_same() -> None:
    with container("pid") as web:
        odd = os.fsdecode(b"\xff \x1b[31m\n")
        sleeper = web.popen(["sh", "-c", "echo; read x", odd], stdin=True)
        assert sleeper.stdout.readline() == b"\n"  # it has executed sh: in the midst of that it has no command line
        seen = web.processes()
        found = next(each for each in seen if each.pid == sleeper.pid)
        assert found.command == ("sh", "-c", "echo; read x", odd)
        assert repr(seen).encode() == seen._repr_mimebundle_()["text/plain"].encode()
        assert r"\xff \x1b[31m\n" in repr(seen)
        assert "<table>" in seen._repr_mimebundle_()["text/html"]


@pytest.mark.unit
def test_the_offset_of_a_clock_in_words() -> None:
    said = {
        365 * 86400: "+365d",
        5000.5: "+1h 23m 20.5s",
        -5400: "-1h 30m",
        0: "+0s",
        -0.000001: "-0.000001s",
        86399.9999999: "+1d",
    }
    assert {seconds: shift(seconds) for seconds in said} == said


def test_readable() -> None:
    assert readable("a b ü") == "a b ü"
    assert readable(os.fsdecode(b"\x80\xff") + "\t\x7f\u202e") == r"\x80\xff\t\x7f\u202e"


def test_two_containers_do_not_count_each_others_processes() -> None:
    with container("uts") as one, container("uts") as two:
        sleeper = one.popen(["sleep", "1000"])
        assert sleeper.pid in {each.pid for each in one.processes()}
        assert {each.pid for each in two.processes()} == {two.pid}


# -- what it uses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["uts", "all"])
def test_stats_see_what_a_process_uses(kinds: str) -> None:
    with container(kinds) as web:
        assert eventually(lambda: web.stats().descriptors < 10)  # init lets go of what it was made with
        before = web.stats()
        eater = web.popen(
            [sys.executable, "-c", "import os, time\nkept = b'x' * (30 << 20)\nfds = [os.dup(0) for _ in range(50)]\n"
             "while time.process_time() < 0.1: pass\nprint(flush=True)\ninput()"], stdin=True,
        )  # fmt: skip
        assert eater.stdout and eater.stdout.readline() == b"\n"
        after = web.stats()
        assert after.processes == before.processes + 1
        assert after.rss - before.rss > 30 << 20
        assert after.pss - before.pss > 30 << 20
        assert 50 <= after.descriptors - before.descriptors < 70
        assert 0.05 <= after.cpu - before.cpu < 5
        assert after.threads == before.threads + 1
        assert after.unseen == 0
        assert "cpu" in repr(after) and "<table>" in after._repr_mimebundle_()["text/html"]


def test_of_an_ended_container_there_is_nothing_to_tell() -> None:
    web = nslab.Container("web", isolate="uts")
    web.close()
    for ask in (web.processes, web.stats, web.pause, lambda: web.wait_for("true")):
        with pytest.raises(nslab.DeadNamespace):
            ask()
    web.resume()


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["uts", "mnt", "all"])
def test_wait_for_a_path(kinds: str, tmp_path: Path) -> None:
    """Also when the folders on the way are not there yet. The intervals at which it would look by itself are 1 s."""
    with container(kinds) as web:
        start = time.monotonic()
        web.popen(f"read x; mkdir -p {tmp_path}/a/b; echo > {tmp_path}/a/b/c", stdin=True).stdin.write(b"\n")
        assert web.wait_for(path=tmp_path / "a/b/c") is True
        assert time.monotonic() - start < 0.9
        assert web.wait_for(path="/proc/self/status", timeout=0.5)


@pytest.mark.parametrize("kinds", ["uts", "all"])
def test_wait_for_a_command(kinds: str, tmp_path: Path) -> None:
    with container(kinds) as web:
        web.popen(f"read x; touch {tmp_path}/x.sock", stdin=True).stdin.write(b"\n")
        assert web.wait_for(f"test -e {tmp_path}/x.sock") is True
        assert web.wait_for(["test", "-e", f"{tmp_path}/x.sock"]) is True


@pytest.mark.parametrize("kinds", ["", "user net", "all"])
def test_wait_for_a_port(kinds: str) -> None:
    script = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\ninput()"
    with container(kinds) as web:
        if kinds:  # else the loopback is up
            script = "import socket\ns = socket.socket()\ns.bind(('0.0.0.0', 0))\ns.listen()\n" + script.split("\n", 2)[2]
        server = web.popen([sys.executable, "-c", script], stdin=True)
        port = int(server.stdout.readline())
        assert web.wait_for(port=port, timeout=2) is True
        if "net" in kinds or kinds == "all":
            with nslab.Container(isolate="net") as other, pytest.raises(nslab.CommandTimeout, match=f"TCP port {port}"):
                other.wait_for(port=port, timeout=0.1)


def test_wait_for_a_function_returns_what_it_returned() -> None:
    with container("uts pid") as web:
        looks = []
        assert web.wait_for(lambda: len(looks) if looks.append(1) or len(looks) > 3 else 0) == 4
        with pytest.raises(ZeroDivisionError):
            web.wait_for(lambda: 1 // 0)


def test_waiting_in_vain_says_why_and_leaves_nothing() -> None:
    with container("pid mnt") as web:
        with pytest.raises(
            nslab.CommandTimeout, match=r"(?s)after 0\.1 s 'ls /nowhere' did not succeed:\nls: [^\n]*nowhere[^\n]*$"
        ):
            web.wait_for("ls /nowhere", timeout=0.1)
        with pytest.raises(TimeoutError, match="no /nowhere inside"):
            web.wait_for(path="/nowhere", timeout=0.05)
        assert eventually(lambda: len(web.processes()) == 1)


def test_a_wait_can_be_interrupted() -> None:
    with container("uts") as web:
        main = threading.main_thread().ident
        waker = threading.Thread(
            target=lambda: eventually(lambda: len(web.processes()) > 1) and signal.pthread_kill(main, signal.SIGINT)
        )
        waker.start()
        with pytest.raises(KeyboardInterrupt):
            web.wait_for(path="/nowhere", timeout=30)
        waker.join()
        assert web.run("echo on").stdout == "on\n"


@pytest.mark.parametrize(
    ("options", "argument"),
    [({}, "condition"), ({"path": "/x", "port": 1}, "condition"), ({"port": 0}, "port"), ({"port": "x"}, "port"),
     ({"path": 3}, "path"), ({"path": "a\0b"}, "path"), ({"condition": "true", "timeout": -1}, "timeout"),
     ({"condition": 3}, "condition"), ({"condition": ["no-such-program"]}, "condition"), ({"condition": ""}, "condition"),
     ({"condition": Path("/etc")}, "condition"), ({"condition": [3]}, "condition")],
)  # fmt: skip
def test_what_cannot_be_waited_for_is_refused(options, argument) -> None:
    with container("uts") as web:
        with pytest.raises(nslab.SpecError) as caught:
            web.wait_for(**options)
        assert caught.value.argument == argument


def test_the_one_that_waits_sleeps_in_the_kernel(tmp_path: Path) -> None:
    """A wait for a path takes no processor time: no look again and again."""
    script = f"""
import os, threading, time
from nslab import syscalls
from nslab.spawner import conditions
threading.Timer(0.3, lambda: os.mkdir({str(tmp_path / "x")!r})).start()
before = time.process_time()
conditions.path_is_there({str(tmp_path / "x")!r})
print(time.process_time() - before)
"""
    assert float(in_python(script, check=True).stdout) < 0.05


@pytest.mark.unit
def test_ports_that_are_listened_on(tmp_path: Path) -> None:
    net = tmp_path / "self/net"
    net.mkdir(parents=True)
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
    (net / "tcp").write_text(head + "   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 0100007F:0016 0100007F:1234 01 0\n")
    assert procfs.listening(str(tmp_path)) == {8080}
    (net / "tcp6").write_text(head + "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0\n")
    assert procfs.listening(str(tmp_path)) == {8080, 80}


@pytest.mark.unit
def test_where_inotify_is_used_up_time_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    def used_up() -> int:
        raise nslab.SyscallError("inotify_init1", (), 24)

    monkeypatch.setattr(conditions.syscalls, "inotify_init1", used_up)
    looks = iter((False, False, True))
    assert conditions.until(lambda: next(looks), ["/tmp/x"])


# -- holding it still -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", KINDS)
def test_paused_is_still_and_resumed_goes_on(kinds: str) -> None:
    with container(kinds) as web:
        counter = web.popen(COUNT)
        assert runs(counter.stdout)
        web.pause()
        assert web.paused and "paused" in repr(web)
        assert not runs(counter.stdout)
        with pytest.raises(nslab.SpecError, match="resume"):
            web.run("true")
        web.pause()  # it is so already
        assert nslab.draw(web) is not None
        web.resume()
        assert not web.paused and runs(counter.stdout)
        assert web.run("echo in").stdout == "in\n"
        web.resume()


def test_what_stood_still_before_stays_so() -> None:
    with container("pid") as web:
        first, second = web.popen(["sleep", "1000"]), web.popen(["sleep", "1000"])
        first.send_signal(signal.SIGSTOP)
        assert eventually(lambda: state(first.pid) == "T")
        web.pause()
        web.resume()
        assert eventually(lambda: state(second.pid) == "S")
        assert state(first.pid) == "T"


def test_processes_that_fork_all_the_time_are_held_too() -> None:
    chain = """S='sleep 0.002; setsid sh -c "$0" "$0" & exit'; sh -c "$S" "$S" & sleep 1000"""
    with container("pid mnt") as web:
        web.popen(chain)
        web.pause()
        before = {(each.pid, each.command) for each in web.processes() if each.state != "zombie"}
        assert not has_ended_any(before, 0.05)
        assert {(each.pid, each.command) for each in web.processes() if each.state != "zombie"} == before


def has_ended_any(members, seconds: float) -> bool:
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(pidfd_of(pid)) for pid, _ in members]
        return bool(select.select(fds, [], [], seconds)[0])


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("way", ["close", "stop", "drop"])
def test_a_paused_container_ends_like_any_other(kinds: str, way: str) -> None:
    web = nslab.Container("web", isolate=kinds)
    with pidfd_of(web.popen(COUNT).pid) as pidfd:
        web.pause()
        start = time.monotonic()
        if way == "drop":
            del web
        else:
            getattr(web, way)()
        assert has_ended(pidfd)
        assert time.monotonic() - start < 1


def test_a_paused_container_does_not_outlive_its_notebook() -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import nslab
web = nslab.Container("web", isolate="uts")
sleeper = web.popen(["sleep", "1000"])
web.pause()
print(sleeper.pid, flush=True)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""
    victim = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert victim.stdout and victim.stdin
    with victim, pidfd_of(int(victim.stdout.readline())) as pidfd:
        assert not has_ended(pidfd, 0)
        victim.stdin.write("\n")
        victim.stdin.flush()
        assert has_ended(pidfd)


@pytest.mark.requires("cgroup2", "root")
def test_whoever_enters_from_another_process_is_in_the_cgroup_too() -> None:
    """Where the freezer of cgroup v2 can be had: by then the container has a cgroup. A paused one is not entered."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from nslab.container import listing
from nslab import SpecError
found = listing.find("entered")
listing.enter(found, "cat /proc/self/cgroup")
print("left again", flush=True)
input()
try:
    listing.enter(found, "true")
except SpecError as error:
    print(error, flush=True)
"""
    with nslab.Container("entered", isolate="uts") as web:
        web.pause()
        web.resume()
        leaf = Path(f"/proc/{web.pid}/cgroup").read_text().splitlines()[-1]
        assert leaf.startswith("0::/nslab-")
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as guest:
            assert guest.stdin and guest.stdout
            assert leaf in [line.strip() for line in iter(guest.stdout.readline, "left again\n")]
            web.pause()
            guest.stdin.write("\n")
            guest.stdin.flush()
            assert "is paused" in guest.stdout.readline()
        web.resume()
        assert web.run("true").returncode == 0


PATH_MEANT = r"(?s)no program '/run/x\.sock'.*did you mean path='/run/x\.sock'\?$"


@pytest.mark.parametrize("condition", ["/run/x.sock", ["/run/x.sock"]])
def test_a_path_that_is_waited_for_as_a_command(condition: str | list[str]) -> None:
    with container("uts") as web, pytest.raises(nslab.SpecError, match=PATH_MEANT):
        web.wait_for(condition)


@pytest.mark.requires("tool:busybox")
def test_a_command_that_cannot_start_among_other_files() -> None:
    with nslab.Container(isolate="mnt pid", rootfs="busybox") as small:
        for condition in ("/run/x.sock", ["/run/x.sock"]):
            with pytest.raises(nslab.SyscallError, match=PATH_MEANT):
                small.wait_for(condition)
        with pytest.raises(nslab.SyscallError, match=r"EACCES[^?]*\n.*did you mean path='/etc'\?"):
            small.wait_for("/etc")
        with pytest.raises(nslab.SyscallError, match="no program 'no-such-program'") as caught:
            small.wait_for(["no-such-program", "/run/x"])
        assert "did you mean" not in str(caught.value)
        assert small.wait_for("test -e /etc/passwd") is True
        assert eventually(lambda: len(small.processes()) == 1)
