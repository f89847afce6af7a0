"""What goes wrong in notebooks elsewhere: one test for each case of the list, with its number in the name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
import nslab.spawner
from tests.crash.oracle import Recorded, children, descendants, is_standby, name, state
from tests.helpers import eventually
from tests.notebooks.kernel import Kernel

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.requires("userns")


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with Kernel(tmp_path, cwd=ROOT) as kernel:
        kernel.run("import nslab").ok()
        yield kernel


@pytest.fixture
def notebook_recorded(kernel: Kernel) -> Iterator[Recorded]:
    """Everything below a kernel with a busy lab in it, daemons included."""
    kernel.run(LAB).ok()
    recorded = Recorded(descendants(kernel.pid))
    assert {"nslab-watchdog", "nslab-spawner", "nslab-init", "sleep"} <= {name(pid) for pid in recorded.fds}
    yield recorded
    recorded.close()


LAB = """
import nslab
boxes = [nslab.Container("a", isolate="uts pid mnt ipc"), nslab.Container("b", isolate="uts net")]
for box in boxes:
    box.run("mount -t tmpfs none /mnt; ipcmk -M 4096" if box.name == "a" else "true", check=True)
    box.popen("(setsid sh -c '(sleep 1001 &); exec sleep 1002' &); exec sleep 1003")
    box.run("setsid sleep 1004 >/dev/null 2>&1 &")
p = nslab.process()
p.unshare("uts")
p.fork()
"""


def wait_until_gone(recorded: Recorded, timeout: float = 2) -> set[int]:
    """The processes that are still there after ``timeout`` seconds; zombies of somebody else are gone."""
    deadline = time.monotonic() + timeout
    while (left := {pid for pid in recorded.alive() if state(pid)[0] != "Z"}) and time.monotonic() < deadline:
        time.sleep(0.005)  # polling: a pidfd of somebody else's zombie says nothing new
    return left


def below(pid: int) -> set[int]:
    """The living below a process, but for the child that each spawner keeps ahead: there is another one after each request."""
    return {child for child in descendants(pid) if not is_standby(child) and state(child)[0] != "Z"}


def own_helpers() -> set[int]:
    nslab.run("true", isolate="uts")
    return nslab.spawner.running_pids()


def leftovers() -> set[int]:
    """The processes that are still below this one after a while, but for nslab's helpers."""
    eventually(lambda: below(os.getpid()) <= nslab.spawner.running_pids())
    return below(os.getpid()) - nslab.spawner.running_pids()


# -- the kernel process -----------------------------------------------------------------------------------------------


@pytest.mark.notebook
def test_c01_a_kernel_with_threads_makes_user_namespaces(kernel):
    code = """
    import os, nslab
    print(len(os.listdir("/proc/self/task")) > 1)
    with nslab.Container(isolate="user uts", hostname="web") as web:
        print(web.run("id -u; hostname", check=True).stdout, end="")
    """
    inside = kernel.run(code.replace("\n    ", "\n")).ok()
    assert inside.stdout == "True\n0\nweb\n"
    plain = subprocess.run([sys.executable, "-c", code.replace("\n    ", "\n")], capture_output=True, text=True)
    assert (plain.stdout, plain.stderr) == ("False\n0\nweb\n", "")


@pytest.mark.notebook
def test_c05_the_kernel_cannot_unshare_itself(kernel):
    before = kernel.run("import os; print(sorted((k, os.readlink(f'/proc/self/ns/{k}')) for k in os.listdir('/proc/self/ns')))")
    refused = kernel.run("nslab.syscalls.unshare(0x20000000)")  # CLONE_NEWPID: from there on, no child could be made
    assert refused.error == "Refused"
    assert "nslab.process()" in refused.message
    assert kernel.run("!echo ok").ok().stdout.split() == ["ok"]
    after = kernel.run("import os; print(sorted((k, os.readlink(f'/proc/self/ns/{k}')) for k in os.listdir('/proc/self/ns')))")
    assert before.stdout == after.stdout != ""


@pytest.mark.notebook
def test_c06_streamed_output_comes_once_in_order_and_apart(kernel):
    command = "echo A; echo B >&2; sleep 0.1; echo C; printf D; echo E >&2"
    before = kernel.terminal_text()
    for run in (
        f"nslab.run({command!r}, isolate='uts', stream=True)",
        f"nslab.Container(isolate='uts').run({command!r}, stream=True)",
        f"nslab.process().run({command!r}, stream=True)",
    ):
        cell = kernel.run(f"result = {run}").ok()
        assert (cell.stdout, cell.stderr) == ("A\nC\nD", "B\nE\n")
        assert cell.chunks[-1] != ("stdout", "A\n"), "it came at the end, in one piece"
        shown = kernel.run("result").ok()
        assert "A" not in shown.data[0]["text/plain"]  # not a second time when the cell ends with it
        assert kernel.run("print(result.stdout, result.stderr, sep='|')").stdout == "A\nC\nD|B\nE\n\n"
    assert kernel.terminal_text() == before


