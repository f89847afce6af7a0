"""hardened=True: what a command in such a container has given up, and what its init is."""

from __future__ import annotations

import gc
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import nslab
from nslab.ops import seccomp
from nslab.spawner import minimal
from tests.helpers import ROOT, eventually, has_ended, in_python, link, pidfd_of

STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; cat /proc/self/uid_map"
NO_CAPABILITIES = {f"Cap{which}:\t0000000000000000" for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
ORDINARY = os.geteuid() != 0


def assert_confined(text: str) -> None:
    lines = set(text.splitlines())
    assert lines >= NO_CAPABILITIES
    assert "NoNewPrivs:\t1" in lines
    assert "Seccomp:\t2" in lines


def outside_of_root(text: str) -> int:
    """The id outside that the first line of a map gives to 0."""
    inside, outside, _ = (int(word) for word in text.splitlines()[-1].split())
    assert inside == 0
    return outside


def test_every_command_is_confined() -> None:
    def confined() -> str:
        return Path("/proc/self/status").read_text()

    with nslab.Container(hardened=True) as container:
        for options in ({}, {"tty": True}, {"cwd": "/tmp"}):
            assert_confined(container.run(["grep", "", "/proc/self/status"], **options).stdout.replace("\r", ""))
        running = container.popen(["grep", "", "/proc/self/status"])
        running.wait()
        assert_confined(running.stdout.read().decode())
        assert_confined(container.call(confined))
    assert_confined(nslab.run(["grep", "", "/proc/self/status"], hardened=True).stdout)


def test_nobody_inside_is_root_of_the_machine() -> None:
    with nslab.Container(hardened=True) as container:
        text = Path(f"/proc/{container.pid}/uid_map").read_text()
        result = container.run("id -u")
    assert result.stdout == "0\n"
    assert outside_of_root(text) != 0


@pytest.mark.requires("subids")
def test_an_ordinary_user_is_not_himself_inside() -> None:
    with nslab.Container(hardened=True) as container:
        assert outside_of_root(Path(f"/proc/{container.pid}/uid_map").read_text()) != os.getuid()
        assert container.run("id -u", user=33).stdout == "33\n"


@pytest.mark.requires("root")
def test_another_user_inside() -> None:
    with nslab.Container(hardened=True) as container:
        result = container.run(f"id -u; id -G; {STATUS}", user=33)
    assert result.lines[:2] == ["33", "33"]
    assert_confined(result.stdout)


def test_a_user_with_one_id_is_told_so() -> None:
    with nslab.Container(hardened=True) as container:
        maps = Path(f"/proc/{container.pid}/uid_map").read_text().split()
        why = next(step.implied for step in container.trace if step.call in ("clone3", "clone") and "NEWPID" in step.args[0])
    assert ("still oneself outside" in why) == (maps[2] == "1" and ORDINARY)


def test_it_isolates_all_that_leads_out_and_says_why() -> None:
    with nslab.Container(hardened=True, hostname="web") as container:
        own = {
            kind for kind in ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup") if link(kind, container.pid) != link(kind)
        }
        assert own == {"mnt", "uts", "ipc", "pid", "net", "user", "cgroup"}
        assert link("time", container.pid) == link("time")
        assert container.run("ls /sys/class/net; ls /sys/fs/cgroup").stdout == "lo\n", "not those of the machine"
        assert all(step.implied for step in container.trace if step.call in ("seccomp", "keyctl", "capset", "mount_setattr"))
    with nslab.Container(hardened=True, isolate="time") as container:
        assert link("time", container.pid) != link("time")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"uid_map": [(0, 0, 1)]}, "uid_map"),
        ({"uid_map": [(0, 1000, 1)], "gid_map": [(5, 0, 2)]}, "gid_map"),
        ({"proc": "old"}, "proc"),
    ],
)
def test_what_cannot_be_had_hardened_is_refused(options: dict, argument: str) -> None:
    with pytest.raises(nslab.SpecError, match=f"{argument}.*hardened=True"):
        nslab.Container(hardened=True, **options)


