"""When a helper dies, or something is forgotten: what a round of tests.crash once found, each as a test of its own."""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import nslab
import nslab.spawner
from nslab import network
from nslab.container.pausing import Frozen
from nslab.ops import InCgroup
from nslab.spawner import channel
from nslab.spawner.report import portable
from nslab.topology import internet
from tests.crash.oracle import Recorded, descendants, name
from tests.helpers import eventually, in_python

pytestmark = pytest.mark.requires("userns")


def helper(wanted: str) -> int:
    """The PID of the spawner ("nslab-spawner"), of the watchdog above it or of the borrowed one below it."""
    nslab.run("true", isolate="uts")
    return next(pid for pid in descendants(os.getpid()) if name(pid) == wanted and pid in nslab.spawner.running_pids())


def kill(pid: int) -> None:
    """Kill it, and return when it is dead."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], 5)[0]
    finally:
        os.close(pidfd)


def works() -> bool:
    return nslab.run("hostname", isolate="uts pid", hostname="again", timeout=10).stdout == "again\n"


@pytest.mark.parametrize("which", ["nslab-spawner", "nslab-watchdog"])
def test_the_very_next_call_has_a_new_spawner(which):
    for _ in range(5):  # the old watchdog lives on for some milliseconds
        old = helper(which)
        kill(old)
        assert works()
        assert old not in nslab.spawner.running_pids()


@pytest.mark.requires("ordinary")
def test_the_end_of_the_borrowed_spawner_is_the_end_of_all():
    old = Recorded(nslab.spawner.running_pids())
    with nslab.Container(isolate="uts") as box:
        kill(helper("nslab-borrowed"))
        with pytest.raises((nslab.DeadNamespace, nslab.SpawnerError)):
            box.run("true")
    assert works()
    assert not old.alive()
    old.close()


@pytest.mark.requires("tool:bash")
@pytest.mark.parametrize("kinds", ["pid mnt", "uts"])
def test_what_is_begun_while_a_command_is_ended_ends_too(kinds):
    """Its shell begins another process for each that ends; in a PID namespace that would be left to the init there."""
    script = "trap 'sleep 1000 &' CHLD; for i in {1..20}; do sleep 1000 & done; echo ready; while :; do wait; done"
    with nslab.Container(isolate=kinds) as box:
        for _ in range(5):
            running = box.popen(["bash", "-c", script])
            assert running.stdout.readline() == b"ready\n"
            running.end()
            assert eventually(lambda: len([*box.processes()]) == 1)  # init, once it has buried the others


def test_a_stepper_that_waits_does_not_hide_the_death_of_the_spawner():
    stepper = nslab.Stepper(isolate="uts", hostname="web")
    kill(helper("nslab-spawner"))
    assert works()
    with pytest.raises((nslab.DeadNamespace, nslab.SpawnerError)):
        stepper.step()
    with pytest.raises((nslab.DeadNamespace, nslab.SpawnerError)):  # and again
        stepper.step()


def test_nothing_enters_a_stepper_before_it_is_finished():
    with nslab.Stepper(isolate="uts time") as stepper:
        with pytest.raises(nslab.SpecError, match="finish"):
            stepper.run("true")
        assert stepper.finish().run("true").returncode == 0


def test_a_forgotten_container_whose_command_failed_is_ended():
    box = nslab.Container(isolate="uts mnt")
    pidfd = os.pidfd_open(box.pid)
    with pytest.raises(nslab.SyscallError):
        box.run("true", cwd="/proc/nowhere")
    del box
    gc.collect()
    ended = select.select([pidfd], [], [], 2)[0]
    os.close(pidfd)
    assert ended


@pytest.mark.parametrize("which", ["nslab-spawner", "nslab-watchdog"])
@pytest.mark.parametrize("where", ["run", "container", "process", "call"])
def test_a_call_in_flight_says_that_the_spawner_died(where, which):
    victim = helper(which)

    def die(*_):
        kill(victim)

    with (
        nslab.Container(isolate="pid uts") as box,
        nslab.process() as process,
        pytest.raises((nslab.DeadNamespace, nslab.SpawnerError)),
    ):
        options = {"command": "echo; exec sleep 1000", "stream": die, "timeout": 5}
        if where == "run":
            nslab.run(isolate="uts", **options)
        elif where == "container":
            box.run(**options)
        elif where == "process":
            process.run(**options)
        else:
            process.call(os.kill, victim, signal.SIGKILL)
            process.run("sleep 1000", timeout=5)
    assert works()


def test_a_process_whose_pid_was_never_heard_ends_all_the_same():
    """As after an interrupt between the call that receives the message and the instruction that keeps it."""
    box = nslab.Container(isolate="uts")
    child = nslab.spawner.ensure().start(box._plan, fds={}, stay=True, borrowed=box._borrowed)
    assert select.select([child.reply], [], [], 5)[0]
    said = [channel.receive(child.reply)[0] for _ in ("made", "ready")]  # in whichever order; nothing more comes
    pidfd = os.pidfd_open(next(value for _, word, value in said if word == "made"))
    begin = time.monotonic()
    child.end()
    assert time.monotonic() - begin < 3
    ended = select.select([pidfd], [], [], 2)[0]
    os.close(pidfd)
    box.close()
    assert ended


SCRIPT = """
import nslab, os, signal
box = nslab.Container(isolate="pid uts")
box.popen("sleep 1000 & setsid sleep 1000")
print(nslab.spawner.running_pids() and "ready", flush=True)
signal.pause()
"""


def test_a_process_that_entered_does_not_delay_the_end():
    """A PID 1 ends only after the members of its namespace are reaped; those that entered are reaped by our helpers."""
    victim = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert victim.stdout.readline() == "ready\n"
    everything = Recorded(descendants(victim.pid))
    assert len(everything.fds) >= 5  # watchdog, spawner, init, supervisor, sleep
    begin = time.monotonic()
    victim.kill()
    victim.wait()
    victim.stdout.close()
    while everything.alive() and time.monotonic() < begin + 2:
        select.select([everything.fds[pid] for pid in everything.alive()], [], [], 0.1)
    took = time.monotonic() - begin
    left = everything.alive()
    everything.close()
    assert not left
    assert took < 0.8  # it was a full second


@pytest.mark.requires("ordinary")
def test_an_interrupt_while_the_user_namespace_is_borrowed_costs_nothing():
    """The one that was being made is forgotten and ends by itself; the spawner lives, and the next one is used."""
    script = """
