"""The command line, as a person uses it: in a process of its own, with pipes or in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab.cli import VERBS, run
from nslab.container import limits, listing
from nslab.model import KINDS
from nslab.model.words import readable
from tests.helpers import ROOT, eventually, link

COMMAND = [sys.executable, "-m", "nslab.cli"]


def cli(*words: str, **options) -> subprocess.CompletedProcess[str]:
    options = {"input": "", "timeout": 30, "cwd": ROOT, **options}
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, **options)


@contextlib.contextmanager
def in_terminal(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command line in a terminal of its own, of 33 rows and 77 columns: the process, and the keyboard and screen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    # A session of its own, whose terminal this is: the line discipline then has a foreground group, as in a real one.
    script = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, close_fds=True
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        process.kill()
        process.wait()
        os.close(master)


def screen(master: int, until: bytes, seconds: float = 10) -> bytes:
    """What the terminal shows, up to and with ``until``."""
    shown = b""
    deadline = time.monotonic() + seconds
    while until not in shown:
        assert select.select([master], [], [], deadline - time.monotonic())[0], shown
        shown += os.read(master, 4096)
    return shown


# -- nslab run --------------------------------------------------------------------------------------------------------


def test_run_isolates_and_passes_streams_and_status_on() -> None:
    script = "hostname; readlink /proc/self/ns/uts; cat; echo oops >&2; exit 3"
    done = cli("run", "-i", "uts user", "--hostname", "web", "--", "sh", "-c", script, input="given\n")
    name, uts, given = done.stdout.splitlines()
    assert (name, given, done.stderr, done.returncode) == ("web", "given", "oops\n", 3)
    assert uts != link("uts")


def test_run_isolates_every_kind_unless_told() -> None:
    done = cli("run", "sh", "-c", f"cd /proc/self/ns; for kind in {' '.join(KINDS)}; do readlink $kind; done")
    assert not {link(kind) for kind in KINDS} & set(done.stdout.split())
    assert len(done.stdout.split()) == len(KINDS)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--", "sh", "-c", "kill -9 $$"], 137, ""),
        (["--timeout", "0.2", "sleep", "60"], 124, "still running after 0.2 s"),
        (["-i", "bogus", "true"], 125, "no kind of namespace"),
        (["no-such-program"], 127, "no program 'no-such-program'"),
        (["/no/such/program"], 127, "no program '/no/such/program'"),
        (["--cwd", "/etc", "./passwd"], 126, "not an executable file"),
        (["/tmp"], 126, "'/tmp'"),
        ([""], 127, "is empty"),
        (["--clock", "monotonic", "true"], 2, "monotonic=+1d"),
        (["--uid-map", "0:x:1", "true"], 2, "0:1000:1"),
        (["--join", "net=nobody-has-this-name", "true"], 125, "no container"),
        (["--rootfs", "/no/such/folder", "true"], 125, "rootfs"),
    ],
)
def test_run_says_how_it_ended(words, status, said) -> None:
    done = cli("run", *words)
    assert done.returncode == status
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.requires("tool:busybox", "userns")
@pytest.mark.parametrize("options", [["--rootfs", "busybox"], ["--rootfs", "busybox", "--hardened"], ["--user", "0"]], ids=str)
def test_the_status_says_that_a_program_cannot_be_started(options) -> None:
    for command, status in (("nslab-none", 127), ("/etc/nslab-none", 127), ("/etc/passwd", 126), ("/etc", 126)):
        done = cli("run", *options, "--", command)
        assert done.returncode == status, done.stderr
        assert command in done.stderr


def test_run_takes_maps_and_clocks() -> None:
    own = f"0:{os.geteuid()}:1"
    done = cli(
        "run", "-i", "user time", "--uid-map", own, "--clock", "monotonic=+1d", "--", "cat", "/proc/self/uid_map",
        "/proc/self/timens_offsets",
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    assert (lines[0][0], lines[0][2]) == ("0", "1")
    assert ["monotonic", "86400", "0"] in lines


def test_run_shows_what_was_done_on_standard_error() -> None:
    done = cli("run", "-i", "uts", "--hostname", "web", "--trace", "--shell", "hostname")
    assert done.stdout == "web\n"
    assert "sethostname('web', 3) = 0" in done.stderr
    assert "hostname web" in done.stderr


def test_run_passes_signals_on() -> None:
    script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*COMMAND, "run", "sh", "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "told\n"
    assert process.returncode == 7


def test_run_leaves_nothing_when_it_is_killed() -> None:
    with subprocess.Popen([*COMMAND, "run", "sh", "-c", "echo; exec sleep 987"], stdout=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.readline()
        below = [int(pid) for pid in _below(process.pid)]
        process.kill()
    assert below
    assert eventually(lambda: not [pid for pid in below if os.path.exists(f"/proc/{pid}") and not _is_zombie(pid)])


def _below(pid: int) -> list[str]:
    found = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return found + [deeper for child in found for deeper in _below(int(child))]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.requires("tool:busybox")
def test_run_has_a_root_filesystem_and_mounts_of_its_own(tmp_path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "note").write_text("given")
    done = cli(
        "run", "--rootfs", "busybox", "--mount", f"{tmp_path}:/given:ro", "--", "sh", "-c", "cat /given/note; echo; ls /"
    )
    note, *names = done.stdout.split()
    assert note == "given", done.stderr
    assert "boot" not in names


def test_run_hardened() -> None:
    done = cli("run", "--hardened", "grep", "Seccomp:", "/proc/self/status")
    assert done.stdout.split() == ["Seccomp:", "2"], done.stderr


def test_the_examples_of_limit_in_its_help_are_what_limits_takes() -> None:
    examples = re.findall(r"\w+=[\w.]*\w", _help_of("limit"))
    written = dict(limits.checked(run._limits(examples)).values())
    assert written == {"pids.max": "50", "memory.max": str(256 << 20), "cpu.max": "50000 100000"}
    for word in ("pids=2", "pids=many", "cpu=nan", "cpu=half", "memory=1.5G"):
        with pytest.raises(nslab.SpecError):
            limits.checked(run._limits([word]))


def _help_of(option: str) -> str:
    hint = inspect.signature(run.run, eval_str=True).parameters[option].annotation
    return hint.__metadata__[0].help


@pytest.mark.uml
@pytest.mark.requires("cgroup2:pids+memory+cpu", "root")
def test_run_is_limited() -> None:
    words = [word for example in re.findall(r"\w+=[\w.]*\w", _help_of("limit")) for word in ("--limit", example)]
    done = cli("run", *words, "--", "sh", "-c", "cd /sys/fs/cgroup/nslab-*/*/; cat pids.max memory.max cpu.max")
    assert done.stdout.splitlines() == ["50", str(256 << 20), "50000 100000"], done.stderr


def test_run_joins_a_container_by_name() -> None:
    with nslab.Container("net-owner", isolate="net") as owner:
        done = cli("run", "--join", "net=net-owner", "readlink", "/proc/self/ns/net", "/proc/self/ns/uts")
        net, uts = done.stdout.split()
        assert net == link("net", owner.pid)
        assert uts != link("uts")


# -- in a terminal ----------------------------------------------------------------------------------------------------


def test_case_d10_run_in_a_terminal_has_one_of_its_own() -> None:
    """A usable shell: the size of the terminal, a prompt, Ctrl-C for what runs inside; and no descriptor of ours."""
    with in_terminal("run", "-i", "user uts pid mnt", "--", "sh") as (process, master):
        screen(master, b"# ")
        os.write(master, b"stty size; echo $((6*7)) ends\r")
        shown = screen(master, b"42 ends")
        assert b"33 77" in shown
        os.write(master, b"sh -c 'echo $((3*3)) waits; exec sleep 600'\r")
        screen(master, b"9 waits")
        os.write(master, b"\x03")
        screen(master, b"# ")
        os.write(master, b"echo $((5*5)) again\r")
        screen(master, b"25 again")
        held = {os.readlink(fd) for pid in _inside(process.pid) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        terminals = {name for name in held if name.startswith("/dev/pts/")}
        assert terminals, "it has one"
        assert f"/dev/pts/{_number(master)}" not in terminals
        os.write(master, b"exit 5\r")
        assert process.wait(10) == 5


@pytest.mark.requires("tool:busybox", "userns")
def test_a_terminal_in_another_root_has_a_name_and_the_size_of_this_one() -> None:
    with in_terminal("run", "--rootfs", "busybox", "--", "sh") as (process, master):
        screen(master, b"# ")
        os.write(master, b"unset LINES COLUMNS; tty; stty size; echo $((6*7)) ends\r")
        shown = screen(master, b"42 ends")
        assert b"/dev/pts/0\r\n33 77\r\n" in shown
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
        os.write(master, b"sh -c 'echo $((3*3)) waits; exec sleep 600'\r")
        screen(master, b"9 waits")
        os.write(master, b"\x03")
        screen(master, b"# ")
        os.write(master, b"stty size; exit 5\r")
        screen(master, b"44 99")
        assert process.wait(10) == 5


def _inside(pid: int) -> list[str]:
    """What runs in namespaces of its own below the command line."""
    found = []
    for each in _below(pid):
        with contextlib.suppress(OSError):  # it has ended, or lent its memory for a moment
            found += [each] if link("uts", each) != link("uts") else []
    return found


def _number(master: int) -> int:
    return struct.unpack("i", fcntl.ioctl(master, 0x80045430, bytes(4)))[0]  # TIOCGPTN


def test_the_terminal_is_as_it_was_afterwards() -> None:
    with in_terminal("run", "-i", "user uts", "--", "sh", "-c", "echo ready; read line") as (process, master):
        before = termios.tcgetattr(master)
        screen(master, b"ready")
        assert termios.tcgetattr(master) != before, "raw meanwhile"
        os.write(master, b"\r")
        assert process.wait(10) == 0
        assert termios.tcgetattr(master) == before


def test_a_larger_window_is_told() -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    with in_terminal("run", "-i", "user", "--", "sh", "-c", script) as (process, master):
        screen(master, b"ready")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
        screen(master, b"44 99")
        assert process.wait(10) == 0


# -- nslab ls and nslab exec ------------------------------------------------------------------------------------------


def test_ls_and_exec_find_a_container_of_another_process() -> None:
    kinds = ("uts", "pid", "mnt")
    with nslab.Container("a shop", isolate=kinds, hostname="shop") as shop:
        (row,) = [row for row in json.loads(cli("ls", "--json").stdout)["containers"] if row["pid"] == shop.pid]
        assert row["name"] == "a shop"
        assert set(row["kinds"]) == set(kinds)
        assert row["owner"] == os.getpid()
        assert row["uid"] == os.geteuid()
        assert abs(row["started"] - time.time()) < 30
        done = cli("exec", "a shop", "--", "sh", "-c", "hostname; cat; readlink /proc/self/ns/pid; exit 4", input="in\n")
        assert done.stdout.split() == ["shop", "in", link("pid", shop.pid)]
        assert done.returncode == 4
    assert shop.pid not in [row["pid"] for row in json.loads(cli("ls", "--json").stdout)["containers"]]
    assert "no container 'a shop'" in cli("exec", "a shop", "true").stderr


def test_exec_ends_with_the_status_of_its_own_failures() -> None:
    with nslab.Container("web", isolate="mnt user") as web:
        commands = {"nslab-none": 127, "/etc/passwd": 126, "/etc": 126}
        assert {command: cli("exec", str(web.pid), command).returncode for command in commands} == commands
        assert cli("exec", str(web.pid), "--").returncode != 0
        assert "Traceback" not in cli("exec", str(web.pid), "--").stderr
        assert cli("exec", "nobody-has-this-name", "true").returncode == 125


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred\ttab", "[bold]\udc80"])
def test_a_name_stays_on_its_line_of_the_table_and_is_only_text(name: str) -> None:
    with nslab.Container(name, isolate="uts") as made:
        shown = cli("ls", env={**os.environ, "COLUMNS": "200"}).stdout
        (row,) = [line for line in shown.splitlines() if str(made.pid) in line.split()]
        assert row.startswith(readable(name))
        assert row.isprintable()
        with pytest.raises(nslab.SpecError) as caught:
            listing.find("nobody-has-this-name")
        assert readable(name) in str(caught.value) and str(caught.value).isprintable()
        shown = json.loads(cli("ls", "--json").stdout)["containers"]
        assert [each["name"] for each in shown if each["pid"] == made.pid] == [name]


def test_a_hardened_container_is_marked_and_entered_hardened() -> None:
    with nslab.Container("tight", hardened=True) as tight, nslab.Container("loose", isolate="uts") as loose:
        hardened = {each.pid: each.hardened for each in listing.listed()}
        assert (hardened[tight.pid], hardened[loose.pid]) == (True, False)
        done = cli("exec", str(tight.pid), "grep", "-E", "Seccomp:|NoNewPrivs|CapBnd", "/proc/self/status")
        inside = tight.run(["grep", "-E", "Seccomp:|NoNewPrivs|CapBnd", "/proc/self/status"]).stdout
        assert done.stdout == inside, done.stderr
        assert "Seccomp:\t2" in inside


def test_exec_in_a_terminal() -> None:
    with nslab.Container("web", isolate="uts pid mnt user", hostname="web") as web:
        with in_terminal("exec", str(web.pid), "sh") as (process, master):
            screen(master, b"# ")
            os.write(master, b"hostname; exit 9\r")
            screen(master, b"web\r\n")
            assert process.wait(10) == 9
        assert web.alive


def test_two_of_one_name_are_told_apart_by_pid() -> None:
    with nslab.Container("twin") as one, nslab.Container("twin") as other:
        with pytest.raises(nslab.SpecError, match=", ".join(map(str, sorted((one.pid, other.pid))))):
            listing.find("twin")
        assert listing.find(str(other.pid)).pid == other.pid


def test_a_process_that_only_calls_itself_so_is_not_listed() -> None:
    """Inside a container anybody can name a chain of processes as nslab does."""
    forged = (
        "import ctypes, os, time\n"
        "def name(word): ctypes.CDLL(None).prctl(15, word, 0, 0, 0)\n"
        "for word in (b'owner', b'nslab-watchdog', b'nslab-spawner', b'nslab-init'):\n"
        "    name(word)\n"
        "    if word != b'nslab-init' and os.fork(): os.wait(); os._exit(0)\n"
        "print(flush=True); time.sleep(60)\n"
    )
    with nslab.Container("real", isolate="pid") as real:
        running = real.popen(["/usr/bin/python3", "-c", forged])
        running.stdout.readline()
        assert [each.pid for each in listing.listed() if each.owner == os.getpid()] == [real.pid]
        forgers = {running.pid, *map(int, _below(running.pid))}
        assert len(forgers) == 4
        assert not forgers & {pid for each in listing.listed() for pid in (each.pid, each.owner)}


# -- nslab doctor -----------------------------------------------------------------------------------------------------


def test_draw_writes_the_file_that_is_asked_for(tmp_path) -> None:
    with nslab.Container("drawn", isolate="uts pid", hostname="drawn"):
        done = cli("draw", "-o", f"{tmp_path}/map.svg", "--json", env={**os.environ, "PATH": ""})
        (tmp_path / "snapshot.json").write_text(nslab.discover().to_json())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    assert {row["namespace"].strip().partition(":")[0] for row in json.loads(done.stdout)} >= {"uts", "pid", "user"}
    shown = cli("draw", f"{tmp_path}/snapshot.json", "--view", "sharing", "--of", "drawn").stdout
    assert re.search(r"^\d+ container drawn ", shown, re.MULTILINE)
    failed = cli("draw", "/etc/passwd")
    assert (failed.returncode, "no snapshot" in failed.stderr) == (1, True)


def test_doctor_answers_in_text_and_json() -> None:
    done = cli("doctor")
    assert done.returncode == 0
    assert "userns" in done.stdout
    checks = json.loads(cli("doctor", "--json").stdout)
    assert {check["status"] for check in checks} <= {"yes", "partly", "no"}
    assert "userns" in {check["name"] for check in checks}


def test_version() -> None:
    done = cli("--version")
    assert (done.stdout, done.returncode) == (f"nslab {nslab.__version__}\n", 0)


def test_every_verb_has_help() -> None:
    overview = cli("--help").stdout
    assert {*VERBS} == {*re.findall(r"^│ (\w+) ", overview, re.MULTILINE)}
    for verb in ("doctor", "exec", "ls", "run"):
        assert f"nslab {verb}" in cli(verb, "--help").stdout


def test_jupyter_finds_it() -> None:
    """`jupyter nslab` starts the program jupyter-nslab beside it."""
    program = Path(sys.executable).parent / "jupyter-nslab"
    done = subprocess.run([program, "run", "--help"], capture_output=True, text=True, timeout=30)
    assert "jupyter nslab run" in done.stdout
