"""The trace: every system call that was made, in order, with its outcome; nested, JSON-able, and never in the way."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence

import pytest

import nslab
from nslab import syscalls
from nslab.syscalls import decode
from nslab.trace import Step, Trace, emit, record
from tests.helpers import in_python


def calls(trace) -> list[str]:
    return [step.call for step in trace]


@pytest.mark.requires("root")
def test_the_whole_list_of_a_container() -> None:
    """Pinned: one step more or less is a decision."""
    with nslab.Container("web", isolate="user uts pid mnt time", hostname="web", clock={"monotonic": 5}) as web:
        lines = [str(step) for step in web.trace]
    assert [re.sub(r"fd \d+", "fd N", line.replace(str(web.pid), "PID")) for line in lines] == [
        "clone(CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWPID|CLONE_NEWUSER|CLONE_VM|CLONE_VFORK|CLONE_PARENT) = PID",
        "write('/proc/self/setgroups', 'deny') = 4   [implied: whoever has no privilege outside may write a gid_map only with "
        "setgroups denied]",
        "write('/proc/self/uid_map', '0 0 1\\n') = 6",
        "write('/proc/self/gid_map', '0 0 1\\n') = 6",
        "mount(NULL, '/', NULL, MS_REC|MS_PRIVATE, NULL) = 0   [implied: else a mount made here would show up outside, "
        "where a mount is shared]",
        "mount('proc', '/proc', 'proc', MS_NOSUID|MS_NODEV|MS_NOEXEC, NULL) = 0   [implied: a new PID namespace with an own "
        "mount table needs its own /proc, or ps shows the machine]",
        "unshare(CLONE_NEWTIME) = 0",
        "write('/proc/self/timens_offsets', 'monotonic 5 0\\n') = 14",
        "sethostname('web', 3) = 0",
        "execve('nslab-init', ['nslab-init', 'web']) = 0   [implied: init is a program of a few instructions, which holds "
        "nothing]",
    ]


def test_steps_know_when_and_by_whom() -> None:
    before = time.time()
    with nslab.Container(isolate="pid uts", hostname="web") as web:
        steps = [step for step in web.trace if step.call == "sethostname"]
        assert len(steps) == 1
        assert steps[0].pid == web.pid, "as this process knows it"
        assert before <= steps[0].start <= time.time()
        assert 0 <= steps[0].duration < 1
        starts = [step.start for step in web.trace]
        assert max(starts) - min(starts) < 5


def outside_pids(steps: Sequence[Step]) -> set[int]:
    """The PIDs, and none of them is a number of a PID namespace below, all of which begin again."""
    found = {step.pid for step in steps}
    assert min(found) > 50, [f"{step.pid}: {step}" for step in steps]
    return found


def test_a_trace_has_one_numbering_of_processes() -> None:
    """That of whoever reads it, whichever process made the call."""
    with nslab.Container("web", isolate="user pid uts mnt time", hostname="web") as web:
        clone, *rest = web.trace
        assert clone.result == web.pid != clone.pid
        assert outside_pids(rest) == {web.pid}
        for run in (lambda: web.run("true"), lambda: web.run("true", user=0), lambda: web.call(syscalls.sethostname, b"new")):
            with record() as trace:
                run()
            outside_pids(trace)
            joins = [step for step in trace if step.call == "setns"]
            assert {step.args[0] for step in joins} == {f"pidfd of PID {web.pid}"}
        assert next(step for step in trace if step.call == "sethostname").pid not in (joins[0].pid, web.pid), "a child made it"
        with record() as trace:
            nslab.run("true", isolate="pid mnt", join={"user": web, "pid": web})
        assert len(outside_pids(trace)) >= 3
    with nslab.Container("hard", hardened=True) as hard, record() as trace:
        hard.run("true")
        outside_pids([*trace, *hard.trace])
    with nslab.process() as process:
        process.unshare("user pid")
        with process.fork() as child, child.fork() as grandchild:
            grandchild.chdir("/")
            grandchild.run("true")
            assert outside_pids(grandchild.trace) == {grandchild.pid}
            assert child.trace[-1].pid == child.pid


def test_what_was_asked_for_is_not_implied() -> None:
    for options, asked in (({}, False), ({"setgroups": "deny"}, True)):
        with record() as trace:
            nslab.run("true", isolate="user", **options)
        (denied,) = [step for step in trace if step.args[:2] == ("'/proc/self/setgroups'", "'deny'")]
        assert bool(denied.implied) is not asked


def test_every_way_to_run_is_traced() -> None:
    with nslab.Container(isolate="uts") as web:
        made = len(web.trace)
        web.run("true")
        assert "posix_spawn" in calls(web.trace[made:])
        assert "setns" in calls(web.trace[made:])
        ran = len(web.trace)
        web.call(os.getpid)
        assert "setns" in calls(web.trace[ran:])
        with record() as trace:
            web.run("true")
        assert calls(trace) == calls(web.trace[made:ran])
    with record() as trace:
        nslab.run("true", isolate="uts")
    assert calls(trace)[-1] == "posix_spawn"
    assert len(Trace()) == 0


def test_a_call_that_fails_is_in_the_trace_with_its_errno() -> None:
    with nslab.process() as process:
        process.unshare("mnt")
        with pytest.raises(nslab.SyscallError):
            process.mount("none", "/no/such/place", "tmpfs")
        (step,) = process.trace.failed
        assert (step.call, step.errno, step.result) == ("mount", 2, None)
        assert str(step) == "mount('none', '/no/such/place', 'tmpfs', 0, NULL) = ENOENT"
        assert "ENOENT" in process.trace._repr_mimebundle_()["text/html"]


def test_calls_in_a_function_are_traced_too() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.call(nslab.syscalls.sethostname, b"x")
        assert "sethostname('x', 1) = 0" in str(process.trace)


def test_what_is_implied_says_why() -> None:
    with nslab.Container(isolate="pid mnt") as web:
        implied = {step.call for step in web.trace if step.implied}
        assert implied >= {"mount"}
        assert not [step for step in web.trace if step.call.startswith("clone3") and "NEWPID" in str(step) and step.implied]


@pytest.mark.requires("ordinary")
def test_the_borrowed_user_namespace_is_on_record() -> None:
    """Once, when it is made: by whoever needs it first."""
    script = """
