"""A Linux kernel of one's own: what runs in it, what it sees of the machine, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import procfs
from nslab.machines import BootError, OwnKernel, doctor, leftovers, own_kernel_check, preload, run_in_own_kernel
from tests.crash.oracle import name
from tests.own_kernels import is_alive, nothing_left, sockets_apart

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.requires("tool:linux.uml", "tool:slirp4netns")


@pytest.fixture(autouse=True)
def apart(monkeypatch) -> Iterator[Path]:
    with sockets_apart() as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        yield folder


def test_a_command_runs_as_root_of_another_kernel() -> None:
    with nothing_left():
        result = run_in_own_kernel(["sh", "-c", "uname -r; id -u; cat; echo wrong >&2; exit 7"], stdin=b"given", network=False)
    release, uid, given = result.stdout.split("\n")
    assert (uid, given, result.stderr, result.returncode) == ("0", "given", "wrong\n", 7)
    assert release != os.uname().release


def test_bytes_arrive_as_they_are_however_many() -> None:
    data = os.urandom(1 << 20)
    result = run_in_own_kernel(["cat"], stdin=data, text=False, network=False)
    assert result.stdout == data


def test_it_writes_to_the_folder_that_was_asked_for_and_to_no_other(tmp_path) -> None:
    shared, other = tmp_path / "shared", Path("/etc/not-on-the-machine")
    shared.mkdir()
    script = f"test -e {other}; echo $?; echo text > {shared}/file; echo x > {other}; cat {other}; ls /tmp/..{tmp_path.parent}"
    with nothing_left():
        for _ in range(2):  # the second begins as clean as the first
            result = run_in_own_kernel(["sh", "-c", script], write=[str(shared)], network=False)
            assert result.stdout.split()[:2] == ["1", "x"], result
    assert (shared / "file").read_text() == "text\n"
    assert (shared / "file").stat().st_uid == os.geteuid()
    assert not other.exists()


def test_containers_and_networks_are_made_in_it_that_this_kernel_may_not_have() -> None:
    script = """
import nslab
with nslab.Container("web", isolate="uts pid ipc mnt net user cgroup", hostname="web", limits={"pids": 20}) as web:
    print(web.run("hostname; echo $$").stdout.split())
lab = nslab.Topology()
a, b = lab.host("a"), lab.host("b")
lab.link(a, b, delay="50ms")
with lab.deploy():
    print(a.run("ping -c2 -i0.2 b | tail -1").stdout)
"""
    result = run_in_own_kernel([sys.executable, "-c", script], cwd=str(ROOT), network=False)
    first, last = result.check().stdout.strip().splitlines()
    assert first == "['web', '2']"
    assert 100 <= float(last.split("/")[4]) < 1000, "there and back is twice the delay"


def test_a_kernel_that_does_not_come_up_says_why() -> None:
    """In a line: what the console said besides is a trace of calls."""
    with nothing_left(), pytest.raises(BootError, match=r"gave up: Kernel panic.*init /nowhere failed") as caught:
        run_in_own_kernel(["true"], network=False, hardware=["init=/nowhere"])
    assert "\n" not in str(caught.value)


def test_a_command_that_is_not_there() -> None:
    result = run_in_own_kernel(["no-such-program"], network=False)
    assert result.returncode == 127
    assert "no-such-program: No such file" in result.stderr


def test_its_time_is_up() -> None:
    with nothing_left(), pytest.raises(nslab.CommandTimeout, match="did not end within 1 s"):
        run_in_own_kernel(["sleep", "100"], timeout=1, network=False)


@pytest.mark.parametrize("victim", ["linux.uml", "slirp4netns", "nslab-warden"])
def test_when_one_is_killed_all_go_and_it_says_who(victim) -> None:
    with nothing_left():
        with OwnKernel(["sleep", "100"]) as own:
            own.wait_up()
            pids = [own.process.pid, *procfs.descendants(own.process.pid)]
            names = {pid: name(pid) for pid in pids}
            os.kill(next(pid for pid in sorted(names) if names[pid] == victim), signal.SIGKILL)
            while own.over is None:
                assert own.readable(10)
                own.receive()
            assert own.over["why"], own.over
            assert "SIGKILL" in own.explanation() or "warden was ended" in own.explanation()
        deadline = time.monotonic() + 2
        while alive := [pid for pid in pids if is_alive(pid)]:
            assert time.monotonic() < deadline, [names[pid] for pid in alive]
            select.select([], [], [], 0.05)


def test_when_who_asked_is_killed_nothing_is_left() -> None:
    code = """
