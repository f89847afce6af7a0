"""The processes that are made ahead of time: their memory comes back, is kept, or goes, and nobody inside reaches into it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

import pytest

import nslab
import nslab.spawner
from tests.crash.oracle import children, name
from tests.helpers import eventually, has_ended, in_python, pidfd_of

KINDS = "uts user pid mnt"
PIDFD_GETFD = 438


def standbys() -> set[int]:
    """Those of the spawner that makes things: for an ordinary user, of the one in the borrowed user namespace."""
    helpers = {name(pid): pid for pid in nslab.spawner.running_pids()}
    spawner = helpers.get("nslab-borrowed", helpers["nslab-spawner"])
    return {pid for pid in children(spawner) if name(pid) == "nslab-standby"}


def settled() -> set[int]:
    """The same once there are some, and nothing more changes about them."""
    nslab.run("true", isolate=KINDS)
    seen: list[set[int]] = []
    assert eventually(lambda: seen.append(standbys()) or (seen[-1] and seen[-5:] == [seen[-1]] * 5))
    return seen[-1]


def makers(trace: nslab.Trace) -> set[int]:
    return {step.pid for step in trace if step.call == "clone"}


def test_an_own_clock_goes_with_an_own_root() -> None:
    """Who is about to enter a root writes to /proc/self before, which belongs to root when nobody may reach into the memory."""
    for _ in range(2):
        with nslab.Container(isolate="all", clock={"boottime": "+1d"}, rootfs="machine") as web:
            up = float(web.run("cat /proc/uptime", check=True).stdout.split()[0])
            assert up > 86_400 and web.namespaces["time"] != nslab.Namespace.of("self", "time")


def test_memory_that_was_lent_comes_back() -> None:
    """Each run has a maker of its own where it does not; on a busy machine some keep it, since they take more than 20 ms."""
    settled()
    with nslab.record() as trace:
        for number in range(20):
            assert nslab.run(f"exit {number}", isolate=KINDS).returncode == number
    clones = [step for step in trace if step.call == "clone"]
    assert len(clones) == 20 > len(makers(trace))


@pytest.mark.parametrize("kinds", [KINDS, "all"])
def test_an_init_gives_the_memory_back_and_so_does_what_enters(kinds: str) -> None:
    """It executes a program of its own. A command enters the clock by one, too: else it would need memory for itself."""
    settled()
    with nslab.record() as trace:
        for number in range(10):
            with nslab.Container(str(number), isolate=kinds, hostname=f"h{number}") as web:
                assert web.run("hostname; cat /proc/1/comm /proc/1/cmdline").stdout == (
                    f"h{number}\nnslab-init\nnslab-init\0{number}\0"
                )
    siblings = [step for step in trace if step.call == "clone" and "CLONE_PARENT" in str(step)]
    assert len(siblings) == 20 > len({step.pid for step in siblings})


@pytest.mark.parametrize(("path", "errno", "status"), [("/bin/true", 0, 0), ("/etc/passwd", 13, 127)])
def test_a_life_in_borrowed_memory_ends_with_an_execve(path: str, errno: int, status: int) -> None:
    """In a process that may make others: a failure is known to whoever lent the memory, and Python goes on there."""
    code = f"""
