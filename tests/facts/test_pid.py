"""What is true of PID namespaces, each fact shown by the kernel. pid_namespaces(7)"""

from __future__ import annotations

import builtins
import ctypes
import fcntl
import os
import select
import signal
import struct
import threading
from pathlib import Path

import pytest

import nslab
from nslab import syscalls
from nslab.model import KINDS
from tests.helpers import connected, eventually, has_ended, link, pidfd_of, state

PID = KINDS["pid"].flag
USR1 = signal.SIGUSR1


def refused(process: nslab.Process, errno: str, call: str, *args: object) -> str:
    """Make a call that must fail so; what the error says."""
    with pytest.raises(nslab.SyscallError) as caught:
        getattr(process, call)(*args)
    assert caught.value.name == errno
    return str(caught.value)


def failing(function, *args) -> int:
    """The errno with which a function of Python fails, 0 when it does not."""
    try:
        function(*args)
    except OSError as error:
        return error.errno or -1
    return 0


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def sender(number: int) -> int:
    """Take a blocked signal, which must come within two seconds; who sent it."""
    info = signal.sigtimedwait({number}, 2)
    assert info
    return info.si_pid


def block(number: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_pid_01_the_first_process_is_1_and_its_parent_0() -> None:
    with nslab.process() as process:
        first = process.fork("pid")
        assert (first.getpid(), first.call(os.getppid)) == (1, 0)
        assert parent(first.pid) == process.pid
        assert process.run(["unshare", "--pid", "--fork", "sh", "-c", "echo $$ $PPID"]).stdout == "1 0\n"
        assert process.fork().call(os.getppid) == process.pid


def test_pid_02_one_number_is_alive_in_two_namespaces_at_once() -> None:
    with nslab.Container(isolate="pid") as one, nslab.Container(isolate="pid") as two, nslab.process() as process:
        assert one.pids[-1] == two.pids[-1] == 1
        assert one.pid != two.pid
        twins = [process.fork("pid").fork(set_tid=[77]) for _ in range(2)]
        assert [twin.getpid() for twin in twins] == [77, 77]
        assert twins[0].pid != twins[1].pid
        assert one.alive and two.alive and all(twin.alive for twin in twins)


def test_pid_03_a_process_has_one_pid_a_level() -> None:
    with nslab.process() as process:
        inner = process.fork("pid").fork("pid", set_tid=[1, 33])
        line = next(row for row in Path(f"/proc/{inner.pid}/status").read_text().splitlines() if row.startswith("NSpid"))
        assert line.split() == ["NSpid:", str(inner.pid), "33", "1"]
        assert inner.pids == (inner.pid, 33, 1)


def test_pid_04_outside_and_beside_nobody_exists() -> None:
    with nslab.process() as process:
        one, two = process.fork("pid"), process.fork("pid")
        two.fork(set_tid=[77])
        two.kill(77, 0)
        for stranger, number in ((one, 77), (one, process.pid), (one, os.getpid())):
            refused(stranger, "ESRCH", "kill", number, 0)
            assert stranger.call(failing, os.getpgid, number) == 3, "ESRCH"
            assert stranger.call(failing, os.setpriority, os.PRIO_PROCESS, number, 19) == 3
        assert two.call(failing, os.getpgid, 77) == two.call(failing, os.setpriority, os.PRIO_PROCESS, 77, 19) == 0


def test_pid_05_an_ancestor_signals_and_reaps_by_its_own_number() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        process.kill(init.pid, signal.SIGKILL)
        assert process.call(os.waitpid, init.pid, 0) == (init.pid, signal.SIGKILL)


# -- init and its end -------------------------------------------------------------------------------------------------


def test_pid_06_with_init_everybody_ends_nested_ones_too() -> None:
    with nslab.process() as process:
        outer, beside = process.fork("pid"), process.fork("pid")
        inner = outer.fork("pid")
        members = [outer.fork(), inner, inner.fork()]
        with pidfd_of(members[0].pid) as one, pidfd_of(members[1].pid) as two, pidfd_of(members[2].pid) as three:
            process.kill(outer.pid, signal.SIGKILL)
            assert all(has_ended(fd) for fd in (one, two, three))
        assert process.wait(outer) == -signal.SIGKILL
        assert beside.alive


def test_pid_07_without_init_nobody_is_born() -> None:
    with nslab.process() as process:
        process.unshare("pid")
        first = process.fork()
        with first.namespaces["pid"] as namespace:
            first.close()
            assert "init (PID 1)" in refused(process, "ENOMEM", "fork")
            with nslab.process() as other:
                other.setns(namespace)
                refused(other, "ENOMEM", "fork")


def test_pid_08_members_cannot_harm_their_init() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        member = init.fork()
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
            member.kill(1, number)
            init.kill(1, number)
        assert init.getpid() == 1
        assert eventually(lambda: state(init.pid) == "S")
        init.kill(member.getpid(), signal.SIGKILL)
        assert init.wait(member) == -signal.SIGKILL, "which is no init"


def test_pid_09_an_ancestor_stops_and_kills_an_init_and_cannot_ask_it() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        process.kill(init.pid, signal.SIGTERM)
        assert init.getpid() == 1
        process.kill(init.pid, signal.SIGSTOP)
        assert eventually(lambda: state(init.pid) == "T")
        process.kill(init.pid, signal.SIGCONT)
        assert init.getpid() == 1
        process.kill(init.pid, signal.SIGKILL)
        assert process.wait(init) == -signal.SIGKILL
        plain = process.fork()
        process.kill(plain.pid, signal.SIGTERM)
        assert process.wait(plain) == -signal.SIGTERM


def test_pid_10_a_signal_from_outside_has_the_sender_0() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        init.call(block, USR1)
        member = init.fork()
        for who, number, seen in ((process, init.pid, 0), (init, 1, 1), (member, 1, member.getpid())):
            who.kill(number, USR1)
            assert init.call(sender, USR1) == seen
        assert member.getpid() > 1


def test_pid_11_a_blocked_signal_from_the_parent_stays_pending() -> None:
    def unblock() -> list[int]:
        taken: list[int] = []
        signal.signal(USR1, lambda number, _: taken.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {USR1})
        return taken

    with nslab.process() as process:
        init = process.fork("pid")
        init.call(block, USR1)
        assert not init.call(signal.sigpending)
        process.kill(init.pid, USR1)
        assert init.call(signal.sigpending) == {USR1}
        assert init.call(unblock) == [USR1]
        assert not init.call(signal.sigpending)


# -- moving -----------------------------------------------------------------------------------------------------------


def test_pid_12_unshare_moves_only_the_next_children() -> None:
    with nslab.process() as process:
        process.unshare("pid")
        assert (process.getpid(), link("pid", process.pid)) == (process.pid, link("pid"))
        child = process.fork()
        assert child.getpid() == 1
        assert link("pid", child.pid) == link("pid_for_children", process.pid) != link("pid")


def test_pid_13_before_the_first_child_the_link_leads_nowhere() -> None:
    with nslab.process() as process:
        process.unshare("pid")
        with pytest.raises(FileNotFoundError):
            link("pid_for_children", process.pid)
        with pytest.raises(FileNotFoundError):
            os.stat(f"/proc/{process.pid}/ns/pid_for_children")
        child = process.fork()
        assert link("pid_for_children", process.pid) == link("pid", child.pid)


def test_pid_14_a_process_asks_for_one_only_once() -> None:
    with nslab.process() as process:
        process.unshare("pid")
        assert "only once" in refused(process, "EINVAL", "unshare", "pid")
        process.fork().unshare("pid")


@pytest.mark.requires("initial:pid")
def test_pid_15_they_nest_32_deep() -> None:
    with nslab.process() as process:
        line = [process]
        with pytest.raises(nslab.SyscallError) as caught:
            while len(line) < 40:
                line.append(line[-1].fork("pid"))
        assert caught.value.name == "ENOSPC"
        assert "pid namespaces nest at most 32 deep" in str(caught.value)
        assert line[-1].pids[-1] == 1
        assert len(line[-1].pids) == len(line)
        assert len(line) - 1 == 32


def test_pid_16_nobody_moves_up() -> None:
    with nslab.process() as process:
        outer = process.fork("pid")
        inner = outer.fork("pid")
        with outer.namespaces["pid"] as above, inner.namespaces["pid"] as own:
            assert "never up" in refused(inner, "EINVAL", "setns", above)
            inner.setns(own)
            outer.setns(own)
            assert link("pid_for_children", outer.pid) == str(own)
            assert outer.fork().pids[1:] == (3, 2)


def test_pid_17_init_adopts_orphans_or_a_nearer_subreaper() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        middle = init.fork()
        orphan = middle.fork()
        assert orphan.call(os.getppid) == middle.getpid()
        middle.close()
        assert orphan.call(os.getppid) == 1
        nearer = init.fork()
        nearer.call(syscalls.prctl, syscalls.PR_SET_CHILD_SUBREAPER, 1)
        middle = nearer.fork()
        orphan = middle.fork()
        middle.close()
        assert orphan.call(os.getppid) == nearer.getpid() > 1


def test_pid_18_whoever_was_put_in_from_outside_is_adopted_outside() -> None:
    with nslab.process() as process:
        outer = process.fork("pid")
        inner = outer.fork("pid")
        middle = outer.fork()
        with inner.namespaces["pid"] as namespace:
            middle.setns(namespace)
        child = middle.fork()
        assert (child.pids[2:], child.call(os.getppid)) == ((2,), 0)
        assert parent(child.pid) == middle.pid
        middle.close()
        assert parent(child.pid) == outer.pid
        assert child.call(os.getppid) == 0


def test_pid_19_a_procfs_belongs_to_the_namespace_of_its_mounter() -> None:
    def numbers() -> tuple[str, int]:
        return os.readlink("/proc/self"), len([name for name in os.listdir("/proc") if name.isdigit()])

    with nslab.process() as process:
        init = process.fork("pid mnt")
        own, count = init.call(numbers)
        assert own == str(init.pid)
        assert count > 3
        init.mount("proc", "/proc", "proc")
        assert init.call(numbers) == ("1", 1)
        assert init.fork().call(numbers) == ("2", 2)


def test_pid_20_the_last_pid_decides_about_the_next() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        init.write("/proc/sys/kernel/ns_last_pid", "499")
        assert [init.fork().getpid() for _ in range(2)] == [500, 501]
        assert init.read("/proc/sys/kernel/ns_last_pid") == "501\n"


def test_pid_21_clone3_takes_exact_pids() -> None:
    with nslab.process() as process:
        outer = process.fork("pid")
        inner = outer.fork("pid")
        chosen = inner.fork(set_tid=[300, 400])
        assert chosen.pids[1:] == (400, 300)
        for pids, kinds, errno in (([300], "", "EEXIST"), ([9] * 4, "", "EINVAL"), ([2], "pid", "EINVAL")):
            with pytest.raises(nslab.SyscallError) as caught:
                inner.fork(kinds, set_tid=pids)
            assert caught.value.name == errno
    with nslab.process(as_="ordinary") as process, pytest.raises(nslab.SyscallError, match="CAP_CHECKPOINT_RESTORE") as caught:
        process.fork(set_tid=[30000])
    assert caught.value.name == "EPERM"


THREAD, SIGHAND, VM, PARENT = 0x10000, 0x800, 0x100, 0x8000


def clone3_without_signal(flags: int, chosen: int = 0) -> int:
    """clone3 with no exit signal, which CLONE_THREAD and CLONE_PARENT demand; the errno, 0 for success. The child ends."""
    pid = ctypes.c_int(chosen)
    words = [flags, 0, 0, 0, 0, 0, 0, 0, ctypes.addressof(pid) if chosen else 0, bool(chosen)]
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(435, struct.pack("10Q", *words), ctypes.c_size_t(80))
    if done == 0:
        os._exit(0)
    return ctypes.get_errno() if done < 0 else 0


def test_pid_22_not_for_a_thread() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        threads = THREAD | SIGHAND | VM  # the PID that is taken proves that there was nothing else to complain about
        assert init.call(clone3_without_signal, threads, 1) == 17, "EEXIST"
        assert init.call(clone3_without_signal, threads | PID, 1) == 22, "EINVAL"
        assert process.fork("pid").fork().call(clone3_without_signal, PARENT | PID) == 0, "the page forbids it, the kernel not"


def test_pid_23_after_unshare_there_are_no_new_threads() -> None:
    def start() -> str:
        thread = threading.Thread(target=int)
        try:
            thread.start()
        except RuntimeError as error:
            return str(error)
        thread.join()
        return ""

    with nslab.process() as process:
        assert process.call(start) == ""
        process.unshare("pid")
        assert process.call(start) == "can't start new thread"


# -- PIDs that travel -------------------------------------------------------------------------------------------------


def say(end: int) -> None:
    builtins.pair[end].send(b"!")  # type: ignore[attr-defined]


def writer(end: int) -> int:
    (_, _, data), *_ = builtins.pair[end].recvmsg(1, 64)[1]  # type: ignore[attr-defined]
    return struct.unpack("3i", data)[0]  # type: ignore[no-any-return]


def test_pid_24_credentials_carry_the_receivers_number() -> None:
    with nslab.process() as process:
        process.call(connected)
        init, other = process.fork("pid"), process.fork("pid")
        init.call(say, 0)
        assert process.call(writer, 1) == init.pid
        process.call(say, 1)
        assert init.call(writer, 0) == 0, "a sender that cannot be seen"
        init.fork().call(say, 0)
        assert init.call(writer, 1) == 2
        init.call(say, 0)
        assert other.call(writer, 1) == 0


def reboot(order: int) -> None:
    assert len(Path("/proc/self/status").read_text().partition("NSpid:")[2].splitlines()[0].split()) > 1, "not the machine"
    ctypes.CDLL(None).syscall({"x86_64": 169, "aarch64": 142}[os.uname().machine], 0xFEE1DEAD, 672274793, order, 0)


@pytest.mark.parametrize(("order", "number"), [(0x01234567, signal.SIGHUP), (0x4321FEDC, signal.SIGINT)])
def test_pid_25_reboot_ends_only_init(order: int, number: int) -> None:
    with nslab.process() as process:
        init = process.fork("user pid")  # where it holds no capability over anything else
        with pytest.raises(nslab.DeadNamespace):
            init.call(reboot, order)
        assert process.wait(init) == -number


def test_pid_26_a_session_from_outside_reads_as_0() -> None:
    with nslab.process() as process:
        init = process.fork("pid")
        assert (init.call(os.getsid, 0), init.call(os.getpgid, 0)) == (0, 0)
        init.call(os.setsid)
        assert (init.call(os.getsid, 0), init.call(os.getpgid, 0)) == (1, 1)


@pytest.mark.requires("root", "linux:6.14")
def test_pid_27_pid_max_is_of_the_namespace() -> None:
    file = "/proc/sys/kernel/pid_max"
    machine = Path(file).read_text()
    with nslab.process() as process:
        with pytest.raises(nslab.Refused):
            process.write(file, machine)
        init = process.fork("pid")
        assert init.read(file) == f"{2**22}\n"
        init.write(file, "400")
        init.write("/proc/sys/kernel/ns_last_pid", "398")
        assert [init.fork().getpid() for _ in range(2)] == [399, 300]
        assert (Path(file).read_text(), init.read(file)) == (machine, "400\n")


def test_pid_28_signals_of_asynchronous_io_cross_over() -> None:
    def owned() -> None:
        reader = builtins.pipe[0]  # type: ignore[attr-defined]
        signal.pthread_sigmask(signal.SIG_BLOCK, {USR1})
        fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reader, 10, USR1)  # F_SETSIG
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)

    with nslab.process() as process:
        process.call(lambda: setattr(builtins, "pipe", os.pipe()))
        one, two = process.fork("pid"), process.fork("pid")
        one.call(owned)
        assert not one.call(signal.sigpending)
        two.call(lambda: os.write(builtins.pipe[1], b"!"))  # type: ignore[attr-defined]
        assert one.call(lambda: signal.sigtimedwait({USR1}, 2).si_band) & select.POLLIN


