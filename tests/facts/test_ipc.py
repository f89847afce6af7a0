"""What is true of IPC namespaces, each fact shown by the kernel. ipc_namespaces(7), sysvipc(7), mq_overview(7)"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import nslab
from nslab import ipc, syscalls
from nslab.model import KINDS
from tests.helpers import link

IPC, CLONE_SYSVSEM = KINDS["ipc"].flag, 0x00040000
KEY = 0x77


@contextmanager
def two() -> Iterator[tuple[nslab.Container, nslab.Container]]:
    with nslab.Container("a", isolate="ipc") as a, nslab.Container("b", isolate="ipc") as b:
        yield a, b


def is_unknown(where: nslab.Container | nslab.Process, find: Callable[..., object], key: int | str = KEY) -> bool:
    with pytest.raises(nslab.SyscallError, match="begins empty") as caught:
        where.call(find, key)
    return caught.value.name == "ENOENT"


def ipcs(where: nslab.Container | nslab.Process) -> int:
    """How many System V objects ipcs(1) shows."""
    return sum(line.startswith("0x") for line in where.run("ipcs").lines)


def test_ipc_01_the_same_key_is_another_segment_elsewhere() -> None:
    with two() as (a, b):
        one = a.call(ipc.SharedMemory.create, KEY)
        assert is_unknown(b, ipc.SharedMemory.open)
        other = b.call(ipc.SharedMemory.create, KEY)
        a.call(one.write, b"of a")
        b.call(other.write, b"of b")
        assert (a.call(one.read, 4), b.call(other.read, 4)) == (b"of a", b"of b")


def test_ipc_02_a_lock_behind_a_key_blocks_nobody_elsewhere() -> None:
    with two() as (a, b):
        one = a.call(ipc.Semaphores.create, KEY)
        assert is_unknown(b, ipc.Semaphores.open)
        other = b.call(ipc.Semaphores.create, KEY)
        assert a.call(one.acquire, wait=False)
        assert b.call(other.acquire, wait=False)
        assert not a.call(one.acquire, wait=False)
        assert a.trace.failed[-1].call == "semop"


def test_ipc_03_messages_under_one_key_do_not_cross() -> None:
    with two() as (a, b):
        one = a.call(ipc.MessageQueue.create, KEY)
        assert is_unknown(b, ipc.MessageQueue.open)
        other = b.call(ipc.MessageQueue.create, KEY)
        a.call(one.send, b"of a")
        b.call(other.send, b"of b")
        assert a.call(one.receive, wait=False) == b"of a"
        assert a.call(one.receive, wait=False) is None


@pytest.mark.parametrize("sort", [ipc.SharedMemory, ipc.Semaphores, ipc.MessageQueue])
def test_ipc_04_without_a_new_namespace_forks_share_objects(sort) -> None:
    with nslab.process() as parent, parent.fork() as one, parent.fork() as other:
        made = one.call(sort.create)
        assert other.call(sort.open, made.key) == made
        other.call(made.remove)
        assert is_unknown(one, sort.open, made.key)


def test_ipc_05_a_posix_queue_is_unknown_elsewhere_and_can_be_made_anew() -> None:
    with nslab.process() as process:
        process.unshare("ipc")
        process.call(ipc.PosixQueue.create, "/jobs")
        with process.fork() as child:
            child.call(ipc.PosixQueue.open, "/jobs")
            child.unshare("ipc")
            assert is_unknown(child, ipc.PosixQueue.open, "/jobs")
            child.call(ipc.PosixQueue.create, "/jobs")
            with pytest.raises(nslab.SyscallError, match="already") as caught:
                child.call(ipc.PosixQueue.create, "/jobs")
            assert caught.value.name == "EEXIST"


def test_ipc_06_a_mount_shows_the_namespace_of_who_mounted_it() -> None:
    with nslab.process() as process:
        process.unshare("ipc mnt")
        process.mount("mqueue", "/mnt", "mqueue")
        process.call(ipc.PosixQueue.create, "/outer")
        process.unshare("ipc")
        process.call(ipc.PosixQueue.create, "/inner")
        assert process.run("ls /mnt").stdout == "outer\n"
        process.mount("mqueue", "/mnt", "mqueue")
        assert process.run("ls /mnt").stdout == "inner\n"
        assert [each.name for each in process.ipc()] == ["/inner"]


def test_ipc_07_a_mount_keeps_the_namespace_alive_but_closed() -> None:
    with nslab.process() as process:
        process.unshare("mnt")
        with process.fork() as child:
            child.unshare("ipc")
            child.call(ipc.PosixQueue.create, "/left")
            child.mount("mqueue", "/mnt", "mqueue")
        assert process.run("ls /mnt").stdout == "left\n"
        touch = process.run("touch /mnt/new")
        assert touch.returncode != 0
        assert "Permission denied" in touch.stderr


@pytest.mark.requires("tool:ipcmk")
def test_ipc_08_objects_outlive_their_maker_but_not_their_namespace() -> None:
    with nslab.process() as process:
        process.unshare("ipc")
        with process.fork() as child:
            for option in ("-M 4096", "-Q", "-S 1"):
                child.run(f"ipcmk {option}", check=True)
        assert ipcs(process) == 3
        with process.fork() as child:
            child.unshare("ipc")
            assert ipcs(child) == 0


def test_ipc_09_listings_and_limits_are_separate() -> None:
    files = ("/proc/sys/kernel/msgmni", "/proc/sys/fs/mqueue/msg_max")
    before = [Path(file).read_text() for file in files]
    with nslab.process() as process:
        process.unshare("ipc")
        defaults = [process.read(file) for file in files]
        for file in files:
            process.write(file, "7")
        process.call(ipc.SharedMemory.create)
        assert len(process.read("/proc/sysvipc/shm").splitlines()) == 2
        with process.fork() as child:
            child.unshare("ipc")
            assert [child.read(file) for file in files] == defaults, "the kernel's, not the creator's"
            assert len(child.read("/proc/sysvipc/shm").splitlines()) == 1
    assert [Path(file).read_text() for file in files] == before


def test_ipc_09_a_limit_of_ones_own_holds() -> None:
    with nslab.Container(isolate="user ipc", sysctls={"kernel.shmmax": 4096, "fs.mqueue.msg_max": 2}) as web:
        web.call(ipc.SharedMemory.create, size=4096)
        with pytest.raises(nslab.SyscallError, match=r"kernel\.shmmax \(4096\)") as caught:
            web.call(ipc.SharedMemory.create, size=4097)
        assert caught.value.name == "EINVAL"


def test_ipc_10_joining_again_makes_the_segment_known_again() -> None:
    with nslab.process() as process:
        process.unshare("ipc")
        segment = process.call(ipc.SharedMemory.create)
        process.call(segment.write, b"kept")
        with process.namespaces["ipc"] as saved:
            process.unshare("ipc")
            with pytest.raises(nslab.SyscallError, match="count in each namespace") as caught:
                process.call(segment.read)
            assert (caught.value.call, caught.value.name) == ("shmat", "EINVAL")
            process.setns(saved)
            assert process.call(segment.read, 4) == b"kept"


def test_ipc_11_undoing_does_not_cross() -> None:
    with nslab.process() as process:
        with pytest.raises(nslab.SyscallError) as caught:
            process.call(syscalls.clone3, IPC | CLONE_SYSVSEM)
        assert caught.value.name == "EINVAL"
        process.unshare("ipc")
        semaphore = process.call(ipc.Semaphores.create)
        with process.fork() as child, process.namespaces["ipc"] as saved:
            child.call(semaphore.acquire, undo=True)
            assert process.call(semaphore.values) == [0]
            child.unshare("ipc")
            assert process.call(semaphore.values) == [1]
            child.setns(saved)
            assert child.call(semaphore.values) == [1]


def keep(segment: ipc.SharedMemory) -> None:
    sys.modules["kept"] = segment.attach()  # type: ignore[assignment]


def kept() -> bytes:
    return sys.modules["kept"].read(4)  # type: ignore[attr-defined,no-any-return]


def test_ipc_12_paths_pipes_and_what_is_attached_stay(tmp_path: Path) -> None:
    file = Path("/dev/shm", tmp_path.name)
    with nslab.process() as process:
        process.unshare("ipc")
        segment = process.call(ipc.SharedMemory.create)
        process.call(segment.write, b"here")
        process.call(keep, segment)
        before = link("ipc", process.pid)
        process.unshare("ipc mnt")
        assert link("ipc", process.pid) != before
        assert process.call(kept) == b"here"
        assert process.run("echo through a pipe | cat").stdout == "through a pipe\n"
        file.write_text("seen")
        try:
            assert process.read(str(file)) == "seen"
            process.mount("tmpfs", "/dev/shm", "tmpfs")
            assert not process.call(os.path.exists, str(file))
        finally:
            file.unlink()
