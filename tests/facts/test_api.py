"""What is true of the calls and files by which namespaces are made, held, entered and asked. namespaces(7)"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
from errno import EACCES, EBADF, EINVAL, ENOTTY, EPERM, ESRCH
from pathlib import Path

import pytest

import nslab
from nslab import syscalls
from nslab.model import KINDS, flags_of
from tests.facts.test_pid import failing
from tests.facts.test_user import somebody
from tests.helpers import has_ended, link, listed, pidfd_of

USER, UTS, NET, PID = (KINDS[kind].flag for kind in ("user", "uts", "net", "pid"))
ROOT = os.getuid() == 0


def asked(question, kind: str, pid: int | str = "self") -> int:
    """The errno of a question about the namespace of a process, 0 for an answer."""
    with open(f"/proc/{pid}/ns/{kind}") as file:
        try:
            os.close(question(file.fileno()))
        except nslab.SyscallError as error:
            return error.errno or -1
    return 0


def answered(question, kind: str, pid: int | str = "self") -> str:
    """The namespace that a question leads to."""
    with open(f"/proc/{pid}/ns/{kind}") as file:
        fd = question(file.fileno())
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def first_members(kind: str) -> dict[str, str]:
    """What lsns(8) finds: inode and first member of each namespace."""
    return dict(line.split() for line in listed("--type", kind, "--output", "NS,PID").splitlines())


# -- what they are ----------------------------------------------------------------------------------------------------


def test_api_01_one_namespace_is_one_device_and_inode() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        same, other = process.fork(), process.fork("uts")
        ids = [(info.st_dev, info.st_ino) for info in (os.stat(f"/proc/{each.pid}/ns/uts") for each in (process, same, other))]
        assert ids[0] == ids[1] != ids[2]
        assert [link("uts", each.pid) for each in (process, same, other)] == [f"uts:[{inode}]" for _, inode in ids]
        process.sethostname("shared")
        assert (same.gethostname(), other.gethostname() == "shared") == ("shared", False)


def test_api_02_a_descriptor_keeps_it_alive() -> None:
    with nslab.process() as process:
        maker = process.fork("uts")
        maker.sethostname("held")
        with maker.namespaces["uts"] as held:
            maker.close()
            assert held.members() == []
            process.setns(held)
        assert process.gethostname() == "held"


@pytest.mark.requires("root", "tool:unshare", "tool:nsenter", "tool:lsns")
def test_api_03_a_bind_mount_keeps_it_alive(tmp_path: Path) -> None:
    file = tmp_path / "uts"
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount("none", str(tmp_path), "tmpfs")
        process.run(["touch", str(file)], check=True)
        process.run(["unshare", f"--uts={file}", "hostname", "mounted"], check=True)
        assert process.run(["nsenter", f"--uts={file}", "hostname"]).stdout == "mounted\n"
        inode = process.call(lambda: os.stat(file).st_ino)
        assert str(inode) not in first_members("uts")
        assert process.run(["findmnt", "--noheadings", "--output", "FSTYPE", str(file)]).stdout == "nsfs\n"
        process.umount(str(file))
        assert process.run(["nsenter", f"--uts={file}", "hostname"]).returncode != 0


@pytest.mark.requires("tool:lsns")
def test_api_04_with_nothing_that_holds_it_it_is_gone() -> None:
    with nslab.process() as process:
        child = process.fork("uts")
        inode, number = str(os.stat(f"/proc/{child.pid}/ns/uts").st_ino), str(child.pid)
        assert first_members("uts").get(inode) == number
        with child.namespaces["uts"] as held:
            child.close()
            assert held.members() == []
        assert first_members("uts").get(inode) != number, "the inode may be another one's by now"


# -- entering and leaving ---------------------------------------------------------------------------------------------


def test_api_05_what_setns_takes() -> None:
    def tried(kind: str, flag: int) -> int:
        with open(f"/proc/self/ns/{kind}") as file:
            return failing(syscalls.setns, file.fileno(), flag)

    def of_a_file() -> int:
        with open("/proc/self/status") as file:
            return failing(syscalls.setns, file.fileno(), 0)

    with nslab.process() as process:
        process.unshare("uts")
        assert process.call(failing, syscalls.setns, -1, 0) == EBADF
        assert process.call(of_a_file) == EINVAL
        assert process.call(tried, "uts", NET) == EINVAL
        assert process.call(tried, "uts", UTS) == process.call(tried, "uts", 0) == 0


def test_api_06_what_unshare_takes() -> None:
    def own() -> int:
        with open("/proc/self/ns/uts") as file:
            return failing(syscalls.setns, file.fileno(), UTS)

    with somebody() as process:
        before = [link(kind, process.pid) for kind in KINDS]
        assert process.call(failing, syscalls.unshare, 0) == 0
        assert process.call(failing, syscalls.unshare, 1) == EINVAL
        for kind, row in KINDS.items():
            if kind != "user":
                assert process.call(failing, syscalls.unshare, row.flag) == EPERM
        assert process.call(own) == EPERM
        assert [link(kind, process.pid) for kind in KINDS] == before
        assert process.call(failing, syscalls.unshare, USER) == 0


def test_api_07_a_pidfd_joins_several_at_once() -> None:
    def join(pid: int, flags: int) -> int:
        pidfd = os.pidfd_open(pid)
        try:
            return failing(syscalls.setns, pidfd, flags)
        finally:
            os.close(pidfd)

    def join_the_dead() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        pidfd = os.pidfd_open(pid)
        os.waitpid(pid, 0)
        try:
            return failing(syscalls.setns, pidfd, UTS)
        finally:
            os.close(pidfd)

    with nslab.process() as process:
        target = process.fork("uts net ipc")
        assert process.call(join, target.pid, 0) == EINVAL
        assert process.call(join_the_dead) == ESRCH
        assert process.call(join, target.pid, UTS | NET) == 0
        joined = [kind for kind in KINDS if link(kind, process.pid) == link(kind, target.pid) != link(kind)]
        assert [kind for kind in joined if kind in ("uts", "net", "ipc")] == ["uts", "net"]


def test_api_08_one_clone3_makes_all_eight() -> None:
    with nslab.process() as process:
        child = process.fork("all")
        (made,) = [step for step in process.trace if step.call == "clone3" and "CLONE_NEWUTS" in step.args[0]]
        assert sorted(made.args[0].split("|")) == sorted(kind.symbol for kind in KINDS.values())
        assert all(link(kind, child.pid) != link(kind, process.pid) for kind in KINDS)
        assert flags_of(tuple(KINDS)) == 0x7E020080


# -- asking -----------------------------------------------------------------------------------------------------------


def test_api_09_the_parent_of_pid_and_user_namespaces() -> None:
    with nslab.process() as process:
        child = process.fork("user pid")
        for kind in ("user", "pid"):
            assert answered(syscalls.ns_get_parent, kind, child.pid) == link(kind, process.pid)
            with child.namespaces[kind] as own, process.namespaces[kind] as above:
                assert own.parent == above
            assert child.call(asked, syscalls.ns_get_parent, kind) == EPERM, "out of sight"
        assert asked(syscalls.ns_get_parent, "pid") == EPERM, "the initial one, or out of sight"
        for kind in set(KINDS) - {"user", "pid"}:
            assert asked(syscalls.ns_get_parent, kind, process.pid) == EINVAL


def test_api_10_the_owner_of_a_namespace() -> None:
    with nslab.process() as process:
        child = process.fork("user uts")
        assert answered(syscalls.ns_get_userns, "uts", child.pid) == link("user", child.pid)
        assert child.call(answered, syscalls.ns_get_userns, "uts") == link("user", child.pid)
        assert answered(syscalls.ns_get_userns, "net", child.pid) == link("user"), "what it shares is the machine's"
        assert child.call(asked, syscalls.ns_get_userns, "net") == EPERM, "which lies above"


def test_api_11_kind_and_owner_by_descriptor() -> None:
    for kind, row in KINDS.items():
        with open(f"/proc/self/ns/{kind}") as file:
            assert syscalls.ns_get_nstype(file.fileno()) == row.flag
    with nslab.process() as process:
        child = process.fork("user uts")
        with child.namespaces["user"] as user, child.namespaces["uts"] as uts:
            assert syscalls.ns_get_owner_uid(user.fileno()) == os.getuid()
            assert failing(syscalls.ns_get_owner_uid, uts.fileno()) == EINVAL


def test_api_12_answers_are_closed_on_exec_and_files_have_none() -> None:
    with nslab.process() as process:
        child = process.fork("uts")
        with child.namespaces["uts"] as uts:
            fd = fcntl.ioctl(uts, syscalls.NS_GET_USERNS)
            try:
                assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            finally:
                os.close(fd)
    with open("/etc/passwd") as file:
        for question in (syscalls.ns_get_userns, syscalls.ns_get_parent, syscalls.ns_get_nstype, syscalls.ns_get_owner_uid):
            assert failing(question, file.fileno()) == ENOTTY


# -- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.requires("root", "tool:nsenter")
def test_api_13_nsenter_forks_into_a_pid_namespace() -> None:
    with nslab.Container(isolate="pid mnt uts net", hostname="target") as web, nslab.process() as process:
        enter = ["nsenter", "--target", str(web.pid)]
        number, links = process.run([*enter, "--pid", "--mount", "sh", "-c", "echo $$; readlink /proc/self/ns/pid"]).lines
        assert 1 < int(number) < 10
        assert links == link("pid", web.pid)
        assert process.run([*enter, "--all", "hostname"]).stdout == "target\n"
        stays = process.run([*enter, "--pid", "--no-fork", "readlink", "/proc/self/ns/pid"])
        assert stays.stdout == f"{link('pid')}\n"


@pytest.mark.requires("tool:unshare")
@pytest.mark.parametrize(("option", "survives"), [("--kill-child", False), ("", True)], ids=["kill-child", "without"])
def test_api_14_unshare_takes_its_child_along_or_not(option: str, survives: bool) -> None:
    with nslab.Container() as box:
        script = f"exec unshare --pid --fork {option} sh -c 'echo ready; exec sleep 1000'"
        unshare = box.popen(script)
        assert unshare.stdout and unshare.stdout.readline() == b"ready\n"
        (child,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        with pidfd_of(int(child)) as pidfd:
            unshare.kill()
            assert unshare.wait(2) == -signal.SIGKILL
            assert has_ended(pidfd, 0.05 if survives else 2) != survives
            unshare.end()


# -- who and how long -------------------------------------------------------------------------------------------------


def test_api_15_membership_is_of_a_thread() -> None:
    def unshared() -> tuple[str, str, str, str]:
        seen: list[str] = []

        def run() -> None:
            syscalls.unshare(UTS)
            socket.sethostname("thread")
            seen.extend([os.uname().nodename, os.readlink("/proc/thread-self/ns/uts")])

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return seen[0], os.uname().nodename, seen[1], os.readlink("/proc/self/ns/uts")

    with nslab.process() as process:
        process.unshare("uts")
        process.sethostname("main")
        in_thread, in_main, its_link, own_link = process.call(unshared)
        assert (in_thread, in_main) == ("thread", "main")
        assert its_link != own_link == link("uts", process.pid)


def test_api_16_a_descriptor_travels_over_a_socket() -> None:
    def send(address: int) -> None:
        with open("/proc/self/ns/uts") as file, socket.socket(fileno=os.dup(address)) as end:
            socket.send_fds(end, [b"!"], [file.fileno()])

    def join(address: int) -> None:
        with socket.socket(fileno=os.dup(address)) as end:
            (fd,) = socket.recv_fds(end, 1, 1)[1]
        syscalls.setns(fd, UTS)
        os.close(fd)

    def pair() -> tuple[int, int]:
        return tuple(end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))  # type: ignore[return-value]

    with nslab.process() as process:
        one, two = process.call(pair)
        maker, joiner = process.fork("uts"), process.fork()
        maker.sethostname("sent")
        maker.call(send, one)
        joiner.call(join, two)
        assert joiner.gethostname() == "sent"
        assert link("uts", joiner.pid) == link("uts", maker.pid) != link("uts", process.pid)


def test_api_17_what_it_owns_keeps_a_user_namespace_alive() -> None:
    with nslab.process() as process:
        child = process.fork("user uts")
        child.sethostname("owned")
        user = link("user", child.pid)
        with child.namespaces["uts"] as uts:
            child.close()
            process.wait(child)  # the dead have a user namespace until they are buried
            owner = uts.owner
            assert owner
            with owner:
                assert str(owner) == user
                assert owner.members() == []
                process.setns(owner)
            process.setns(uts)
            assert process.gethostname() == "owned"


def test_api_18_the_links_of_another_user_are_not_shown() -> None:
    with somebody() as process:
        theirs = os.getpid() if ROOT else 1
        assert os.stat(f"/proc/{theirs}").st_uid == 0
        assert process.call(failing, os.readlink, f"/proc/{theirs}/ns/uts") == EACCES
        assert process.call(failing, os.readlink, "/proc/self/ns/uts") == 0