from nslab.machines import OwnKernel
own = OwnKernel(["sleep", "100"])
own.wait_up()
print(own.process.pid, flush=True)
own.process.wait()
"""
    with nothing_left():
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as asker:
            assert asker.stdout
            watch = int(asker.stdout.readline())
            pids = [watch, *procfs.descendants(watch)]
            assert len(pids) > 3
            asker.kill()
        deadline = time.monotonic() + 2
        while any(is_alive(pid) for pid in pids):
            assert time.monotonic() < deadline
            select.select([], [], [], 0.05)


def test_when_all_that_is_python_is_killed_nothing_runs_on(apart) -> None:
    """The warden and who asked, in one moment. A process that was just being made may stand there: the next one ends it."""
    code = """
from nslab.machines import OwnKernel
own = OwnKernel(["sh", "-c", "sleep 1000 & sleep 1001"])
own.wait_up()
print(own.process.pid, flush=True)
own.process.wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout
        warden = int(asker.stdout.readline())
        pids = procfs.descendants(warden)
        assert {"linux.uml", "slirp4netns"} <= {name(pid) for pid in pids}
        assert not list(apart.iterdir()), "its folder is gone once the command has started"
        asker.kill()
        os.kill(warden, signal.SIGKILL)
    deadline = time.monotonic() + 2
    while alive := [pid for pid in pids if is_alive(pid) and procfs.stat(pid).state != "t"]:
        assert time.monotonic() < deadline, alive
        select.select([], [], [], 0.05)
    with nothing_left():
        leftovers.sweep(str(apart))


def test_a_process_that_was_left_without_its_folder_is_ended(tmp_path) -> None:
    gone, there = (f"{tmp_path}/{leftovers.PREFIX}{word}" for word in ("gone", "there"))
    os.mkdir(there)
    left, other = (subprocess.Popen([f"{folder}/net", "1000"], executable="/bin/sleep") for folder in (gone, there))
    with left, other:
        leftovers.sweep(str(tmp_path))
        assert left.wait(10) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


@pytest.mark.requires("tool:find")
def test_it_does_not_run_out_of_files_that_were_only_looked_at() -> None:
    """find(1) sees more folders than the kernel may have descriptors: it keeps one for each that it knows."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 2500))
from nslab.machines import run_in_own_kernel
print(run_in_own_kernel(["find", {sys.prefix!r}, "-type", "d"], network=False).check().stdout.count("\\n"))
"""
    seen = sum(1 for _ in os.walk(sys.prefix))
    assert seen > 2500
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == str(seen), done.stderr


def test_closed_streams_are_none() -> None:
    """The first files that are opened would get their numbers, and be read as standard input."""
    command = f'exec "{sys.executable}" -m nslab.cli vm run --offline -- sh -c "cat; exit 3" <&- >&- 2>&-'
    with nothing_left():
        assert subprocess.run(["sh", "-c", command], cwd=ROOT, timeout=60).returncode == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_boots_ends_it(number) -> None:
    command = [sys.executable, "-m", "nslab.cli", "vm", "run", "--", "sleep", "1000"]
    with nothing_left(), subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        while not any(name(pid) == "slirp4netns" for pid in procfs.descendants(run.pid)):
            assert run.poll() is None
        run.send_signal(number)
        begin = time.monotonic()
        assert (run.wait(60), run.stderr.read()) == (128 + number, "")
        assert time.monotonic() - begin < 30, "it was ended then, and not when the command was"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--memory", "much", "--", "true"], 125, "memory: 'much' is no size"),
        (["--memory", "8M", "--", "true"], 125, "memory: 8M is too little"),
        (["--write", "/nowhere", "--", "true"], 125, "write: there is no folder /nowhere"),
        (["--write", "/", "--", "true"], 125, "write: the whole machine"),
        (["--write", "/etc/passwd", "--", "true"], 125, "write: /etc/passwd is a file"),
        (["--cwd", "/nowhere", "--", "true"], 125, "cwd: there is no folder /nowhere"),
        (["--timeout", "nan", "--", "true"], 125, "timeout: must be a number"),
        (["--", ""], 127, "command: is empty"),
        (["--", "no\udcffsuch"], 127, "No such file"),
        (["--", "/etc/passwd"], 126, "Permission denied"),
        (["--", "poweroff", "-f"], 125, "it was switched off from inside"),
        (["--timeout", "3", "--", "sleep", "1000"], 124, "was still running after 3 s"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(words, status, said) -> None:
    command = [sys.executable, "-m", "nslab.cli", "vm", "run", "--offline", *words]
    with nothing_left():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, stdin=subprocess.DEVNULL)
    errors = done.stderr.decode(errors="replace")
    assert (done.returncode, said in errors, "Traceback" in errors) == (status, True, False), errors


