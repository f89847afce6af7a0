"""A short run of tests.crash, and what its oracle sees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid

import pytest

from tests.crash.oracle import MARK, Oracle, Recorded, descendants, marked, system_v
from tests.crash.rounds import WAYS
from tests.elsewhere import AS_NOBODY, NOBODY
from tests.helpers import in_python

ROUNDS = len(WAYS)  # each way once


@pytest.mark.crash
@pytest.mark.timeout(300)
@pytest.mark.requires("userns", "tool:ipcmk", "tool:lsns", "tool:setpriv", "tool:unshare")
def test_nothing_is_left_whatever_dies():
    run = subprocess.Popen([sys.executable, "-m", "tests.crash", str(ROUNDS), "--json"], stdout=subprocess.PIPE, text=True)
    try:
        answer = json.loads(run.communicate()[0])
    finally:
        if run.poll() is None:
            run.terminate()  # it ends what it has started
            run.wait()
    assert not answer["bad"], json.dumps([answer["seed"], *answer["bad"]], indent=1)
    total = answer["ways"][-1]
    assert total["rounds"] == ROUNDS and total["left"] == total["machine"] == 0 and total["slowest_ms"] <= 2000
    assert total["processes"] > 3, "there was nothing to clean up"
    assert run.returncode == 0


@pytest.mark.crash
@pytest.mark.requires("userns", "tool:lsns", "tool:setpriv")
def test_ctrl_c_ends_what_a_round_has_started():
    run = subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.crash", "100", "--way", "script: SIGKILL"], stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while "1/100" not in run.stdout.read(1 << 6):  # a round is over, and the next one begins
        assert run.poll() is None
    recorded = Recorded(descendants(run.pid))
    run.send_signal(signal.SIGINT)
    assert "interrupted" in run.communicate(timeout=20)[0]
    assert run.returncode == 1
    left = recorded.alive()
    recorded.close()
    assert not left


@pytest.mark.crash
@pytest.mark.timeout(300)
@pytest.mark.requires("tool:linux.uml", "tool:slirp4netns", "tool:lsns")
def test_nothing_is_left_of_a_kernel_that_was_killed_while_it_started():
    run = subprocess.run([sys.executable, "-m", "tests.crash.own", "10"], capture_output=True, text=True)
    assert " 0 bad" in run.stdout and run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def oracle(tmp_path):
    oracle = Oracle(uuid.uuid4().hex, tmp_path)
    yield oracle
    oracle.recorded.close()


def test_the_oracle_sees_a_marked_process(oracle):
    """Below this process and elsewhere, by the mark alone."""
    env = {**os.environ, MARK: oracle.mark}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env=env) as cat:
        assert marked(oracle.mark) == {cat.pid}
        assert any(f"process {cat.pid} (cat)" in line for line in oracle.left(set()))
        assert not any(f"process {cat.pid} " in line for line in oracle.left({cat.pid}))
        cat.stdin.close()
    assert marked(oracle.mark) == set()


def test_the_oracle_sees_a_process_that_was_recorded(oracle):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={}) as cat:
        oracle.record()
        assert cat.pid in oracle.processes(set())
        cat.stdin.close()
    assert cat.pid not in oracle.processes(set())


@pytest.mark.requires("userns", "tool:lsns")
def test_the_oracle_sees_a_namespace(oracle):
    """Of a process that is let pass: as if it had no process any more."""
    command = ["unshare", "--user", "--uts", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        cat.stdin.write(b"x\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"x\n"
        own = os.readlink(f"/proc/{cat.pid}/ns/uts")
        assert own in oracle.look(set())["namespace"] - oracle.before["namespace"]
        cat.stdin.close()
    assert own not in oracle.look(set())["namespace"]


def test_the_oracle_sees_files_and_what_the_machine_lists(oracle, monkeypatch):
    ours = descendants(os.getpid())  # the helpers of these tests
    assert oracle.left(ours) == []
    (oracle.temporary / "left").touch()
    assert oracle.left(ours) == [f"file {oracle.temporary}/left"]
    (oracle.temporary / "left").unlink()
    for what, name in (("mount", "mounts"), ("cgroup", "cgroups"), ("System V object", "system_v")):
        before = sorted(oracle.before[what])
        with monkeypatch.context() as patch:
            patch.setattr(f"tests.crash.oracle.{name}", lambda *_, before=before: [*before, "new"])
            assert oracle.left(ours) == [f"{what} new"]


@pytest.mark.requires("root", "tool:ipcmk", "tool:setpriv")
def test_what_nobody_makes_is_not_taken_for_root_s():
    """The tests of both may run at once."""
    made = []
    for who in ([], AS_NOBODY):
        said = subprocess.run([*who, "ipcmk", "--shmem", "1"], capture_output=True, text=True, check=True).stdout
        made.append(said.split()[-1])
    try:
        seen = [{line.split()[-1] for line in system_v(user)} for user in (None, 0, NOBODY)]
        assert [made[0] in ids for ids in seen] == [True, True, False]
        assert [made[1] in ids for ids in seen] == [False, False, True]
    finally:
        subprocess.run(["ipcrm", "--shmem-id", made[0], "--shmem-id", made[1]], check=True)


@pytest.mark.requires("userns")
def test_what_is_ended_may_remove_what_is_no_process():
    """A round that is broken off: the helpers of the victim have time for its System V objects."""
    victim = "import nslab, time; from nslab import ipc; box = nslab.Container(isolate='uts')\n"
    victim += "print(box.call(ipc.SharedMemory.create).id, flush=True); time.sleep(1000)"
    script = f"""
import subprocess, sys
from tests.crash.oracle import become_subreaper, descendants, end_everything
become_subreaper()
victim = subprocess.Popen([sys.executable, "-c", {victim!r}], stdout=subprocess.PIPE, text=True)
print(victim.stdout.readline().strip())
end_everything(victim.poll)
print(*descendants(victim.pid))
"""
    made, left = in_python(script).stdout.splitlines()
    assert made
    assert not left
    assert made not in [line.split()[-1] for line in system_v() if line.startswith("shm")]