@pytest.mark.notebook
def test_c06_what_a_function_prints_comes_once(kernel):
    code = "nslab.Container(isolate='uts').call(lambda: print('inside') or __import__('sys').stderr.write('aside\\n'))"
    before = kernel.terminal_text()
    cell = kernel.run(f"length = {code}").ok()
    assert (cell.stdout, cell.stderr) == ("inside\n", "aside\n")
    assert kernel.terminal_text() == before


@pytest.mark.notebook
@pytest.mark.parametrize("now", [False, True])
def test_c08_a_restart_leaves_nothing(kernel, notebook_recorded, now):
    kernel.restart(now=now)
    assert wait_until_gone(notebook_recorded) == set()
    assert children(kernel.pid) == []
    again = kernel.run("import nslab; print(nslab.run('hostname', isolate='uts', hostname='new').stdout)")
    assert again.ok().stdout == "new\n\n"


@pytest.mark.notebook
def test_c09_a_killed_kernel_leaves_nothing(kernel, notebook_recorded):
    os.kill(kernel.pid, signal.SIGKILL)
    assert wait_until_gone(notebook_recorded) == set()


@pytest.mark.notebook
@pytest.mark.parametrize("end", ["restart", "kill", "shutdown"])
def test_c12_the_end_does_not_depend_on_atexit(tmp_path, end):
    with Kernel(tmp_path, cwd=ROOT) as kernel:
        kernel.run("import atexit\natexit.register = lambda function, *a, **k: function").ok()
        kernel.run(LAB).ok()
        kernel.run("atexit._clear()").ok()
        recorded = Recorded(descendants(kernel.pid))
        assert len(recorded.fds) > 10
        if end == "restart":
            kernel.restart()
        elif end == "kill":
            os.kill(kernel.pid, signal.SIGKILL)
        else:
            kernel.shutdown(now=False)
        assert wait_until_gone(recorded) == set()
        recorded.close()


# -- the stop button --------------------------------------------------------------------------------------------------

BLOCKING = {
    "run": "nslab.run({command!r}, isolate='uts pid', stream=True)",
    "run of a machine's": "nslab.run({command!r}, stream=True)",
    "container": "web.run({command!r}, stream=True)",
    "process": "p.run({command!r}, stream=True)",
    "popen": "print('started'); web.popen('exec sleep 1000').wait()",
    "call": "web.call(lambda: (print('started', flush=True), __import__('time').sleep(1000)))",
}


@pytest.mark.notebook
@pytest.mark.parametrize("what", BLOCKING)
def test_the_stop_button(kernel, what):
    kernel.run("web = nslab.Container(isolate='uts', hostname='web'); p = nslab.process()").ok()
    quiet = below(kernel.pid)
    command = "echo started; (setsid sleep 1001 &) ; sleep 1000"
    cell = kernel.begin(BLOCKING[what].format(command=command))
    assert kernel.finish(cell, until="started").stdout.startswith("started")
    came = Recorded(below(kernel.pid) - quiet)
    kernel.interrupt()
    assert kernel.finish(cell, timeout=5).error == "KeyboardInterrupt"
    if what == "popen":
        kernel.run("web.close(); web = nslab.Container(isolate='uts', hostname='web')").ok()  # it goes on until it is ended
    assert wait_until_gone(came) == set()
    came.close()
    if what != "popen":
        assert below(kernel.pid) == quiet
    again = kernel.run(
        "print(web.run('hostname').stdout, web.call(lambda: 7), p.run('echo p').stdout, nslab.run('echo r').stdout)"
    )
    assert again.ok().stdout.split() == ["web", "7", "p", "r"]


# -- the library, in any process --------------------------------------------------------------------------------------


def test_c03_the_helpers_ignore_ctrl_c():
    """They are in a session of their own, and a SIGINT sent to each of them changes nothing."""
    helpers = own_helpers()
    assert len(helpers) >= 2
    for pid in helpers:
        assert os.getsid(pid) != os.getsid(0)
        os.kill(pid, signal.SIGINT)
    with nslab.Container(isolate="uts") as box:
        os.kill(box.pid, 0)
        begin = time.monotonic()
    assert time.monotonic() - begin < 1
    assert own_helpers() == helpers


def test_c03_they_are_reaped_within_a_second_of_the_end():
    helpers = Recorded(own_helpers())
    begin = time.monotonic()
    nslab.spawner.shutdown()
    assert time.monotonic() - begin < 1
    assert not helpers.alive()
    assert not [pid for pid in children(os.getpid()) if pid in helpers.fds]  # no zombie either
    helpers.close()