def test_a_command_that_cannot_be_is_refused_before_anything_is_made() -> None:
    with nslab.record() as trace, pytest.raises(nslab.SpecError):
        nslab.run("/no/such/program", hardened=True)
    assert len(trace) == 0


def test_with_everything_else_that_a_container_can_have() -> None:
    options = {"sysctls": {"kernel.shmmax": 65536}, "loopback": True, "mqueue": "/mnt", "clock": {"boottime": 60}}
    with nslab.Container("rich", hardened=True, isolate="time", hostname="rich", **options) as container:
        assert container.sysctl("kernel.shmmax") == "65536"
        with pytest.raises(nslab.SpecError, match="read-only"):
            container.sysctl("kernel.shmmax", 4096)
        assert_confined(container.run(f"{STATUS}; ls /mnt; hostname").check().stdout)
        container.wait_for(path="/etc/passwd")
        running = container.popen("exec sleep 1000")
        assert container.processes()[0].name == "nslab-init"
        container.pause()
        container.resume()
        running.kill()


@pytest.mark.requires("tool:busybox")
@pytest.mark.parametrize("rootfs", ["busybox", "machine"])
def test_a_root_filesystem_of_its_own(rootfs: str) -> None:
    with nslab.Container(hardened=True, rootfs=rootfs) as container:
        result = container.run(
            f"touch /tmp/mine && ls /tmp/mine; head -c 1 /proc/keys; (: > /proc/sys/vm/overcommit_memory); {STATUS}"
        )
        assert_confined(result.stdout)
        assert result.lines[0] == "/tmp/mine"
        mounts = container.run("cat /proc/self/mountinfo").stdout
    assert " /null /proc/keys " in mounts
    assert [line for line in mounts.splitlines() if " / /sys ro" in line]


def test_what_cannot_be_executed_says_so_as_elsewhere() -> None:
    with nslab.Container(hardened=True) as container:
        with pytest.raises(nslab.SyscallError, match=r"execve.*EACCES"):
            container.run(["/etc/passwd"])
        result = container.run(["sh", "-c", 'echo "$0" "$@"; env', "a b", "", "c"], env={"PATH": os.defpath, "X": "y z"})
        assert {"a b  c", "X=y z"} <= set(result.lines)


# -- its init ---------------------------------------------------------------------------------------------------------


def test_init_holds_nothing_and_knows_nothing() -> None:
    look = "ls /proc/1/fd; cat /proc/1/environ; cat /proc/1/maps; readlink /proc/1/exe /proc/1/cwd /proc/1/root"
    with nslab.Container("web", hardened=True) as container:
        folder = Path(f"/proc/{container.pid}")
        assert eventually(lambda: (folder / "comm").read_text() == "nslab-init\n"), "its first call"
        assert (folder / "cmdline").read_bytes() == b"nslab-init\0web\0"
        assert_confined((folder / "status").read_text())
        assert (folder / "environ").stat().st_uid != outside_of_root((folder / "uid_map").read_text()) or ORDINARY, "dumpable"
        if not ORDINARY:
            assert eventually(lambda: os.listdir(folder / "fd") == []), "it says that it is ready, and lets go of its channel"
            assert (folder / "environ").read_bytes() == b""
            names = {line.split()[-1] for line in (folder / "maps").read_text().splitlines()}
            assert not any("python" in name or "lib" in name for name in names), names
            assert os.readlink(folder / "cwd") == "/"
        result = container.run(look)
    assert result.stdout == ""
    assert result.stderr.count("ermission denied") >= 2


def test_init_lets_no_orphan_rot() -> None:
    with nslab.Container(hardened=True) as container:
        container.run("(true & sleep 0.01; true) & sleep 0 & exit").check()
        children = f"/proc/{container.pid}/task/{container.pid}/children"
        assert eventually(lambda: Path(children).read_text() == "")


