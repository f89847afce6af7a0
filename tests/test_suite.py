"""The suite itself: who runs what on which Python, and what is printed, handed over and ended where two tiers run."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import suite
from tests.crash import oracle
from tests.helpers import ROOT, eventually, in_python
from tests.tier import Tier

PYTHONS = {Path(sys.executable): "3.11", Path("/other/python"): "3.13"}
HEAD = """
import os, subprocess, sys, tempfile
from pathlib import Path
from tests.lanes import run_in_lanes
from tests.tier import Tier, wait

def tier(name, lane): return Tier(name, "user", "", Path(sys.executable), lane=lane)
"""


def chosen(
    monkeypatch: pytest.MonkeyPatch, *, uid: int = 0, pythons: tuple[Path, ...] = (Path("/other/python"),), **given
) -> list[Tier]:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(suite, "other_pythons", lambda not_run: iter(pythons))
    monkeypatch.setattr(suite, "_version", PYTHONS.__getitem__)
    args = argparse.Namespace(**{"quick": False, "one": False, "tier": None, **given})
    return list(suite.tiers(args, []))


@pytest.mark.unit
@pytest.mark.parametrize("pythons", [(), (Path("/other/python"),)])
def test_every_test_runs_as_each_user_and_on_each_python(monkeypatch, pythons) -> None:
    whole = [tier for tier in chosen(monkeypatch, pythons=pythons) if tier.select == suite.CORE and not tier.files]
    assert {"root", "rootless"} <= {tier.user for tier in whole}
    assert {Path(sys.executable), *pythons} == {tier.python for tier in whole}


@pytest.mark.unit
def test_what_is_crossed_is_there_and_runs_in_all_four_ways(monkeypatch) -> None:
    files = {f"tests/{name}" for name in suite.CROSSED}
    assert not [name for name in files if not (ROOT / name).is_file()]
    ways = {(tier.user, tier.python) for tier in chosen(monkeypatch) if tier.select == suite.CORE and files >= {*tier.files}}
    assert {(user, python) for user in ("root", "rootless") for python in PYTHONS} <= ways


@pytest.mark.unit
def test_who_asks_for_a_tier_gets_all_of_it(monkeypatch) -> None:
    assert not [tier.name for tier in chosen(monkeypatch, tier=["rootless*"]) if tier.files and tier.user != "uml"]


@pytest.mark.unit
def test_an_ordinary_user_runs_everything_in_one_lane(monkeypatch) -> None:
    tiers = [tier for tier in chosen(monkeypatch, uid=1000) if tier.user != "uml"]
    assert {(tier.user, tier.lane, tier.files) for tier in tiers} == {("user", 0, ())}


@pytest.mark.unit
def test_root_s_tiers_are_in_one_lane_but_those_apart(monkeypatch) -> None:
    """What one tier of root makes on the machine another would take for its own."""
    tiers = chosen(monkeypatch)
    assert [tier.name for tier in tiers if tier.user == "root" and tier.lane] == ["taken-out"]
    assert {tier.name for tier in tiers if tier.alone} == {"crash", "crash-rootless"}
    assert {tier.lane for tier in chosen(monkeypatch, one=True)} == {0}


def test_what_each_tier_prints_is_whole_and_in_order(tmp_path) -> None:
    """The one in the second lane is over before the first has come to its second line."""
    script = (
        HEAD
        + f"""
read, write = os.pipe()
def work(tier):
    print("begins:", tier.name, flush=True)
    if tier.name == "a":
        os.read(read, 1)
    subprocess.run(["echo", "ends:", tier.name])
    if tier.name == "b":
        os.write(write, b"x")
    tier.outcomes = {{tier.name: ("passed", "")}}
tiers = [tier("a", 0), tier("b", 1), tier("c", 0)]
run_in_lanes(tiers, Path({str(tmp_path)!r}), work)
print(*(name for each in tiers for name in each.outcomes))
"""
    )
    done = in_python(script)
    lines = [f"{what}: {name}" for name in "abc" for what in ("begins", "ends")]
    assert done.stdout.splitlines() == [*lines, "a b c"], done.stderr


def test_a_lane_that_ends_is_told_and_the_other_goes_on(tmp_path) -> None:
    script = (
        HEAD
        + f"""
def work(tier):
    if tier.lane == 0:
        os._exit(1)
tiers = [tier("a", 0), tier("b", 1), tier("c", 0)]
run_in_lanes(tiers, Path({str(tmp_path)!r}), work)
print(*(each.name for each in tiers if each.problems))
"""
    )
    done = in_python(script)
    assert done.stdout == "a c\n", done.stderr


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL], ids=lambda way: way.name)
def test_who_is_interrupted_ends_all_lanes(tmp_path, way) -> None:
    """A program in each; also where whoever started them is killed, and can tell nobody."""
    program = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("up", flush=True)
signal.sigwait([signal.SIGINT])
print("interrupted", flush=True)
"""
    script = (
        HEAD
        + f"""
def work(tier):
    wait(subprocess.Popen([sys.executable, "-c", {program!r}]), 100)
run_in_lanes([tier("a", 0), tier("b", 1)], Path({str(tmp_path)!r}), work)
"""
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        outputs = [tmp_path / f"{name}.out" for name in "ab"]
        assert eventually(lambda: all(path.exists() and "up" in path.read_text() for path in outputs), 30)
        below = oracle.Recorded(oracle.descendants(run.pid))
        run.send_signal(way)
        assert eventually(lambda: not below.alive(), 30)
        below.close()
    assert [path.read_text().split() for path in outputs] == [["up", "interrupted"]] * 2


def test_a_cgroup_of_a_neighbour_is_not_ours(monkeypatch, tmp_path) -> None:
    """By the PID in its name: of a process elsewhere, of one of ours, of one that has ended, of a session apart."""
    monkeypatch.setattr(oracle.elsewhere, "ours", lambda *_: True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as ours:
        found = []
        for pid in (1, ours.pid, ended.pid, 3_999_999):
            group = tmp_path / f"nslab-{pid}-abc"
            group.mkdir()
            found.append(oracle._can_be_ours(str(group), None))
        assert found == [False, True, True, False]
        ours.stdin.close()
