"""What went wrong with containers elsewhere, and how they were left: one test for each case, with its number in the name.

In a hardened container none of it works; where a plain one shows that the attempt is a real one, it is made there as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
import nslab.spawner
from tests.battery.__main__ import python
from tests.elsewhere import ours
from tests.helpers import ROOT, in_python

pytestmark = pytest.mark.requires("userns")
ORDINARY = os.geteuid() != 0


@pytest.fixture
def hard() -> Iterator[nslab.Container]:
    with nslab.Container("hard", hardened=True) as container:
        yield container


# -- D01: the runtime's own program -----------------------------------------------------------------------------------

OVERWRITE = """
import os, sys
here = os.open("/proc/self/exe", os.O_RDONLY)
print(os.readlink("/proc/self/exe"))
try:
    os.open(f"/proc/self/fd/{here}", os.O_WRONLY)
except OSError as error:
    print(error.errno)
"""


@pytest.fixture
def in_sight() -> Iterator[Path]:
    """A folder that those inside may look into, who are somebody else."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_d01_our_own_program_cannot_be_overwritten(hard: nslab.Container, in_sight: Path) -> None:
    """A command that says "#!/proc/self/exe" is run by whatever program was about to execute it: ours."""
    ours = hashlib.sha256(Path(sys.executable).resolve().read_bytes()).digest()
    evil = in_sight / "evil"
    evil.write_text(f"#!/proc/self/exe\n{OVERWRITE}")
    evil.chmod(0o755)
    link = in_sight / "link"
    link.symlink_to("/proc/self/exe")
    command = [str(link), "-c", OVERWRITE]
    for user in (None, 0):
        assert hard.run(command, user=user).returncode == 127, "what runs is the launcher, which can do one thing"
        with pytest.raises(nslab.CommandTimeout) as caught:
            hard.run([str(evil)], user=user, timeout=0.2)  # it executes itself for ever
        assert caught.value.result.stdout == ""
    with nslab.Container(isolate="user pid mnt") as plain:
        assert "python" in plain.run([str(evil)]).stdout, "the attempt is a real one"
    assert hashlib.sha256(Path(sys.executable).resolve().read_bytes()).digest() == ours


# -- D06, D07: files of the machine that are orders -----------------------------------------------------------------------


def test_d06_no_release_agent_is_in_reach(hard: nslab.Container) -> None:
    agents = glob.glob("/sys/fs/cgroup/*/release_agent")
    for path in [*agents, "/sys/fs/cgroup/release_agent"]:
        assert hard.run(["test", "-w", path]).returncode != 0
        assert hard.run(f": >> {path}").returncode != 0
    for options in ("memory", "none,name=nslab", "rdma"):
        assert hard.run(["mount", "-t", "cgroup", "-o", options, "none", "/mnt"]).returncode != 0
    if agents and not ORDINARY:
        with nslab.Container(isolate="all") as plain:
            assert plain.run(["test", "-w", agents[0]]).returncode == 0, "the attempt is a real one"


DANGEROUS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic",
    "/proc/sysrq-trigger", "/proc/sys/fs/binfmt_misc/register", "/sys/kernel/uevent_helper", "/proc/sys/kernel/hostname",
    "/sys/kernel/mm/ksm/run", "/proc/sys/user/max_user_namespaces", "/proc/irq/default_smp_affinity",
)  # fmt: skip
SECRET = ("/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kallsyms", "/proc/timer_list", "/proc/interrupts")


def test_d07_core_pattern_and_friends_cannot_be_written_nor_kernel_files_read(hard: nslab.Container) -> None:
    script = "\n".join(
        [f"(: >> {path}) 2> /dev/null && echo written {path}" for path in DANGEROUS]
        + [f"[ -z \"$(head -c 1 {path} 2> /dev/null | tr '\\0' x)\" ] || echo read {path}" for path in SECRET]
    )
    assert hard.run(script).stdout == ""
    with nslab.Container(isolate="all") as plain:
        found = plain.run(script.replace(": >>", "test -w")).lines  # asked only: these would be opened
    assert "read /proc/kallsyms" in found
    assert ORDINARY or "written /proc/sys/kernel/core_pattern" in found


# -- D08, D09: keys --------------------------------------------------------------------------------------------------------

