"""Sharing namespaces that are there, whoever made them; /proc, read by hand, is the oracle."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

import nslab
from nslab import procfs
from tests.helpers import eventually, has_ended, in_python, link, pidfd_of

LINKS = "for kind in mnt uts ipc pid net user cgroup time; do readlink /proc/self/ns/$kind; done"
ORDINARY = os.getuid() != 0


def links(result: nslab.Result) -> dict[str, str]:
    return dict(zip(KINDS_ASKED, result.check().lines, strict=True))


KINDS_ASKED = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")


@contextlib.contextmanager
def foreign(*options: str) -> Iterator[int]:
    """A process that unshare(1) put into new namespaces, as another tool would."""
    command = ["unshare", *options, "sh", "-c", "echo ready; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def by_bwrap() -> Iterator[int]:
    """The PID of what bubblewrap has put into namespaces of every kind that it knows."""
    out, into = os.pipe()
    command = ["bwrap", "--unshare-all", "--hostname", "wrapped", "--dev-bind", "/", "/", "--proc", "/proc"]
    command += ["--info-fd", str(into), "--die-with-parent", "sh", "-c", "echo ready; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[into]) as process, os.fdopen(out) as info:
        os.close(into)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield json.load(info)["child-pid"]
        finally:
            process.kill()


@pytest.fixture
def web() -> Iterator[nslab.Container]:
    with nslab.Container("web", isolate="uts ipc pid net mnt cgroup time", hostname="web") as container:
        yield container


@pytest.mark.parametrize("kinds", ["uts", "ipc", "pid", "net", "cgroup", "time", "mnt pid"])
def test_what_is_named_is_shared_and_nothing_else(web: nslab.Container, kinds: str) -> None:
    seen = links(nslab.run(LINKS, join={kinds: web}))
    shared = (*kinds.split(), "user")
    assert seen == {kind: link(kind, web.pid if kind in shared else "self") for kind in KINDS_ASKED}
    assert not [kind for kind in kinds.split() if link(kind, web.pid) == link(kind)]


@pytest.mark.parametrize("kinds", ["uts", "ipc", "pid", "net", "cgroup", "time", "mnt pid"])
@pytest.mark.parametrize("handles", [False, True], ids=["of a container", "by handles"])
def test_init_is_in_what_a_container_shares_also_where_nothing_is_new(web: nslab.Container, kinds: str, handles: bool) -> None:
    join = {kind: web.namespaces[kind] for kind in kinds.split()} if handles else {kinds: web}
    with nslab.Container("beside", isolate="", join=join) as beside:
        shared = (*kinds.split(), "user")
        own = {kind: link(kind, web.pid if kind in shared else "self") for kind in KINDS_ASKED}
        assert {kind: link(kind, beside.pid) for kind in KINDS_ASKED} == own
        assert links(beside.run(LINKS)) == own


def test_a_pod_shares_the_network_and_keeps_its_own_name(web: nslab.Container) -> None:
    with nslab.Container("log", isolate="uts pid mnt", hostname="log", join={"net": web}) as log:
        assert log.run("hostname; echo $$").lines[0] == "log"
        assert int(log.run("echo $$").stdout) < 64
        assert link("net", log.pid) == link("net", web.pid)
        assert link("uts", log.pid) not in (link("uts"), link("uts", web.pid))
        assert (log.kinds, log.joined) == (("mnt", "uts", "pid"), ("net",))
        listening = (
            "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); s.accept()"
        )
        web.run("ip link set lo up", check=True)
        server = web.popen(["/usr/bin/python3", "-c", listening])
        assert server.stdout
        port = int(server.stdout.readline())
        log.run(["/usr/bin/python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"], check=True)
        assert server.wait(2) == 0, "it was the same 127.0.0.1"
        assert "joined net" in repr(log)
    assert web.alive


@pytest.mark.parametrize("kinds", ["net", "net ipc uts"])
def test_a_hardened_container_shares_too(web: nslab.Container, kinds: str) -> None:
    with nslab.Container("log", hardened=True, join={kinds: web}) as log:
        result = log.run(["/bin/sh", "-c", LINKS + "; grep NoNewPrivs /proc/self/status"]).check()
        seen = dict(zip(KINDS_ASKED, result.lines, strict=False))
        for kind in kinds.split():
            assert seen[kind] == link(kind, web.pid)
        assert seen["mnt"] not in (link("mnt"), link("mnt", web.pid))
        assert result.lines[-1].split() == ["NoNewPrivs:", "1"]
    for kind in ("user", "mnt", "pid"):
        with pytest.raises(nslab.SpecError, match=f"a hardened container has a {kind} namespace of its own"):
            nslab.run("true", hardened=True, join={kind: web})


def test_a_shared_pid_namespace_shows_the_same_processes(web: nslab.Container) -> None:
    sleeper = web.popen(["sleep", "1000"])
    with nslab.Container("log", isolate="mnt", join={"pid": web}) as log:
        assert link("pid", log.pid) == link("pid", web.pid)
        assert str(sleeper.pid_inside) in log.run("ps -e -o pid=").stdout.split()
        log.run(f"kill {sleeper.pid_inside}", check=True)
        assert sleeper.wait(2) == -signal.SIGTERM


@pytest.mark.requires("tool:busybox")
def test_a_shared_mount_table_with_another_root() -> None:
    with nslab.Container("box", isolate="mnt pid", rootfs="busybox") as box:
        assert nslab.run(["pwd"], join={"mnt pid": box}).stdout == "/\n"
        with nslab.Container("beside", isolate="uts", join={"mnt pid": box}) as beside:
            assert beside.run(["cat", "/proc/self/comm"], cwd="proc").stdout == "cat\n"
            with pytest.raises(nslab.SyscallError, match="no-such-program"):
                beside.run(["no-such-program"])
            assert beside.call(os.listdir, "/") == box.call(os.listdir, "/")


def test_a_new_clock_in_a_mount_table_whose_proc_is_of_others(web: nslab.Container) -> None:
    with nslab.Container(isolate="time", clock={"monotonic": 1000}, join={"mnt": web}) as box:
        assert link("time", box.pid) not in (link("time"), link("time", web.pid))
        assert 900 < box.call(time.monotonic) - time.monotonic() < 1100
        assert box.run("pwd").stdout == "/\n"


def test_what_ends_with_a_shared_pid_namespace(web: nslab.Container) -> None:
    log = nslab.Container("log", isolate="uts", join={"pid": web})
    with pidfd_of(log.pid) as pidfd:
        web.close()
        assert has_ended(pidfd), "the kernel ends every member with its init"
    with pytest.raises(nslab.DeadNamespace):
        log.run("true")
    log.close()


@pytest.mark.parametrize("kinds", ["", "uts", "user", "user pid mnt", "time"])
def test_shared_and_new_at_once(kinds: str) -> None:
    with nslab.Container(isolate="user net ipc") as web:
        seen = links(nslab.run(LINKS, isolate=kinds, join={"net": web, "ipc": web}))
        for kind in KINDS_ASKED:
            if kind in ("net", "ipc"):
                assert seen[kind] == link(kind, web.pid)
            elif kind in kinds.split():
                assert seen[kind] not in (link(kind), link(kind, web.pid))
            elif kind != "user":
                assert seen[kind] == link(kind)


@pytest.mark.parametrize("kinds", ["", "uts", "user mnt"])
def test_a_user_namespace_is_shared(kinds: str) -> None:
    with nslab.Container(isolate="user uts", hostname="there") as web:
        result = nslab.run(
            "readlink /proc/self/ns/user; id -u; hostname",
            isolate=kinds,
            join={"user": web} if "user" not in kinds else {"uts": web},
        )
        user, uid, name = result.check().lines
        assert uid == "0"
        if "user" not in kinds:
            assert user == link("user", web.pid)
        else:
            assert name == "there"


@pytest.mark.requires("root")
def test_a_shared_user_namespace_with_other_ids() -> None:
    with nslab.Container(isolate="user mnt pid", uid_map="subordinate") as web:
        first = int(web.run("cat /proc/self/uid_map").stdout.split()[1])
        for kinds, join in (("uts", "user"), ("pid", "user"), ("uts", "user mnt pid"), ("uts", "user mnt"), ("", "user mnt")):
            result = nslab.run("id -u; id -g", isolate=kinds, join={join: web})
            assert result.check().lines == ["0", "0"], (kinds, join)
        for join in ("mnt pid", "user mnt pid", "user"):
            with nslab.Container(isolate="ipc" if "user" in join else "user", join={join: web}) as box:
                assert box.run("id -u").stdout == "0\n"
        below = nslab.run("id -u; cat /proc/self/uid_map", isolate="user", join={"mnt pid": web}, uid_map=[(0, first, 5)])
        assert below.check().stdout.split() == ["0", "0", str(first), "5"]


# -- what other tools made ------------------------------------------------------------------------------------------------

OWN_USER = ("--user", "--map-root-user") if ORDINARY else ()


@pytest.mark.requires("tool:unshare")
@pytest.mark.parametrize("kinds", ["", "mnt pid", "user uts"])
def test_what_unshare_made(kinds: str) -> None:
    with foreign(*OWN_USER, "--net", "--ipc") as pid:
        seen = links(nslab.run(LINKS, isolate=kinds, join={"net": pid, "ipc": pid}))
        assert seen["net"] == link("net", pid)
        assert seen["ipc"] == link("ipc", pid)
        if ORDINARY and "user" not in kinds:
            assert seen["user"] == link("user", pid), "an ordinary user must enter that one first"
        with nslab.Container("beside", isolate=kinds, join={"net ipc": pid}) as beside:
            assert link("net", beside.pid) == link("net", pid)
            assert beside.run("readlink /proc/self/ns/net; id -u").lines == [link("net", pid), "0"]
            assert nslab.run("readlink /proc/self/ns/net", join={"net": beside}).stdout.strip() == link("net", pid)


@pytest.mark.requires("tool:unshare")
def test_nothing_of_a_command_stays_in_a_pid_namespace_of_others() -> None:
    with foreign(*OWN_USER, "--pid", "--fork", "--kill-child") as pid:
        (init,) = procfs.children(pid)
        with pytest.raises(nslab.CommandTimeout):
            nslab.run("sleep 1001 & sleep 1002; true", join={"pid": init}, timeout=0.3)
        assert eventually(lambda: {procfs.stat(child).state for child in procfs.children(init)} <= {"Z"}), (
            "its init buries none"
        )


@pytest.mark.requires("root", "tool:unshare")
def test_what_unshare_made_with_a_user_namespace_is_open_to_root() -> None:
    with foreign("--user", "--map-root-user", "--net", "--uts") as pid:
        seen = links(nslab.run(LINKS, isolate="mnt", join={"net": pid}))
        assert (seen["net"], seen["user"]) == (link("net", pid), link("user"))
        seen = links(nslab.run(LINKS, isolate="mnt", join={"net uts user": pid}))
        assert [seen[kind] for kind in ("net", "uts", "user")] == [link(kind, pid) for kind in ("net", "uts", "user")]


@pytest.mark.requires("tool:bwrap")
def test_what_bwrap_made() -> None:
    with by_bwrap() as pid:
        seen = links(nslab.run(LINKS, isolate="time", join={"net uts pid mnt": pid}))
        assert [seen[kind] for kind in ("net", "uts", "pid", "mnt")] == [
            link(kind, pid) for kind in ("net", "uts", "pid", "mnt")
        ]
        assert nslab.run("hostname", join={"uts": pid}).stdout == "wrapped\n"


@pytest.mark.requires("root", "tool:runc", "tool:busybox")
def test_what_runc_made(tmp_path) -> None:
    (tmp_path / "rootfs" / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tmp_path / "rootfs" / "bin" / "sleep")
    subprocess.run(["runc", "spec"], cwd=tmp_path, check=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"] |= {"args": ["/bin/sleep", "1000"], "terminal": False}
    config["hostname"] = "contained"
    config["linux"].pop("resources", None)
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    name = f"nslab-test-{os.getpid()}"
    runc = ["runc", "--root", str(tmp_path / "state")]
    pid_file = tmp_path / "pid"
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.run([*runc, "run", "--detach", "--pid-file", str(pid_file), name], cwd=tmp_path, check=True, **quiet)
    try:
        pid = int(pid_file.read_text())
        seen = links(nslab.run(LINKS, join={"net uts": pid}))
        assert (seen["net"], seen["uts"]) == (link("net", pid), link("uts", pid))
        with nslab.Container(isolate="ipc", join={"uts": pid, "pid": pid}) as beside:
            assert beside.run("hostname").stdout == "contained\n"
            assert link("pid", beside.pid) == link("pid", pid)
    finally:
        subprocess.run([*runc, "delete", "--force", name], check=True)


@pytest.mark.requires("ordinary")
def test_an_ordinary_user_cannot_be_in_two_places() -> None:
    with foreign(*OWN_USER, "--net") as pid, nslab.Container(isolate="uts") as web:
        with pytest.raises(nslab.SpecError, match="different user namespaces"):
            nslab.run("true", join={"net": pid, "uts": web})
        with foreign(*OWN_USER, "--ipc") as other, pytest.raises(nslab.SpecError, match="different user namespaces"):
            nslab.run("true", join={"net": pid, "ipc": other})


# -- steered processes and handles ----------------------------------------------------------------------------------------


def test_a_steered_process_and_a_handle_are_joined_too() -> None:
    with nslab.process() as process:
        process.unshare("uts ipc")
        process.sethostname("by-hand")
        assert nslab.run("hostname", join={"uts": process}).stdout == "by-hand\n"
        held = process.namespaces["uts"]
    with held:
        assert held.members() == []
        assert nslab.run("hostname", isolate="mnt pid", join={"uts": held}).stdout == "by-hand\n"
        with nslab.Container(join={"uts": held}) as box:
            assert held.members() == [box.pid]


# -- what cannot be, and what is no more ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "isolate", "rule"),
    [
        ({"nett": 1}, "", "did you mean 'net'"),
        ({"net": "web"}, "", "must be a Container, Process, Node, Namespace or a PID, not str"),
        ({"net": None}, "", "not NoneType"),
        ({"net": True}, "", "not bool"),
        ({"net": -1}, "", "does not lie between"),
        ({"net": 2**40}, "", "does not lie between"),
        ({1: 1}, "", "no kind of namespace"),
        ("net", "", "must be a dict"),
        ({"net": os.getpid()}, "net", "can be new .isolate. or joined, not both"),
        ({"net uts": os.getpid(), "uts": os.getpid()}, "", "named twice"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(join, isolate: str, rule: str) -> None:
    with nslab.record() as trace:
        with pytest.raises(nslab.SpecError, match=rule):
            nslab.run("true", isolate=isolate, join=join)
        with pytest.raises(nslab.SpecError, match=rule):
            nslab.Container(isolate=isolate, join=join)
    assert not trace


def test_a_handle_of_another_kind_is_refused() -> None:
    with nslab.Namespace.of("self", "uts") as uts, pytest.raises(nslab.SpecError, match="of another kind"):
        nslab.run("true", join={"net": uts})
    with pytest.raises(nslab.DeadNamespace, match="closed"):
        nslab.run("true", join={"uts": uts})


def test_A31_who_has_ended_is_not_joined() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    container = nslab.Container(isolate="uts")
    process = nslab.process()
    container.close()
    process.close()
    for gone in (child.pid, container, process):
        with nslab.record() as trace, pytest.raises(nslab.DeadNamespace):
            nslab.run("true", join={"uts": gone})
        assert not trace


def test_A31_who_ends_while_it_is_joined(monkeypatch) -> None:
    with foreign(*OWN_USER, "--uts") as pid:
        found = nslab.namespaces.joining.of_pid(pid)
        monkeypatch.setattr("nslab.namespaces.joining.of_pid", lambda _: found)
        with pidfd_of(pid) as pidfd:
            os.kill(pid, signal.SIGKILL)
            assert has_ended(pidfd)
        with pytest.raises(nslab.DeadNamespace):
            nslab.run("true", join={"uts": pid})


def test_A06_a_pid_namespace_without_init_is_said_to_be_that() -> None:
    container = nslab.Container(isolate="pid")
    with container.namespaces["pid"] as held:
        container.close()
        for isolate in ("", "uts"):
            with pytest.raises(nslab.DeadNamespace, match=rf"init .PID 1. of pid:\[{held.id.ino}\] has ended"):
                nslab.run("true", isolate=isolate, join={"pid": held})


def test_A03_what_is_shared_already_is_skipped_and_said() -> None:
    with nslab.Container(isolate="uts") as web:
        with nslab.Stepper(join={"uts": web, "user": web, "net": web, "time": web}) as stepper:
            assert stepper.ops[1 if ORDINARY else 0] == "nothing to do to share these: net, user, time"
            stepper.finish()
            assert stepper.joined == ("uts",)
            assert link("uts", stepper.pid) == link("uts", web.pid)
            calls = [step for step in stepper.trace if step.call == "setns"]
            assert [step.args[1] for step in calls] == ["CLONE_NEWUTS"]
        assert nslab.run("true", join={"all": os.getpid()}).returncode == 0


def test_A04_it_works_from_a_process_with_threads() -> None:
    with foreign(*OWN_USER, "--mount", "--time") as pid:
        done = in_python(f"""
import threading, nslab
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(nslab.run("readlink /proc/self/ns/mnt /proc/self/ns/time", isolate="uts", join={{"mnt time": {pid}}}).stdout)
""")
        assert done.stdout.split() == [link("mnt", pid), link("time", pid)], done.stderr


def test_the_time_namespace_of_another_beside_a_user_namespace_of_ones_own() -> None:
    """It belongs to a user namespace further out, from which alone it can be joined: all at once, then, and not last."""
    with (
        nslab.Container("web", isolate="time uts", hostname="web") as web,
        nslab.Container("beside", isolate="user", join={"time uts": web}) as beside,
    ):
        assert beside.run("readlink /proc/self/ns/time").lines == [str(web.namespaces["time"])]
        assert beside.run("hostname").lines == ["web"]