@pytest.mark.parametrize("closed", [True, False])
def test_one_that_does_not_answer_is_ended_all_the_same(closed) -> None:
    code = """
import os, signal, sys
from nslab import procfs
from nslab.machines import OwnKernel
from tests.crash.oracle import name
own = OwnKernel(["sleep", "100"], network=False)
own.wait_up()
kernel = next(pid for pid in procfs.descendants(own.process.pid) if name(pid) == "linux.uml")  # parents come first
os.kill(kernel, signal.SIGSTOP)
if sys.argv[1] == "True":
    own.close()
os.kill(os.getpid(), signal.SIGKILL)
"""
    with nothing_left(4):
        done = subprocess.run([sys.executable, "-c", code, str(closed)], cwd=ROOT, timeout=100)
    assert done.returncode == -signal.SIGKILL


def test_its_port_listens_on_loopback_only() -> None:
    server = """
import socket
listener = socket.create_server(("", 4000))
print("up", flush=True)
connection, _ = listener.accept()
connection.sendall(b"hello")
connection.recv(1)  # until it has arrived: the kernel ends with this, and its network with the kernel
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with OwnKernel([sys.executable, "-c", server], ports=[(port, 4000)]) as own:
        heard: list[bytes] = []
        own.wait_up(lambda _, data: heard.append(data))
        while not heard and own.readable(30):
            own.receive(lambda _, data: heard.append(data))
        table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [row[1] for row in table if row[3] == "0A" and row[1].endswith(f":{own.ports[0]:04X}")]
        assert listening == [f"0100007F:{own.ports[0]:04X}"]
        with socket.create_connection(("127.0.0.1", own.ports[0]), timeout=10) as sock:
            assert sock.recv(10) == b"hello"


# -- where nothing is allowed -----------------------------------------------------------------------------------------


def refusing() -> bytes:
    """A program for seccomp(2): unshare, setns, mount and clone with a namespace flag are EPERM, clone3 is ENOSYS."""
    flags = 0x7E020080  # all CLONE_NEW*

    def refuse(number: int, errno: int) -> bytes:
        return struct.pack("HBBIHBBI", 0x15, 0, 1, number, 0x06, 0, 0, 0x50000 | errno)

    program = struct.pack("HBBI", 0x20, 0, 0, 0)
    program += refuse(272, 1) + refuse(308, 1) + refuse(165, 1) + refuse(435, 38)
    program += struct.pack("HBBI", 0x15, 0, 3, 56) + struct.pack("HBBI", 0x20, 0, 0, 16)
    program += struct.pack("HBBI", 0x45, 0, 1, flags) + struct.pack("HBBI", 0x06, 0, 0, 0x50001)
    return program + struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)


def forbid_everything() -> None:
    """Between fork and exec: no new privileges, no capability even for root, and that filter."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = refusing()
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.create_string_buffer(fprog), 0, 0) == 0  # PR_SET_SECCOMP, a filter


@pytest.mark.requires("ordinary")
def test_it_needs_nothing_that_can_be_forbidden(tmp_path) -> None:
    code = """
import nslab
from nslab.machines import doctor, run_in_own_kernel
report = doctor()
print(report["isolation"].status, report["own-kernel"].status)
script = "import nslab; print(nslab.run('hostname', isolate='uts user pid mnt net ipc cgroup', hostname='web').stdout)"
import sys
print(run_in_own_kernel([sys.executable, "-c", script]).check().stdout.strip())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, preexec_fn=forbid_everything, capture_output=True, text=True, timeout=110
    )
    assert done.stdout.split() == ["no", "yes", "web"], done.stderr


# -- what is needed, and said -----------------------------------------------------------------------------------------


def test_the_doctor_says_what_to_install(monkeypatch, tmp_path) -> None:
    assert own_kernel_check().status == "yes"
    assert doctor()["own-kernel"].status == "yes"
    monkeypatch.setenv("PATH", str(tmp_path))
    check = own_kernel_check()
    assert check.status != "yes"
    assert "linux.uml" in check.finding
    assert "apt-get install user-mode-linux slirp4netns" in check.remedy
    with pytest.raises(nslab.Unavailable, match=r"linux\.uml"):
        run_in_own_kernel(["true"])


def test_memory_without_room_is_refused_before_anything_starts() -> None:
    with nothing_left(0), pytest.raises(nslab.Unavailable, match="room"):
        run_in_own_kernel(["true"], memory="100000G")


def test_what_others_left_is_removed(tmp_path) -> None:
    """Only a folder of ours that nobody holds, and not a new one."""
    old, held, new = (tmp_path / f"{leftovers.PREFIX}{name}" for name in ("old", "held", "new"))
    for folder in (old, held, new):
        folder.mkdir()
        (folder / leftovers.LOCK).touch()
        if folder is not new:
            os.utime(folder, (1, 1))

    with open(held / leftovers.LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        leftovers.sweep(str(tmp_path))
    assert [folder.exists() for folder in (old, held, new)] == [False, True, True]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="registers of x86-64")
def test_registers_are_handed_back_in_the_size_that_this_kernel_wants() -> None:
    """ptrace(PTRACE_SETREGSET) with the 2,696 bytes that user-mode Linux has: by the library it succeeds on every processor."""
    code = """