@pytest.mark.parametrize("how", ["close", "drop", "signal"])
def test_it_ends_when_nobody_wants_it(how: str) -> None:
    container = nslab.Container(hardened=True)
    container.popen("sleep 1000")
    with pidfd_of(container.pid) as pidfd:
        if how == "close":
            container.close()
        elif how == "drop":
            del container
            gc.collect()
        else:
            container._child.reply.close()  # as when the notebook is gone: nothing more is said
        assert has_ended(pidfd)
    if how == "signal":
        container._child.gone = 9
        for child in container._kept:
            child.end()


def test_step_by_step() -> None:
    with nslab.Stepper(hardened=True, hostname="web") as stepper:
        stepper.step()
        stepper.finish()
        assert_confined(stepper.run(STATUS).check().stdout)


def test_what_an_older_kernel_does_not_know_is_refused_without_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(nslab.Unavailable, match="riscv64"):
        seccomp.program("riscv64")


# -- the programs in memory -----------------------------------------------------------------------------------------------

CALLS = {  # by name: the numbers on x86-64, on aarch64
    "prctl": (157, 167), "write": (1, 64), "close": (3, 57), "rt_sigtimedwait": (128, 137), "shmctl": (31, 195),
    "msgctl": (71, 187), "semctl": (66, 191), "exit_group": (231, 94), "setns": (308, 268), "fcntl": (72, 25),
    "execve": (59, 221), "ppoll": (271, 73),
}  # fmt: skip
PROGRAMS = {
    "init": "prctl write close rt_sigtimedwait ppoll shmctl msgctl semctl exit_group",
    "joiner": "setns write fcntl fcntl execve write exit_group",
    "launcher": "execve write exit_group",
}