import nslab, nslab.spawner
spawner, wait_for, forgotten = nslab.spawner.ensure(), nslab.spawner.Child.wait_for, []
def interrupted(self, *args):
    wait_for(self, *args)
    if not forgotten:
        forgotten.append(self)
        raise KeyboardInterrupt
nslab.spawner.Child.wait_for = interrupted
try:
    nslab.run("true", isolate="uts")
except KeyboardInterrupt:
    print("interrupted")
nslab.spawner.Child.wait_for = wait_for
print(wait_for(forgotten[0], lambda: forgotten[0].gone is not None, 5))
print(nslab.run("id -u", isolate="uts").stdout, end="")
print(nslab.spawner.ensure() is spawner)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["interrupted", "True", "0", "True"], done.stderr


def test_a_lab_whose_spawner_has_ended_is_linked_to_nothing_new():
    """Of root nothing keeps the next spawner from it; an ordinary user's has another user namespace."""
    topology = nslab.Topology()
    first = topology.host("first")
    with topology.deploy():
        kill(helper("nslab-spawner"))
        second = topology.host("second")
        if os.geteuid() == 0:
            topology.link(first, second)
            assert topology.ping_all().lost == []
        else:
            with pytest.raises(nslab.SpawnerError, match=r"deploy\(\) makes it again"):
                topology.link(first, second)
    if os.geteuid() != 0:
        topology.link(first, second)
    with topology.deploy() as again:
        assert again.ping_all().lost == []


def test_a_lab_whose_spawner_ends_while_it_is_made_is_undone():
    """Else half of it would belong to the next spawner, and an ordinary user could not run anything in it."""
    old = helper("nslab-spawner")

    def told(done: float) -> None:
        if old in nslab.spawner.running_pids():
            kill(old)

    with pytest.raises(nslab.SpawnerError):
        nslab.Topology.ring(3).deploy(progress=told)
    with nslab.Topology.ring(3).deploy() as lab:
        assert lab.ping_all().lost == []


def test_a_node_whose_spawner_ends_while_it_is_made_is_undone(monkeypatch):
    """Else its network would be of the one and its host name of the next."""
    make = network.create_many

    def made(*given, **more):
        networks = make(*given, **more)
        kill(helper("nslab-spawner"))
        return networks

    with nslab.Topology.single(2).deploy() as lab:
        assert lab["h1"].run("hostname").lines == ["h1"]  # as an ordinary user's: the borrowed one is there
        with monkeypatch.context() as patch:
            patch.setattr(network, "create_many", made)
            with pytest.raises(nslab.SpawnerError, match=r"deploy\(\) makes it again"):
                lab.topology.host("late")
        assert "late" not in lab.networks
        assert lab["h1"].run("hostname").lines == ["h1"]