KEYS = """
import os
import nslab
from nslab.syscalls import confine
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
def call(*arguments):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return libc.syscall(*wide), ctypes.get_errno()
def search():
    return call(KEYCTL, 10, -3, b"user", b"nslab-d08", 0)
call(KEYCTL, 1, None)
call(ADD_KEY, b"user", b"nslab-d08", b"secret", 6, -3)
number, _ = search()
assert number > 0
"""


def test_d08_the_keyring_of_the_notebook_is_left_behind() -> None:
    script = f"""{KEYS}
with nslab.process() as process:
    process.unshare("ipc") if {not ORDINARY} else None
    assert process.call(search)[0] == number, "a key is inherited, whatever namespaces are new"
    process.call(confine.join_session_keyring)
    assert process.call(search) == (-1, 126), "ENOKEY"
with nslab.Container(hardened=True) as container:
    assert container.call(search) == (-1, 1)
    assert container.run(["grep", "-c", "", "/proc/keys"]).stdout.strip() == "0"
    joined = [step.pid for step in container.trace if step.call == "keyctl"]
    assert len(set(joined)) == len(joined) == 3, joined
print("done")
"""
    done = in_python(script)
    assert done.stdout == "done\n", done.stderr


def test_d09_keyrings_of_containers_do_not_pile_up() -> None:
    """A user may have 200 of them (maxkeys): each ends with its container."""

    def count() -> int:
        rows = [line.split() for line in Path("/proc/key-users").read_text().splitlines()]
        return sum(int(row[3].split("/")[0]) for row in rows if ours(int(row[0].rstrip(":"))))

    before = count()
    for _ in range(70):  # three keyrings each
        with nslab.Container(hardened=True) as container:
            container.call(os.getpid)
            container.call(os.getpid)
    assert count() <= before + 8


@pytest.mark.requires("ordinary")
def test_d09_who_has_too_many_keys_is_told_so() -> None:
    """Before anything runs; the keys are those of a session keyring that ends with the script."""
    script = f"""{KEYS}
for _ in range(10):  # others of this user may let go of theirs in between
    while call(ADD_KEY, b"keyring", f"nslab-d09-{{number}}".encode(), None, 0, -3)[0] > 0:
        number += 1
    try:
        nslab.Container(hardened=True).close()
    except nslab.SyscallError as error:
        print(error.call, error.name, "keyrings(7)" in str(error))
        break
"""
    done = in_python(script)
    assert done.stdout == "keyctl EDQUOT True\n", done.stderr


# -- D10, D11: ways that lead past the filesystem --------------------------------------------------------------------------


def test_d10_no_terminal_of_the_caller_is_inside() -> None:
    """A session with a terminal runs containers: no descriptor of it is handed on, and nothing is typed into it."""
    script = """
import os, fcntl, struct, termios
import nslab
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
name = os.ttyname(0)
for options in ({"hardened": True}, {"isolate": "uts pid mnt"}):
    with nslab.Container(**options) as container:
        for tty in (False, True):
            links = container.run("ls -l /proc/self/fd; cat < /dev/tty", tty=tty, timeout=5, input="\\x04" if tty else None)
            assert name not in [line.split(" -> ")[-1].strip() for line in links.lines], links
        if "hardened" in options:
            stuffed = container.run(["python3", "-c", "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'X')"], tty=True)
            assert "PermissionError" in stuffed.stdout or "not permitted" in stuffed.stdout, stuffed
assert struct.unpack("i", fcntl.ioctl(0, termios.FIONREAD, bytes(4)))[0] == 0
open(os.environ["ANSWER"], "w").write("done")
"""
    master, slave = os.openpty()
    answer = os.memfd_create("answer")
    try:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "ANSWER": f"/proc/{os.getpid()}/fd/{answer}"}
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
        )
        assert process.wait(30) == 0, os.read(master, 10_000).decode()
        assert os.pread(answer, 10, 0) == b"done"
        assert not select.select([slave], [], [], 0)[0]
    finally:
        for fd in (master, slave, answer):
            os.close(fd)


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1]); print('connected')"


def test_d11_abstract_sockets_follow_the_network_namespace(hard: nslab.Container) -> None:
    name = f"nslab-d11-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        command = [python(), "-c", CONNECT, name]
        assert "ConnectionRefusedError" in hard.run(command).stderr
        assert nslab.run(command, isolate="mnt pid ipc uts").stdout == "connected\n", "what no mount table keeps away"
    helpers = nslab.spawner.running_pids()
    mine = {os.readlink(path) for pid in helpers for path in glob.glob(f"/proc/{pid}/fd/*") if os.path.lexists(path)}
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert not [row for row in rows if len(row) > 7 and row[7].startswith("@") and f"socket:[{row[6]}]" in mine]