def opened_queue() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    builtins.queue = libc.mq_open(b"/nslab", os.O_RDWR | os.O_CREAT, 0o600, None)  # type: ignore[attr-defined]
    assert builtins.queue >= 0  # type: ignore[attr-defined]


def ask_for_notice() -> None:
    event = struct.pack("Qii48x", 0, USR1, 0)  # struct sigevent with SIGEV_SIGNAL
    assert ctypes.CDLL(None).mq_notify(builtins.queue, event) == 0  # type: ignore[attr-defined]


def send_to_queue() -> None:
    assert ctypes.CDLL(None).mq_send(builtins.queue, b"!", 1, 0) == 0  # type: ignore[attr-defined]


def empty_queue() -> None:
    assert ctypes.CDLL(None).mq_receive(builtins.queue, ctypes.create_string_buffer(1 << 16), 1 << 16, None) == 1  # type: ignore[attr-defined]


def test_pid_29_notices_of_a_message_queue_translate_the_sender() -> None:
    with nslab.process() as process:
        process.unshare("ipc")
        process.call(opened_queue)
        process.call(block, USR1)
        init = process.fork("pid")
        for owner, writer_, seen in ((init, process, 0), (process, init, init.pid)):
            owner.call(ask_for_notice)
            writer_.call(send_to_queue)
            assert owner.call(sender, USR1) == seen
            owner.call(empty_queue)