def test_a_lab_whose_way_out_ended_with_the_spawner_says_which_it_was(monkeypatch):
    """It is the program that is missed first, but nobody can mend that."""

    def ended(self: object, network: object) -> None:
        kill(helper("nslab-spawner"))
        raise nslab.NslabError("slirp4netns ended:")

    monkeypatch.setattr(internet.Uplink, "__init__", ended)
    topology = nslab.Topology()
    topology.link(topology.host("a"), topology.nat("nat", internet=True))
    monkeypatch.setattr(internet, "check", lambda: None)
    with pytest.raises(nslab.SpawnerError):
        topology.deploy()
    monkeypatch.setattr(internet.Uplink, "__init__", lambda *_: (_ for _ in ()).throw(nslab.NslabError("slirp4netns ended:")))
    with pytest.raises(nslab.NslabError, match="slirp4netns ended"):
        topology.deploy()


def test_a_cgroup_that_goes_while_it_is_frozen_is_a_dead_namespace(tmp_path):
    """With its container, that is: a folder as empty as a cgroup that was removed."""
    nowhere = InCgroup(str(tmp_path), "group", "leaf")
    orders: list[bool] = []
    spawner = SimpleNamespace(regroup=lambda *_, freeze, **__: orders.append(freeze))
    with pytest.raises(nslab.DeadNamespace, match="has ended"):
        Frozen(spawner, nowhere, 0, lambda: [os.getpid()], False)
    assert orders == [True, False]


# A spawner that may have few descriptors, and a notebook with as many as it likes.
FEW = """
import functools, resource, subprocess, sys
real = subprocess.Popen
subprocess.Popen = functools.partial(real, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (MANY, MANY)))
import nslab
kept = nslab.Container("kept", isolate="uts", hostname="kept")
subprocess.Popen = real
"""
FULL = """
made = []
try:
    while len(made) < MANY:
        made.append(nslab.Container(isolate="uts"))
except nslab.NslabError as error:
    print("descriptors" in str(error), "ulimit -Hn" in str(error), len(made) > 10)
print(kept.alive and all(each.alive for each in made))
while made:
    made.pop().close()
print(kept.run("hostname").stdout, end="")
"""
ORPHANS = """
fork = "import os, signal\\nfor _ in range(2 * MANY): os.fork() or signal.pause()"
with nslab.Container(isolate="uts") as crowd:
    print(crowd.run([sys.executable, "-c", fork]).returncode, len(crowd.processes()) > 2 * MANY)
print(kept.run("hostname").stdout, end="")
"""
GUESTS = """
from tests.helpers import eventually
with nslab.Container(isolate="pid") as box:
    many = box.popen(["sh", "-c", "i=0; while [ $i -lt 240 ]; do sleep 1000 & i=$((i+1)); done; echo ready; wait"])
    print(many.stdout.readline().decode(), len(box.processes()) > 2 * MANY)
    many.end()
    print(eventually(lambda: len(box.processes()) == 1))
print(kept.run("hostname").stdout, end="")
"""


@pytest.mark.parametrize(
    ("script", "lines"),
    [(FULL, ["True True True", "True", "kept"]), (ORPHANS, ["0 True", "kept"]), (GUESTS, ["ready", " True", "True", "kept"])],
    ids=["full", "orphans", "guests"],
)
def test_a_spawner_with_few_descriptors_lives_on(script: str, lines: list[str]) -> None:
    """What does not fit is refused; a crowd of orphans is larger than the table, one in a container too, and is ended."""
    done = in_python((FEW + script).replace("MANY", "120"))
    assert done.stdout.splitlines() == lines, done.stderr


def test_a_maker_that_nobody_listens_to_says_that_the_spawner_ended():
    out, into = os.pipe()
    os.close(out)
    with pytest.raises(BrokenPipeError) as caught:
        os.write(into, b".")
    os.close(into)
    assert isinstance(portable(caught.value), nslab.SpawnerError)
    refused = nslab.SyscallError("sendto", (), errno.EPIPE)
    assert portable(refused) is refused, "what the kernel answered to what was asked for stays that"