# -- D13: who enters is looked at -------------------------------------------------------------------------------------------

POLLER = r"""
import os, select, sys, time
print("ready", flush=True)
seen = set()
known, deadline, python = set(os.listdir("/proc")), time.monotonic() + 20, os.readlink("/proc/self/exe")
while time.monotonic() < deadline and not select.select([0], [], [], 0)[0]:
    for pid in set(os.listdir("/proc")) - known:
        try:
            open(f"/proc/{pid}/mem", "rb").close()
            if "python" in os.readlink(f"/proc/{pid}/exe"):
                seen.add("memory of a Python that enters")
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if int(fd) > 2 and "socket" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                    seen.add("a channel of ours")
        except OSError:
            pass
print(*seen)
"""


@pytest.mark.parametrize("hardened", [True, False])
def test_d13_nobody_sees_into_a_process_that_enters(hardened: bool) -> None:
    options = {"hardened": True} if hardened else {"isolate": "user pid mnt"}
    with nslab.Container(**options) as container:
        poller = container.popen([python(), "-c", POLLER], stdin=True)
        assert poller.stdout.readline() == b"ready\n"
        for _ in range(20):
            container.run("true", user=0).check()
            container.call(sum, range(10**6))  # long enough to be found
        poller.stdin.close()
        assert poller.wait(10) == 0, poller.stderr.read()
        seen = poller.stdout.read()
    assert (seen == b"\n") == hardened, seen


# -- D17, D18, D20 ----------------------------------------------------------------------------------------------------------


def test_d17_no_user_namespace_is_made_inside(hard: nslab.Container) -> None:
    raise_limits = "for file in /proc/sys/user/*; do (echo 9999 > $file) 2> /dev/null; done"
    make = "unshare --user true && echo made; unshare --user --map-root-user --mount true && echo made; true"
    assert hard.run(f"{make}\n{raise_limits}\n{make}").stdout == ""
    with nslab.Container(isolate="user mnt pid") as plain:
        assert plain.run(make).stdout == "made\nmade\n", "the attempt is a real one"


@contextlib.contextmanager
def inheritable() -> Iterator[None]:
    """This process has three descriptors that every child would inherit."""
    fds = [os.open("/etc/passwd", os.O_RDONLY), os.open("/", os.O_RDONLY), os.open("/proc/self/ns/mnt", os.O_RDONLY)]
    fds += [fcntl.fcntl(fds[0], fcntl.F_DUPFD, 100)]
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("options", [{"hardened": True}, {"isolate": "all"}, {"isolate": "uts"}], ids=["hard", "all", "uts"])
def test_d18_no_descriptor_is_inherited(options: dict) -> None:
    with inheritable():
        script = "import nslab; print(*nslab.run(['ls', '/proc/self/fd'], **{options!r}).lines)"
        fresh = in_python(script.replace("{options!r}", repr(options)), close_fds=False)  # a spawner that inherits them itself
        assert fresh.stdout.split() == ["0", "1", "2", "3"], fresh
        with nslab.Container(**options) as container:
            for run in ({}, {"user": 0}, {"tty": True}):
                assert container.run(["ls", "-1", "/proc/self/fd"], **run).stdout.split() == ["0", "1", "2", "3"]
            process = container.popen(["ls", "/proc/self/fd"])
            process.wait()
            assert process.stdout.read().split() == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("options", [{"hardened": True}, {"isolate": "all"}], ids=["hard", "all"])
def test_d20_no_descriptor_leads_back_out(options: dict) -> None:
    walk = (
        "import ctypes, os; libc = ctypes.CDLL(None)\n"
        "print(*(f for f in range(256) if libc.setns(f, 0) == 0), *(os.listdir('/proc/1/fd') if 0 else ()))"
    )
    kinds = ("mnt:[", "net:[", "user:[", "pid:[", "uts:[", "ipc:[", "cgroup:[", "time:[")
    with inheritable(), nslab.Container(**options) as container:
        assert container.run([python(), "-c", walk]).stdout == "\n"
        if not ORDINARY:
            links = [os.readlink(path) for path in glob.glob(f"/proc/{container.pid}/fd/*")]
            assert not [link for link in links if link.startswith(kinds)]