import nslab
with nslab.record() as one:
    nslab.run("true", isolate="uts")
with nslab.record() as two:
    nslab.run("true", isolate="uts")
for trace in one, two:
    print(*(step.call for step in trace if "only inside a user namespace" in step.implied))
"""
    done = in_python(script)
    assert done.stdout == "clone3 write write write\n\n", done.stderr


def test_recording_nests() -> None:
    with record() as outer:
        nslab.run("true", isolate="uts")
        with record() as inner:
            nslab.run("true", isolate="uts")
        nslab.run("true", isolate="uts")
    assert len(outer) == 3 * len(inner) > 0
    mine = Trace()
    with record(mine) as same:
        nslab.run("true", isolate="uts")
    assert same is mine
    count = len(mine)
    nslab.run("true", isolate="uts")
    assert len(mine) == count, "nothing is recorded after the end"


def test_recording_ends_also_by_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), record() as trace:
        1 // 0
    nslab.run("true", isolate="uts")
    assert len(trace) == 0


def test_what_another_thread_does_is_its_own() -> None:
    with record() as trace:
        thread = threading.Thread(target=lambda: nslab.run("true", isolate="uts"))
        thread.start()
        thread.join()
    assert len(trace) == 0


def test_json() -> None:
    with record() as trace:
        nslab.run("true", isolate="uts", hostname="ü'\"")
    steps = json.loads(trace.to_json())
    assert [step["call"] for step in steps] == calls(trace)
    assert set(steps[0]) == set(Step._fields)


@pytest.mark.unit
def test_it_shows_itself_and_escapes() -> None:
    trace = Trace([Step("write", ("'<b>'",), 3, 0, 0.0, 0.001, 7), Step("mount", (), None, 1, 0.0, 0.0, 7, "a & b")])
    bundle = trace._repr_mimebundle_()
    flags = Trace([Step("unshare", ("CLONE_NEWNS|CLONE_NEWPID",), 0, 0, 0.0, 0.0, 7)])._repr_mimebundle_()
    assert "CLONE_NEWNS|<wbr>CLONE_NEWPID" in flags["text/html"], "where a narrow page may end the line"
    assert "CLONE_NEWNS|CLONE_NEWPID" in flags["text/plain"]
    assert bundle["text/plain"] == "write('<b>') = 3\nmount() = EPERM   [implied: a & b]"
    assert "&lt;b&gt;" in bundle["text/html"]
    assert "a &amp; b" in bundle["text/html"]
    assert repr(trace) == "<Trace of 2 steps, 1 failed>"
    assert Trace()._repr_mimebundle_()["text/plain"] == "(no steps)"
    assert trace[0].call == "write"
    assert [step.call for step in trace[::-1]] == ["mount", "write"]


@pytest.mark.unit
def test_emit_goes_to_every_open_trace() -> None:
    step = Step("x", (), 0, 0, 0.0, 0.0, 1)
    with record() as one, record() as two:
        emit(step)
    emit(step)
    assert list(one) == list(two) == [step]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("call", "raw", "text"),
    [
        ("clone3", (0x10020000,), ("CLONE_NEWNS|CLONE_NEWUSER",)),
        ("unshare", (0,), ("0",)),
        ("unshare", (0x40000001,), ("CLONE_NEWNET|0x1",)),
        ("setns", (4, 0x04000000), ("fd 4", "CLONE_NEWUTS")),
        ("mount", (None, "/", None, 0x44000, None), ("NULL", "'/'", "NULL", "MS_REC|MS_PRIVATE", "NULL")),
        ("umount2", ("/", 2), ("'/'", "MNT_DETACH")),
        ("sethostname", (b"web\xff", 4), ("'web\\udcff'", "4")),
        ("kill", (1, 9), ("1", "SIGKILL")),
        ("prctl", (36, 1), ("PR_SET_CHILD_SUBREAPER", "1")),
        ("setgroups", ((1, 2),), ("[1, 2]",)),
        ("execve", ("/bin/sh", ("sh", "-c")), ("'/bin/sh'", "['sh', '-c']")),
        ("unheard_of", (1, "a"), ("1", "a")),
    ],
)
def test_arguments_are_decoded(call: str, raw: tuple, text: tuple[str, ...]) -> None:
    assert decode.arguments(call, raw) == text
