"""nslab.ipc: what is made, listed and refused; and that nothing of it stays in the machine's own IPC namespace."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import nslab
from nslab import ipc
from tests.helpers import ROOT, eventually

SORTS = {"shm": ipc.SharedMemory, "sem": ipc.Semaphores, "msg": ipc.MessageQueue}


def machine() -> dict[int, int]:
    """The System V objects that /proc shows here, read by hand: their keys, and the ids."""
    lines = [line for sort in SORTS for line in Path(f"/proc/sysvipc/{sort}").read_text().splitlines()[1:]]
    return {int(line.split()[0]) & 0xFFFFFFFF: int(line.split()[1]) for line in lines}


def make_all() -> list[int | str]:
    """One of each, by its key or name; others may make theirs on this machine meanwhile."""
    queue = ipc.PosixQueue.create(f"/nslab-{os.getpid()}-{random.random()}")
    return [*(sort.create().key for sort in SORTS.values()), queue.name]


def left(made: list[int | str]) -> list[int | str]:
    """What is still there of them."""
    return [each for each in made if (exists(each) if isinstance(each, str) else each in machine())]


def exists(name: str) -> bool:
    """Asked of the C library, by opening the queue."""
    fd: int = ctypes.CDLL(None).mq_open(name.encode(), os.O_RDONLY)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


@pytest.mark.requires("tool:ipcs")
def test_the_listing_shows_what_ipcs_shows_and_posix_queues_besides() -> None:
    with nslab.Container(isolate="ipc") as web:
        assert len(web.ipc()) == 0
        assert "nothing" in str(web.ipc())
        segment = web.call(ipc.SharedMemory.create, 0x77, size=10_000)
        web.call(ipc.Semaphores.create, 0xDEADBEEF, values=(1, 2, 3))
        queue = web.call(ipc.PosixQueue.create, "/jobs")
        web.call(queue.send, b"12345")
        shown = ipc.objects(web)
        assert [(each.sort, each.key, each.name, each.size) for each in shown] == [
            ("shm", 0x77, "", 10_000), ("sem", 0xDEADBEEF, "", 3), ("mq", 0, "/jobs", 5),
        ]  # fmt: skip
        by_hand = web.run("ipcs").stdout
        assert f"0x00000077 {segment.id}" in by_hand
        assert "0xdeadbeef" in by_hand
        text, html = (shown._repr_mimebundle_()[form] for form in ("text/plain", "text/html"))
        for word in ("0x77", "10000 bytes", "0xdeadbeef", "3 semaphores", "/jobs", "5 bytes"):
            assert word in text
            assert word in html
        assert repr(segment) == f"<SharedMemory key 0x77, id {segment.id}, size 10000>"
    assert not shown.unseen


def test_what_is_left_at_the_end_is_removed_and_traced() -> None:
    """Its init says that there is something; ipcrm --all says the same in a script."""
    with nslab.Container(isolate="ipc") as empty:
        empty.run("true")
    assert "IPC_RMID" not in str(empty.trace)
    for sort in SORTS.values():
        with nslab.Container(isolate="user ipc") as web:
            made = web.call(sort.create, 0x77)
        last = web.trace[-1]
        assert (last.call, last.args[0], "IPC_RMID" in last.args) == (f"{made.sort}ctl", str(made.id), True)


def test_messages_come_in_order_by_type_and_by_priority() -> None:
    with nslab.Container(isolate="ipc", sysctls={"fs.mqueue.msg_max": 5}) as web:
        queue = web.call(ipc.MessageQueue.create)
        for data, label in ((b"one", 1), (b"two", 2), (b"three", 1)):
            assert web.call(queue.send, data, label)
        assert [web.call(queue.receive, label) for label in (2, 0, 1)] == [b"two", b"one", b"three"]
        assert web.call(queue.receive, wait=False) is None
        jobs = web.call(ipc.PosixQueue.create, "/jobs", max_messages=2, max_size=16)
        sent = [web.call(jobs.send, data, priority, wait=False) for data, priority in ((b"low", 1), (b"high", 9), (b"", 0))]
        assert sent == [True, True, False]
        assert web.call(jobs.waiting) == 2
        assert [web.call(jobs.receive) for _ in range(2)] == [(b"high", 9), (b"low", 1)]
        assert web.call(jobs.receive, wait=False) is None
        with pytest.raises(nslab.SyscallError, match="longer than") as caught:
            web.call(jobs.send, b"x" * 17)
        assert caught.value.name == "EMSGSIZE"
        with pytest.raises(nslab.SyscallError, match=r"msg_max \(5\)"):
            web.call(ipc.PosixQueue.create, "/large", max_messages=6)
        web.call(jobs.remove)
        web.call(queue.remove)
        assert len(web.ipc()) == 0


def test_every_call_is_in_the_trace() -> None:
    with nslab.Container(isolate="ipc") as web:
        with nslab.record() as trace:
            segment = web.call(ipc.SharedMemory.create, 0x77, size=4096)
            web.call(segment.write, b"hello")
        shown = [str(step) for step in trace]
        assert f"shmget(0x77, 4096, IPC_CREAT|IPC_EXCL|0o600) = {segment.id}" in shown
        assert any(step.startswith("shmdt(0x") for step in shown)
        assert [step.call for step in web.trace][-len(trace) :] == [step.call for step in trace]


@pytest.mark.parametrize(
    ("create", "argument"),
    [
        (lambda: ipc.SharedMemory.create(size=0), "size"),
        (lambda: ipc.SharedMemory.create(0), "key"),
        (lambda: ipc.SharedMemory.create(2**32), "key"),
        (lambda: ipc.SharedMemory.create(mode=0o1777), "mode"),
        (lambda: ipc.Semaphores.create(values=()), "values"),
        (lambda: ipc.Semaphores.create(values=(32768,)), "values"),
        (lambda: ipc.PosixQueue.create("jobs"), "name"),
        (lambda: ipc.PosixQueue.create("/a/b"), "name"),
        (lambda: ipc.PosixQueue.create("/" + "x" * 255), "name"),
        (lambda: ipc.PosixQueue.create("/a", max_messages=0), "max_messages"),
    ],
)
def test_bad_input_is_refused_before_the_kernel_is_asked(create, argument: str) -> None:
    with nslab.record() as trace, pytest.raises(nslab.SpecError) as caught:
        create()
    assert caught.value.argument == argument
    assert len(trace) == 0


def test_a_segment_has_its_bounds() -> None:
    with ipc.SharedMemory.create(size=8) as segment:
        segment.write(b"12345678")
        for attempt in (lambda: segment.write(b"x", 8), lambda: segment.read(5, 4), lambda: segment.read(1, -1)):
            with pytest.raises(nslab.SpecError):
                attempt()
        assert segment.read(3, 5) == b"678"
        with segment.attach() as attachment, pytest.raises(TypeError, match="belongs to the process"):
            attachment.__reduce__()
        with pytest.raises(nslab.SpecError, match="detached"):
            attachment.read()


# -- the machine's own IPC namespace ------------------------------------------------------------------------------------------


def test_what_others_made_in_the_machines_namespace_is_not_touched() -> None:
    made = subprocess.run(["ipcmk", "-M", "4096"], capture_output=True, text=True, check=True)
    number = int(made.stdout.split()[-1])
    try:
        key = next(key for key, identity in machine().items() if identity == number)
        with pytest.raises(nslab.Refused, match="touches only what it made"):
            ipc.SharedMemory.open(key)
        with nslab.process() as process:
            stranger = ipc.SharedMemory(key, number, 4096)
            for act in (stranger.read, stranger.remove, lambda: stranger.write(b"x")):
                with pytest.raises(nslab.Refused, match="touches only what it made"):
                    process.call(act)
                with pytest.raises(nslab.Refused, match="touches only what it made"):
                    act()
        with pytest.raises(nslab.Refused, match=r"nslab\.process"):
            nslab.syscalls.shmctl(number, 0)
        with pytest.raises(nslab.SyscallError) as caught:
            ipc.SharedMemory.create(key)
        assert caught.value.name == "EEXIST"
        assert key in machine()
    finally:
        subprocess.run(["ipcrm", "-m", str(number)], check=True)


def test_what_a_steered_process_made_ends_with_it() -> None:
    with nslab.process() as process:
        made = process.call(make_all)
        with process.fork() as child:
            made += child.call(make_all)
        assert left(made) == made, "the process that forked the other is still there"
        assert len(made) == 8
    assert not left(made)


def test_what_a_container_without_an_own_namespace_made_ends_with_it() -> None:
    with nslab.Container(isolate="uts pid") as web, nslab.Container(isolate="uts") as other:
        mine, theirs = web.call(make_all), other.call(make_all)
        assert left(mine + theirs) == mine + theirs
        web.close()
        assert left(mine + theirs) == theirs
    assert not left(theirs)


SCRIPT = """
import json, sys
import nslab
from tests.test_ipc import make_all
process, web = nslab.process(), nslab.Container(isolate="uts")
made = make_all() + process.call(make_all) + web.call(make_all)
print(json.dumps([made, sorted(nslab.spawner.running_pids())]), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("which", ["notebook", "nslab-spawner", "nslab-watchdog"])
def test_nothing_is_left_when_somebody_is_killed(which: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
    ) as victim:
        try:
            assert victim.stdout
            made, helpers = json.loads(victim.stdout.readline())
            assert left(made) == made
            names = {Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in helpers}
            os.kill(names.get(which, victim.pid), signal.SIGKILL)
            assert eventually(lambda: not left(made))
        finally:
            victim.kill()


def test_a_function_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "made"

    def make_and_die() -> None:
        file.write_text(json.dumps(make_all()))
        os.kill(os.getpid(), signal.SIGKILL)

    with nslab.Container(isolate="uts") as web:
        with pytest.raises(nslab.NslabError, match="without an answer"):
            web.call(make_and_die)
        made = json.loads(file.read_text())
        assert left(made) == made
    assert not left(made)