@pytest.mark.unit
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_a_minimal_program_makes_these_calls(name: str, machine: str, column: int) -> None:
    """Read out of its instructions: mov eax, NUMBER; syscall, or mov x8, NUMBER; svc, after which it is still there."""
    names = {numbers[column]: call for call, numbers in CALLS.items()}
    code, found, number = minimal.program(name, machine)[120:], [], -1
    if machine == "x86_64":
        found = [int.from_bytes(code[at - 4 : at], "little") for at in range(5, len(code)) if code[at : at + 2] == b"\x0f\x05"]
    else:
        for (word,) in struct.iter_unpack("<I", code[: len(code) // 4 * 4]):
            if word & 0xFFE0001F == 0xD2800008:
                number = word >> 5 & 0xFFFF
            elif word == 0xD4000001:
                found.append(number)
    assert [names[number] for number in found] == PROGRAMS[name].split()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter of this test is for x86-64")
@pytest.mark.parametrize("kinds", ["uts", "ipc pid mnt"])
def test_init_sleeps_where_a_filter_refuses_it_to_wait_for_signals(kinds: str) -> None:
    script = f"""
import ctypes, struct, nslab
from tests.helpers import eventually
words = ((0x20, 0, 0, 0), (0x15, 0, 1, 128), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000))  # rt_sigtimedwait: EPERM
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *word) for word in words))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(words), ctypes.addressof(program)), 0, 0) == 0  # PR_SET_SECCOMP
with nslab.Container(isolate={kinds!r}) as web:
    def sleeps():
        with open(f"/proc/{{web.pid}}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"
    print(web.run("echo inside").stdout.strip(), eventually(sleeps, 20), eventually(lambda: not sleeps(), 0.1))
print(web.alive)
"""
    done = in_python(script)
    assert done.stdout == "inside True False\nFalse\n", done.stderr


# -- the filter, by an interpreter of the few instructions that it has ----------------------------------------------------

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50001, 0x50026
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def answer(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter of a machine answers to a call. Source: linux/filter.h."""
    program = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture or AUDIT[machine], 0, *padded)
    at, value = 0, 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        if code == 0x20:
            value = struct.unpack_from("<I", data, operand)[0]
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: value == operand, 0x25: value > operand, 0x45: bool(value & operand)}[code]
            at += yes if holds else no


@pytest.mark.unit
@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter(machine: str, column: int) -> None:
    named = {name: numbers[column] for group in seccomp.REFUSED.values() for name, numbers in group.items()}
    for number in named.values():
        assert number < 0 or answer(machine, number) == EPERM
    conditional = {table[column] for table in (seccomp.CLONE, seccomp.UNSHARE, seccomp.IOCTL, seccomp.SOCKET, seccomp.CLONE3)}
    for number in set(range(seccomp.HIGHEST + 1)) - set(named.values()) - conditional:
        assert answer(machine, number) == ALLOW
    assert answer(machine, seccomp.HIGHEST + 1) == answer(machine, 0x40000000 + 39) == ENOSYS, "also those of x32"
    assert answer(machine, seccomp.CLONE3[column]) == ENOSYS, "so that the C library uses clone, whose flags can be seen"
    assert answer(machine, 20, architecture=0x40000003) == ENOSYS, "i386"


@pytest.mark.unit
@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_looks_at_arguments(machine: str, column: int) -> None:
    clone, unshare, ioctl, socket = (t[column] for t in (seccomp.CLONE, seccomp.UNSHARE, seccomp.IOCTL, seccomp.SOCKET))
    assert answer(machine, clone, 0x1200011) == ALLOW, "fork of the C library"
    assert answer(machine, clone, 0x3D0F00) == ALLOW, "a thread"
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(machine, clone, flag | 17) == answer(machine, unshare, flag) == EPERM
    assert answer(machine, unshare, 0x80) == EPERM
    assert answer(machine, unshare, 0x400) == ALLOW
    assert answer(machine, ioctl, 0, 0x5401) == ALLOW
    assert answer(machine, ioctl, 0, 0x5412) == answer(machine, ioctl, 0, 0x541C) == EPERM
    assert answer(machine, ioctl, 0, 0xFFFFFFFF00005412) == EPERM, "CVE-2019-10063: the kernel drops the upper half"
    assert answer(machine, socket, 40) == answer(machine, socket, 38) == EPERM
    assert answer(machine, socket, 1) == answer(machine, socket, 2) == answer(machine, socket, 16) == ALLOW


@pytest.mark.unit
@pytest.mark.requires("tool:cc")
@pytest.mark.parametrize(("header", "column"), [("asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)], ids=["x86-64", "aarch64"])
def test_the_numbers_are_those_of_the_headers(header: str, column: int) -> None:
    if subprocess.run(["cc", "-E", "-"], input=f"#include <{header}>", capture_output=True, text=True).returncode:
        pytest.skip("the headers of the kernel here are for another machine")
    named = {name: numbers for group in seccomp.REFUSED.values() for name, numbers in group.items()}
    named |= {"clone": seccomp.CLONE, "unshare": seccomp.UNSHARE, "ioctl": seccomp.IOCTL, "socket": seccomp.SOCKET}
    names = {name: numbers[column] for name, numbers in named.items() if numbers[column] >= 0}
    source = f"#include <{header}>\n" + "".join(f"{name}_is __NR_{name}\n" for name in names)
    done = subprocess.run(["cc", "-E", "-P", "-"], input=source, capture_output=True, text=True, check=True)
    found = dict(line.split() for line in done.stdout.splitlines() if "_is " in line)
    known = {name: found[f"{name}_is"] for name in names if found[f"{name}_is"].isdigit()}
    assert len(known) > 50
    assert known == {name: str(names[name]) for name in known}


def test_what_enters_from_another_process_is_confined_too() -> None:
    with nslab.Container("strict", hardened=True) as container:
        command = [sys.executable, "-m", "nslab.cli", "exec", str(container.pid), "--", "grep", "", "/proc/self/status"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, cwd=ROOT)
    assert_confined(done.stdout)


def test_on_the_command_line() -> None:
    command = [sys.executable, "-m", "nslab.cli", "run", "--hardened", "--", "sh", "-c", f"{STATUS}; exit 3"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, cwd=ROOT)
    assert_confined(done.stdout)
    assert done.returncode == 3
