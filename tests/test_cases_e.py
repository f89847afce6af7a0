"""What goes wrong when processes and namespaces are looked at elsewhere; it goes right here. E01, E02: test_observe.py."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

import nslab
from nslab.model.snapshot import SeenProcess, Snapshot
from tests.helpers import ROOT, eventually

SLEEP = "import sys; print(flush=True); sys.stdin.read()"


def seen(pid: int) -> SeenProcess:
    return nslab.discover(pid, contents=False).by_pid[pid]


@contextlib.contextmanager
def running(*command: str, code: str = SLEEP, **options) -> Iterator[subprocess.Popen]:
    words = command or (sys.executable, "-c", code)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    try:
        if not command:
            process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_e04_processes_that_vanish_during_the_walk() -> None:
    """A shell makes and ends processes as fast as it can while snapshots are taken."""
    with running("sh", "-c", "while :; do /bin/true & /bin/true; wait; done", stderr=subprocess.DEVNULL) as churn:
        for number in range(10):
            snapshot = nslab.discover(contents=number % 2 == 0)
            assert {os.getpid(), churn.pid} <= set(snapshot.by_pid)
            assert all(snapshot.by_id[each] for process in snapshot.processes for each in process.kinds.values())


def test_e05_a_zombie_is_there_without_what_it_has_left() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        zombie = seen(pid)
        assert (zombie.state, zombie.name, zombie.command, zombie.exe) == ("Z", "true", (), "")
        assert zombie.title() == "[true]"
        assert "net" not in zombie.kinds
        assert "user" in zombie.kinds
    finally:
        os.waitpid(pid, 0)


@pytest.mark.requires("initial:pid")
def test_e06_kernel_threads_are_told_from_zombies() -> None:
    thread = seen(2)
    assert (thread.kernel, thread.command, thread.exe, thread.name) == (True, (), "", "kthreadd")
    assert thread.state != "Z"


@pytest.mark.parametrize("name", [") R 1 (x", "a\nb"])
def test_e07_e08_any_name(name: str) -> None:
    code = f"import ctypes; ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0); {SLEEP}"
    with running(code=code) as process:
        assert eventually(lambda: seen(process.pid).state == "S"), "it sleeps in a moment, and its name says R"
        found = seen(process.pid)
        assert (found.name, found.ppid) == (name, os.getpid())
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie has nothing else to be called by
        snapshot = nslab.discover(process.pid, contents=False)
        picture = nslab.draw(snapshot, view="processes")
        for text in (picture.text, picture.svg, *picture._repr_mimebundle_().values(), *snapshot._repr_mimebundle_().values()):
            assert "a\nb" not in text
        assert f"{process.pid} [{name}]".replace("\n", r"\n") in picture.text


def test_e09_command_lines_that_are_not_utf_8() -> None:
    argument = b"\xc3(\xff bad"
    pid = os.posix_spawn(shutil.which("sleep"), [argument, b"1000"], {})
    try:
        found = next(each for each in iter(lambda: seen(pid), None) if each.name == "sleep")
        assert os.fsencode(found.command[0]) == argument
        snapshot = nslab.discover(pid)
        text = snapshot.to_json()
        assert Snapshot.from_json(text).by_pid[pid] == snapshot.by_pid[pid]
        json.loads(text.encode())
        for shown in snapshot._repr_mimebundle_().values():
            shown.encode()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_e10_deleted_executables_and_names_that_say_so(tmp_path) -> None:
    path = str(tmp_path / "sl (deleted)")
    shutil.copy(shutil.which("sleep"), path)
    with running(path, "1000") as process:
        found = next(each for each in iter(lambda: seen(process.pid), None) if each.exe == path)
        assert not found.exe_deleted
        os.unlink(path)
        found = seen(process.pid)
        assert (found.exe, found.exe_deleted) == (path, True)


@pytest.mark.requires("root", "tool:setpriv", "tool:/usr/bin/python3")
def test_e11_hidepid_is_said() -> None:
    """Nobody looks, to whom /proc shows but its own processes; with a copy of nslab that nobody may read."""
    look = "import nslab; s = nslab.discover(contents=False); print(len(s.processes), *map(str, s.unseen), sep='\\n')"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, nslab.process() as steered:
        os.chmod(folder, 0o755)
        shutil.copytree(ROOT / "nslab", f"{folder}/nslab", ignore=shutil.ignore_patterns("__pycache__"))
        steered.unshare("mnt")
        steered.mount("proc", "/proc", "proc", data="hidepid=invisible")
        nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        count, *why = steered.run([*nobody, "/usr/bin/python3", "-c", look], cwd=folder).check().lines
        assert int(count) < len(os.listdir("/proc")) / 2
        assert [line for line in why if "hidepid=invisible" in line] == [
            "processes: /proc is mounted with hidepid=invisible, and does not show those of others"
        ]
        assert not any("hidepid" in each.why for each in nslab.discover(contents=False).unseen)


@pytest.mark.requires("ordinary")
def test_e12_processes_of_others_are_counted_not_left_out() -> None:
    snapshot = nslab.discover(contents=False)
    refused = [each for each in snapshot.processes if not each.kinds and each.state != "Z"]
    assert refused
    assert snapshot.partial
    assert any(each.count >= len(refused) * 0.9 and "of " in each.what for each in snapshot.unseen)
    assert snapshot.by_pid[1].kinds == {}


def test_e14_mounts_with_any_name(tmp_path) -> None:
    place = tmp_path / "a b\tc\nd\\e"
    place.mkdir()
    with nslab.process() as steered:
        steered.unshare("mnt")
        steered.mount("", str(place), "tmpfs")
        with steered.namespaces["mnt"] as mnt:
            content = nslab.discover(steered).by_id[mnt.id].content
        (made,) = [each for each in content.mounts if each.target == str(place)]
        assert made.fstype == "tmpfs"


def test_e15_a_snapshot_is_cheap() -> None:
    """In CPU time and per process, whatever else runs here: a quarter of a millisecond, though three are reported elsewhere."""
    nslab.discover(contents=False)
    before = resource.getrusage(resource.RUSAGE_SELF)
    snapshot = nslab.discover(contents=False)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    things = len(snapshot.processes) + len(snapshot.namespaces) + 100
    assert used / things < 0.001