def boom() -> None:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    "function, error, match",
    [
        (boom, RuntimeError, "boom"),
        (lambda: sys.exit(3), SystemExit, "3"),
        (lambda: os._exit(3), nslab.NslabError, "without an answer"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), nslab.NslabError, "without an answer"),
        (threading.Lock, nslab.NslabError, "sent back"),
    ],
)
def test_c04_a_function_that_runs_inside_ends_there(function, error, match):
    own_helpers()
    with nslab.Container(isolate="uts") as box:
        with pytest.raises(error, match=match) as caught:
            box.call(function)
        if function is boom:
            assert "in boom" in "".join(caught.value.__notes__)  # where it happened
        assert box.call(os.getppid) not in (0, os.getpid())
    assert leftovers() == set()


def test_c04_a_fork_that_returns_does_not_go_on_inside():
    """The child of the function, which raises, is not taken for the function and takes no orders."""

    def forks():
        if os.fork() == 0:
            raise RuntimeError("in the child")
        return os.wait()[1] != 0

    own_helpers()
    with nslab.Container(isolate="uts") as box:
        assert box.call(forks) is True
    with nslab.process() as process:
        assert process.call(forks) is True
        assert process.run("echo still here").stdout == "still here\n"
    assert leftovers() == set()


def test_c16_from_a_thread():
    code = """
import signal, threading
before = {number: signal.getsignal(number) for number in signal.valid_signals()}
answers = []
def use():
    import nslab
    with nslab.Container(isolate="uts", hostname="web") as web:
        answers.append(web.run("hostname").stdout)
    answers.append(nslab.process().getpid() > 0)
thread = threading.Thread(target=use)
thread.start(); thread.join()
print(answers, before == {number: signal.getsignal(number) for number in signal.valid_signals()})
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (result.stdout, result.stderr) == ("['web\\n', True] True\n", "")


def test_c17_a_program_that_reads_meets_the_end_of_its_input():
    with nslab.Container(isolate="uts") as box, nslab.process() as process:
        for run in (nslab.run, box.run, process.run):
            assert run("cat", timeout=10).returncode == 0
            assert run("readlink /proc/self/fd/0", timeout=10).stdout == "/dev/null\n"
            assert run("test -t 0 || test -t 1 || test -t 2", timeout=10).returncode == 1
        for run in (nslab.run, box.run):
            assert run("test -t 0 && test -t 1 && test -t 2", tty=True, timeout=10).returncode == 0
            assert run("tty", tty=True, timeout=10).stdout.startswith("/dev/")


def test_c18_a_flood_is_cut():
    limit = 1 << 20
    own_helpers()
    before = resident()
    result = nslab.run("head -c 1G /dev/zero", isolate="uts", text=False, timeout=100)
    assert len(result.stdout) == limit
    assert result.truncated and result.omitted == (1 << 30) - limit
    assert f"{result.omitted} bytes omitted" in str(result)[-100:]
    assert peak() - before < 8 << 20  # the first MiB, and what Python keeps while it grows


def test_c18_what_is_shown_is_cut_too(capsys):
    """A cell gets the first MiB of each stream, cut at a whole character, and one line that says so; a function gets all."""
    flood, limit = "yes ü | head -c 3000000; yes | head -c 3000000 >&2", 1 << 20
    with nslab.Container(isolate="uts") as box, nslab.process() as process, box.namespaces["uts"] as uts:
        for run in (nslab.run, box.run, process.run, uts.run):
            result = run(flood, stream=True, timeout=60)
            shown = capsys.readouterr()
            for text, name, line in ((shown.out, "stdout", "ü\n"), (shown.err, "stderr", "y\n")):
                body, said, after = text.partition(f"\n[{name}: {limit} bytes shown, the rest omitted]\n")
                assert said and not after and limit - 4 <= len(body.encode()) <= limit
                assert set(body.split("\n")) <= {line.strip(), ""}
            assert result.omitted == 2 * (3000000 - limit)
            run("printf 12345; printf 12 >&2", stream=True, max_output=2)
            assert capsys.readouterr() == ("12\n[stdout: 2 bytes shown, the rest omitted]\n", "12")
        box.call(lambda: print("x" * 3000000))
        assert len(capsys.readouterr().out) < limit + 100
        pieces = []
        nslab.run(flood, stream=lambda text, name: pieces.append(text))
        assert len("".join(pieces).encode()) == 6000000


def resident() -> int:
    """Bytes of memory in use; and start to count the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


C19 = """
import threading, nslab, os
for _ in range(2):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
with nslab.Container(isolate="uts", hostname="web") as web:
    assert web.run("hostname").stdout == "web\\n"
    assert web.call(os.uname).nodename == "web"
    web.popen("true").wait()
p = nslab.process()
p.fork()
nslab.run("true", isolate="uts pid")
print("fine")
"""


@pytest.mark.requires(*(() if sys.version_info >= (3, 12) else ("python:3.13",)))
def test_c19_no_fork_in_a_process_with_threads(tmp_path):
    from tests.suite import find_python

    python = sys.executable if sys.version_info >= (3, 12) else find_python("3.13")
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    result = subprocess.run(
        [python, "-W", "error::DeprecationWarning", "-c", C19], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("fine\n", "")
