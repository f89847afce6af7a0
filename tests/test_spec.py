"""Bad input is refused before anything is made, by an error that names the argument and the rule."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import nslab
from nslab.ops import spec

OWN = os.getuid()

# (what is asked for, the argument that the error names, words of the rule)
BAD_REQUESTS = [
    ({"isolate": "utz"}, "isolate", "'utz' is no kind of namespace .*did you mean 'uts'"),
    ({"isolate": ["uts", "network"]}, "isolate", "did you mean 'net'"),
    ({"isolate": "uts all"}, "isolate", "'all' is no kind"),
    ({"isolate": ["uts", 5]}, "isolate", "5 is no kind"),
    ({"isolate": 5}, "isolate", "must be text or a list"),
    ({"isolate": None}, "isolate", "must be text or a list"),
    ({"isolate": "uts", "hostname": "h" * 65}, "hostname", "65 bytes long; .* maximum 64 bytes"),
    ({"isolate": "uts", "hostname": "ü" * 33}, "hostname", "66 bytes long"),
    ({"isolate": "uts", "hostname": ""}, "hostname", "0 bytes long; the minimum is 1"),
    ({"isolate": "uts", "hostname": "a\0b"}, "hostname", "NUL"),
    ({"isolate": "uts", "hostname": b"web"}, "hostname", "must be text"),
    ({"isolate": "uts", "hostname": "\ud800"}, "hostname", "cannot be encoded"),
    ({"isolate": "mnt", "hostname": "web"}, "hostname", "needs a UTS namespace of its own"),
    ({"isolate": "uts", "domainname": "d" * 65}, "domainname", "maximum 64"),
    ({"isolate": "", "domainname": "d"}, "domainname", "needs a UTS namespace"),
    ({"isolate": "uts", "uid_map": [(0, OWN, 1)]}, "uid_map", "needs a user namespace"),
    ({"isolate": "uts", "uid_map": "subordinate"}, "uid_map", "needs a user namespace"),
    ({"isolate": "uts", "gid_map": [(0, 0, 1)]}, "gid_map", "needs a user namespace"),
    ({"isolate": "uts", "setgroups": "deny"}, "setgroups", "needs a user namespace"),
    ({"isolate": "user", "setgroups": "maybe"}, "setgroups", "neither 'allow' nor 'deny'"),
    ({"isolate": "user", "uid_map": "double"}, "uid_map", "neither 'single', 'subordinate' nor lines"),
    ({"isolate": "user", "uid_map": []}, "uid_map", "at least one line"),
    ({"isolate": "user", "uid_map": 5}, "uid_map", "neither 'single', 'subordinate' nor lines"),
    ({"isolate": "user", "uid_map": [(0, 1)]}, "uid_map", r"\(0, 1\) is not \(inside, outside, count\)"),
    ({"isolate": "user", "uid_map": [(0, "x", 1)]}, "uid_map", "three whole numbers"),
    ({"isolate": "user", "uid_map": [(0, 1.5, 1)]}, "uid_map", "three whole numbers"),
    ({"isolate": "user", "uid_map": [(0, OWN, 0)]}, "uid_map", "count must be at least 1"),
    ({"isolate": "user", "uid_map": [(-1, OWN, 1)]}, "uid_map", "ids lie between 0 and 4294967294"),
    ({"isolate": "user", "uid_map": [(0, 4294967290, 6)]}, "uid_map", "ids lie between"),
    ({"isolate": "user", "uid_map": [(0, 10, 5), (4, 20, 1)]}, "uid_map", r"\(0, 10, 5\) and \(4, 20, 1\) overlap inside"),
    ({"isolate": "user", "uid_map": [(10, 4, 1), (0, 0, 5)]}, "uid_map", "overlap outside"),
    ({"isolate": "user", "uid_map": [(2 * i, 2 * i, 1) for i in range(341)]}, "uid_map", "341 lines; .*at most 340"),
    ({"isolate": "user", "gid_map": [(0, 10, 5), (4, 20, 1)]}, "gid_map", "overlap inside"),
    ({"isolate": "user", "uid_map": [(10**5 * i, 10**9 + 10**5 * i, 10**5) for i in range(300)]}, "uid_map", "4095 bytes"),
    ({"isolate": "uts", "clock": {"monotonic": 1}}, "clock", "needs a time namespace"),
    ({"isolate": "time", "clock": {"realtime": 1}}, "clock", "'realtime' has no offset; only monotonic and boottime"),
    ({"isolate": "time", "clock": {"monotonic": "1 week"}}, "clock", "'1 week' is not a number of seconds"),
    ({"isolate": "time", "clock": {"monotonic": float("nan")}}, "clock", "not a number of seconds"),
    ({"isolate": "time", "clock": {"boottime": "1e400"}}, "clock", "not a number of seconds"),
    ({"isolate": "time", "clock": {"boottime": 10**12}}, "clock", "too large"),
    ({"isolate": "time", "clock": {"monotonic": "-9999999d"}}, "clock", "would be negative"),
    ({"isolate": "time", "clock": "+1d"}, "clock", "must be a dict"),
    ({"isolate": "uts", "loopback": True}, "loopback", "needs a network namespace"),
    ({"isolate": "mnt", "mqueue": "/dev/mqueue"}, "mqueue", "of kind ipc"),
    ({"isolate": "ipc", "mqueue": "/dev/mqueue"}, "mqueue", "of kind mnt"),
    ({"isolate": "ipc mnt", "mqueue": "dev/mqueue"}, "mqueue", "absolute path"),
    ({"isolate": "net", "sysctls": {"kernel.shmmax": 1}}, "sysctls", "kernel.shmmax is of kind ipc"),
    ({"isolate": "ipc", "sysctls": {"shmmax": 1}}, "sysctls", "'shmmax' is no name of a sysctl"),
    ({"isolate": "ipc", "sysctls": {"kernel/../kernel/shmmax": 1}}, "sysctls", "no name of a sysctl"),
    ({"isolate": "ipc", "sysctls": {"kernel.shmmax": 1.5}}, "sysctls", "whole number or text"),
    ({"isolate": "ipc", "sysctls": "kernel.shmmax=1"}, "sysctls", "must be a dict"),
    ({"isolate": "net", "sysctls": {"net.nope": 1}}, "sysctls", "there is no net.nope on this machine"),
    ({"isolate": "net", "sysctls": {"net.ipv4.ip_forwart": 1}}, "sysctls", "did you mean 'net.ipv4.ip_forward'"),
    ({"isolate": "UTS"}, "isolate", "did you mean 'uts'"),
    ({"isolate": "time", "clock": {"Monotonic": 1}}, "clock", "did you mean 'monotonic'"),
    ({"isolate": "mnt", "rootfs": "busibox"}, "rootfs", "did you mean 'busybox'"),
    ({"limits": {"pids": -1}}, "limits", "pids is a whole number from 3 .* not -1"),
    ({"limits": {"pid": 5}}, "limits", "did you mean 'pids'"),
    ({"isolate": "pid mnt", "proc": "bind"}, "proc", "neither 'new' nor 'old'"),
]  # fmt: skip

BAD_COMMANDS = [
    ({"command": ""}, "command", "is empty"),
    ({"command": "  \n"}, "command", "is empty"),
    ({"command": []}, "command", "is empty"),
    ({"command": [""]}, "command", "is empty"),
    ({"command": "echo a\0b"}, "command", "NUL"),
    ({"command": ["echo", 5]}, "command", "must be text"),
    ({"command": None}, "command", "must be text or a list"),
    ({"command": ["no-such-program"]}, "command", "no program 'no-such-program' in PATH"),
    ({"command": "/no/such/program"}, "command", "no program '/no/such/program'"),
    ({"command": ["/etc"]}, "command", "'/etc' is a folder, not a program"),
    ({"command": "true", "cwd": "/no/such/folder"}, "cwd", "there is no folder /no/such/folder"),
    ({"command": "true", "cwd": "/etc/passwd"}, "cwd", "/etc/passwd is a file, not a folder"),
    ({"command": "true", "cwd": "/etc/passwd/in"}, "cwd", "there is no folder /etc/passwd/in"),
    ({"command": ["true"], "env": {"PATH": "/nowhere"}}, "command", r"in PATH \(/nowhere\)"),
    ({"command": "true", "env": {"A=B": "c"}}, "env", "'A=B' cannot be the name of a variable"),
    ({"command": "true", "env": {"": "c"}}, "env", "cannot be the name"),
    ({"command": "true", "env": {"A": "b\0"}}, "env", "NUL"),
    ({"command": "true", "env": {"A": 5}}, "env", "must be text"),
    ({"command": "true", "env": ["A=b"]}, "env", "must be a dict"),
    ({"command": "true", "cwd": "a\0b"}, "cwd", "NUL"),
    ({"command": "true", "cwd": 5}, "cwd", "must be text"),
    ({"command": "true", "timeout": -1}, "timeout", "at least 0"),
    ({"command": "true", "timeout": float("nan")}, "timeout", "a number of seconds"),
    ({"command": "true", "timeout": "5"}, "timeout", "a number of seconds"),
    ({"command": "true", "max_output": -1}, "max_output", "at least 0"),
    ({"command": "true", "input": 5}, "input", "must be text or bytes"),
    ({"command": "true", "user": "no-such-user"}, "user", "no user 'no-such-user'"),
    ({"command": "true", "user": -1}, "user", "no user id"),
    ({"command": "true", "user": 2**32 - 1}, "user", "no user id"),
    ({"command": "true", "stream": 5}, "stream", "True, False or a function"),
]  # fmt: skip


def name(case: object) -> str | None:
    return str(case)[:60].replace(" ", "") if isinstance(case, dict) else ""


def refused(call: Callable[[], object], argument: str, rule: str) -> None:
    """The error is a SpecError (so a ValueError), and not one system call was made nor a process."""

    def children() -> str:
        return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))

    before = children()
    with nslab.record() as trace, pytest.raises(nslab.SpecError, match=rule) as caught:
        call()
    assert caught.value.argument == argument
    assert str(caught.value) == f"{argument}: {caught.value.rule}"
    assert isinstance(caught.value, ValueError)
    assert len(trace) == 0
    assert trace.shell() == "\n"
    assert children() == before


@pytest.mark.parametrize(("options", "argument", "rule"), BAD_REQUESTS, ids=name)
@pytest.mark.parametrize("make", [lambda **options: nslab.run("true", **options), nslab.Container, nslab.Stepper],
                         ids=["run", "Container", "Stepper"])  # fmt: skip
def test_a_request_that_cannot_be(make, options, argument, rule) -> None:
    refused(lambda: make(**options), argument, rule)


@pytest.mark.parametrize(("options", "argument", "rule"), BAD_COMMANDS, ids=name)
def test_a_command_that_cannot_be(options, argument, rule) -> None:
    refused(lambda: nslab.run(isolate="uts", **options), argument, rule)


def test_a_command_for_a_container_that_cannot_be() -> None:
    with nslab.Container(isolate="uts") as container:
        for options, argument, rule in BAD_COMMANDS:
            refused(lambda options=options: container.run(**options), argument, rule)
        assert container.run("true").returncode == 0


def test_a_command_for_a_steered_process_that_cannot_be() -> None:
    with nslab.process() as process:
        for options, argument, rule in BAD_COMMANDS:
            unknown = any(word in rule for word in ("program", "PATH", "folder"))  # its root may be another one
            if argument != "user" and not unknown:
                refused(lambda options=options: process.run(**options), argument, rule)
        assert process.run("true").returncode == 0


@pytest.mark.parametrize(
    ("order", "argument", "rule"),
    [
        (lambda p: p.unshare("utz"), "kinds", "did you mean 'uts'"),
        (lambda p: p.unshare(""), "kinds", "at least one"),
        (lambda p: p.sethostname("a\0"), "name", "NUL"),
        (lambda p: p.sethostname(5), "name", "must be text"),
        (lambda p: p.setdomainname("a\0"), "name", "NUL"),
        (lambda p: p.mount("a", "/b", None, "MS_WRONG"), "flags", "'MS_WRONG' is none of MS_RDONLY"),
        (lambda p: p.mount("a", 5), "target", "must be text"),
        (lambda p: p.mount("a\0", "/b"), "source", "NUL"),
        (lambda p: p.umount("a\0"), "target", "NUL"),
        (lambda p: p.chdir("a\0"), "path", "NUL"),
        (lambda p: p.chroot("a\0"), "path", "NUL"),
        (lambda p: p.pivot_root("a\0", "b"), "new_root", "NUL"),
        (lambda p: p.write("/proc/self/uid_map", 5), "text", "must be text"),
        (lambda p: p.write("a\0b", ""), "path", "NUL"),
        (lambda p: p.read("a\0b"), "path", "NUL"),
        (lambda p: p.setids("root", 0), "uid", "whole number"),
        (lambda p: p.setids(0, -1), "gid", "between 0 and"),
        (lambda p: p.kill("one"), "pid", "whole number"),
        (lambda p: p.kill(1, 999), "number", "no signal"),
    ],
)  # fmt: skip
def test_an_order_that_cannot_be(order, argument, rule) -> None:
    with nslab.process() as process:
        steps = len(process.trace)
        refused(lambda: order(process), argument, rule)
        assert len(process.trace) == steps


@pytest.mark.requires("root")
def test_a_user_that_is_not_there() -> None:
    refused(lambda: nslab.process(as_="no-such-user"), "as_", "neither 'ordinary' nor a user")


@pytest.mark.requires("ordinary")
def test_an_ordinary_user_is_nobody_else() -> None:
    refused(lambda: nslab.process(as_="root"), "as_", "only root")


def test_names_of_kinds() -> None:
    with pytest.raises(nslab.SpecError, match="'utz' is none of mnt, uts"):
        nslab.Namespace.of("self", "utz")
    assert spec.kinds("time uts,pid") == spec.kinds(["pid", "time", "uts", "uts"]) == ("uts", "pid", "time")
    assert len(spec.kinds("all")) == 8
    assert spec.kinds("") == ()


def test_what_is_just_allowed() -> None:
    """The limits themselves: one more is refused above."""
    assert len(spec.id_ranges("uid_map", [(2 * i, 2 * i, 1) for i in range(340)])) == 340
    assert spec.id_ranges("uid_map", [(0, 4294967290, 5)])[0].count == 5
    assert spec.hostname("h" * 64, ("uts",)) == "h" * 64
    assert spec.clock({"monotonic": "-1.5m", "boottime": 2}, ("time",)) == {"monotonic": -90 * 10**9, "boottime": 2 * 10**9}


def test_text_that_is_plainly_a_program_needs_no_shell() -> None:
    assert spec.argv("/bin/echo a b") == ("/bin/echo", "a", "b")
    assert spec.argv("echo a b") == ("/bin/sh", "-c", "echo a b")
    for text in (
        "/bin/echo $HOME",
        "/bin/echo 'a b'",
        "/bin/echo *",
        "/bin/echo a; ls",
        "/bin/echo ~",
        "/bin/echo a\nls",
    ):
        assert spec.argv(text)[:2] == ("/bin/sh", "-c"), text