import os
from nslab import syscalls
from nslab.syscalls.in_place import Chain, Lender
syscalls.allow()
lender, chain, seen = Lender(children=True), Chain(), []
fd = os.open({path!r}, os.O_PATH | os.O_CLOEXEC)
for _ in range(3):
    def life(pid):
        seen.append(pid)
        chain.execute(fd, ["x"], {{}})
        return 9
    pid = lender.clone(0, life, chain)
    print(pid == seen[-1], chain.errno, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
pid = lender.clone(0, lambda pid: 9, chain)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert in_python(code).stdout.splitlines() == [f"True {errno} {status}"] * 3 + ["9"]


def test_a_life_that_fails_executes_nothing_of_an_earlier_one() -> None:
    done = in_python(
        """
import os
from nslab import syscalls
from nslab.syscalls.in_place import Chain, Lender
syscalls.allow()
lender, chain, seen = Lender(children=True), Chain(), []
def executes(pid):
    seen.append(pid)
    chain.execute(os.open("/bin/true", os.O_RDONLY), ["true"], {})
    return 5
def fails(pid):
    seen.append(pid)
    raise LookupError("of a life")
print([lender.clone(0, life, chain) == seen[-1] for life in (fails, executes, fails)])
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in seen])
"""
    )
    assert done.stdout.splitlines() == ["[False, True, False]", "[1, 0, 1]"], done.stderr
    assert done.stderr.count("LookupError: of a life") == 2


def test_a_command_that_goes_on_keeps_the_memory() -> None:
    settled()
    with nslab.Container(isolate=KINDS) as web, nslab.record() as trace:
        running = web.popen("sleep 100")
        (maker,) = makers(trace)
        assert eventually(lambda: not os.path.exists(f"/proc/{maker}")), "after 20 ms it is not lent any more"
        assert running.poll() is None
        running.kill()
        assert running.wait(5) == -signal.SIGKILL


def test_memory_in_disorder_is_not_used_again() -> None:
    """Its user is killed in the middle; the next request is done by somebody else, and well."""
    for _ in range(5):
        before = settled()
        with contextlib.suppress(nslab.SpawnerError):  # it was killed before it could say that all is ready
            assert nslab.run("kill -9 $PPID; sleep 100", isolate="user uts").returncode == -signal.SIGKILL
        assert eventually(lambda before=before: not before <= standbys())
        assert nslab.run("hostname", isolate=KINDS, hostname="next").stdout == "next\n"


STOPPING = f"""
import os, random, select, signal, threading, nslab, nslab.spawner
from tests.crash.oracle import children, name
kinds = {KINDS!r}
nslab.run("true", isolate=kinds)
spawners = [pid for pid in nslab.spawner.running_pids() if name(pid) in ("nslab-spawner", "nslab-borrowed")]
def stop():
    "All standbys, by pidfd: a number may be another's a moment later. What is something else by then goes on."
    count = 0
    for pid in (pid for spawner in spawners for pid in children(spawner)):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if name(pid) == "nslab-standby":
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
                count += 1
            if name(pid) != "nslab-standby":
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        except ProcessLookupError:
            pass
        os.close(pidfd)
    return count
"""


def test_a_standby_that_somebody_stops_goes_on() -> None:
    done = in_python(f"""{STOPPING}
while not stop():
    pass
print(nslab.run("hostname", isolate=kinds, hostname="next").stdout)
""")
    assert done.stdout.strip() == "next", done.stderr


def test_standbys_that_are_stopped_at_any_moment_hold_up_nobody() -> None:
    """Also while they take a request, and the spawner wants to know what becomes of it."""
    done = in_python(f"""{STOPPING}
def work(results):
    for number in range(60):
        results.append(nslab.run(f"exit {{number}}", isolate=kinds).returncode)
results, moments, stopped = ([], []), random.Random(7), 0
threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in results]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    select.select([], [], [], moments.uniform(0, 0.004))
    stopped += stop()
print(results == ([*range(60)], [*range(60)]), stopped > 20)
""")
    assert done.stdout.strip() == "True True", done.stderr


def test_lent_memory_is_out_of_reach_from_inside() -> None:
    """Whoever may trace init could else write into a process outside. It holds for 20 ms: on a busy machine not each time."""
    looks = [nslab.run(["cat", "/proc/1/maps"], isolate=KINDS) for _ in range(20)]
    assert any("Permission denied" in look.stderr for look in looks), looks[0]


def test_lent_memory_is_out_of_reach_before_anything_is_entered() -> None:
    """From inside a user namespace that it joined it could be traced; it may be again when the memory is its own."""
    done = in_python(
        """
import os, resource
from nslab import ops, syscalls
from nslab.spawner import channel, child
from nslab.spawner.messages import Start
from nslab.spawner.report import Report
from nslab.syscalls import guard
syscalls.allow()
class Enters(ops.Op):
    enters = True
    def perform(self, context):
        print("dumpable", guard.libc.prctl(3, 0, 0, 0, 0))
        context.own_memory()
        print("dumpable", guard.libc.prctl(3, 0, 0, 0, 0))
lender = os.fork() or os._exit(0)
mine, theirs = channel.pair()
ended, let_go = os.pipe()
context = ops.Context({}, {}, let_go=let_go, predecessor=os.pidfd_open(lender))
request = Start((Enters(),), None, (), "nslab-test")
files = resource.getrlimit(resource.RLIMIT_NOFILE)
status = child.spend(request, request.ops, context, Report(theirs.fileno()), syscalls.signalfd(child.SIGNALS), files)
print("status", status)
"""
    )
    assert done.stdout.splitlines() == ["dumpable 0", "dumpable 1", "status 0"], done.stderr


def test_a_process_that_keeps_the_memory_can_be_looked_at() -> None:
    with nslab.Container(isolate=KINDS) as web:
        assert web.run(["cat", "/proc/1/maps"]).stdout
        assert Path(f"/proc/{web.pid}/maps").read_text()


def test_a_standby_that_was_killed_is_replaced() -> None:
    for pid in settled():
        with pidfd_of(pid) as pidfd:
            os.kill(pid, signal.SIGKILL)
            assert has_ended(pidfd)
    assert nslab.run("hostname", isolate=KINDS, hostname="again").stdout == "again\n"


def test_a_standby_that_was_buried_gets_no_request() -> None:
    """What it had started, here this test, may keep its end of the channel open: then a request would wait there for ever."""
    with contextlib.ExitStack() as held:
        for pid in settled():
            sockets = [fd for fd in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")]
            with pidfd_of(pid) as pidfd:
                for number in sockets:
                    fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, int(number), 0)
                    assert fd >= 0, os.strerror(ctypes.get_errno())
                    held.callback(os.close, fd)
                os.kill(pid, signal.SIGKILL)
                assert has_ended(pidfd)
            assert eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
        assert nslab.run("hostname", isolate=KINDS, hostname="again", timeout=10).stdout == "again\n"


def test_a_request_that_dies_with_its_standby_is_an_error() -> None:
    """It took the request and was killed: that is no result of the command, which never ran."""
    for _ in range(20):
        with contextlib.suppress(nslab.SpawnerError):  # of the first run too: one killed a round ago may not have died yet
            for pid in settled():
                os.kill(pid, signal.SIGKILL)
            assert nslab.run("hostname", isolate=KINDS, hostname="again").stdout == "again\n"
    assert eventually(served), "and the next ones are served"


def served() -> bool:
    with contextlib.suppress(nslab.SpawnerError):  # as above
        return nslab.run("hostname", isolate=KINDS, hostname="after").stdout == "after\n"
    return False