import ctypes, os, signal, struct, sys
library = ctypes.CDLL(sys.argv[1], use_errno=True)
library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
library.ptrace.restype = ctypes.c_long
pid = os.fork()
if pid == 0:
    library.ptrace(0, 0, None, None)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(5)
os.waitpid(pid, 0)
room = ctypes.create_string_buffer(2696)
iovec = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(room), 2696))
for request in (0x4204, 0x4205, 0x4205):
    assert library.ptrace(request, pid, 0x202, iovec) == 0, (hex(request), ctypes.get_errno())
before = bytes(room)
assert library.ptrace(0x4204, pid, 0x202, iovec) == 0 and bytes(room) == before
assert library.ptrace(3, pid, 0, None) != -1 or not ctypes.get_errno()
assert library.ptrace(0x4205, 1 << 22, 0x202, iovec) == -1 and ctypes.get_errno() == 3
library.ptrace(17, pid, None, None)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(preload.library())
        file.flush()
        done = subprocess.run([sys.executable, "-c", code, file.name], capture_output=True, text=True)
    assert done.stdout.strip() == "5", done.stderr


@pytest.mark.requires("ordinary")
@pytest.mark.parametrize("installed", [True, False])
def test_where_nothing_is_allowed_the_doctor_leads_to_it_and_no_verb_ends_in_a_traceback(tmp_path, installed) -> None:
    path = os.environ["PATH"] if installed else str(tmp_path)
    done = [
        subprocess.run(
            [sys.executable, "-m", "nslab.cli", *words], cwd=ROOT, preexec_fn=forbid_everything, capture_output=True, text=True,
            timeout=60, env={**os.environ, "PATH": path},
        )
        for words in (["doctor"], ["run", "--isolate", "uts", "--", "/bin/true"], ["vm", "run", "--", "/bin/true"])
    ]  # fmt: skip
    examined, run, vm = (" ".join((each.stdout + each.stderr).split()) for each in done)
    assert [each.returncode for each in done] == [1, 125, 0 if installed else 125]
    assert ("'nslab (own kernel)' in Jupyter" in examined) == installed
    assert ("apt-get install user-mode-linux slirp4netns" in examined) != installed
    assert "nslab.doctor() says what lifts that" in run
    assert installed or "needs linux.uml, which is not here" in vm
    assert "Traceback" not in examined + run + vm


def test_a_shell_in_it_is_a_terminal(apart) -> None:
    """Its size, a change of it, Ctrl-C and the status, as in any terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["SHELL"] = "/bin/sh"
        os.execv(sys.executable, [sys.executable, "-m", "nslab.cli", "vm", "shell", "--offline"])
    said = b""

    def after(typed: str, until: bytes) -> bytes:
        nonlocal said
        said = b""
        os.write(terminal, typed.encode())
        while until not in said:
            assert select.select([terminal], [], [], 60)[0], said
            said += os.read(terminal, 4096)
        return said

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    try:
        after("", b"# ")
        assert b"33 101" in after("stty size; echo o''ne\n", b"one")
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        while b"40 120" not in after("stty size; echo t''wo\n", b"two"):
            continue
        after("sh -c 'echo b\"\"egins; exec sleep 1000'\n", b"begins")  # it has the terminal when it says so
        assert b"three" in after("\x03echo th''ree\n", b"three")
        os.write(terminal, b"exit 5\n")
        with contextlib.suppress(OSError):  # EIO at its end
            while os.read(terminal, 4096):
                pass
    finally:
        os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 5
