"""What is true of time namespaces, each fact shown by the kernel. time_namespaces(7)"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import nslab
from nslab import syscalls
from nslab.model import KINDS
from tests.helpers import link, with_a_thread

TIME = KINDS["time"].flag
RAW, COARSE, TAI = 4, 6, 11  # CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_TAI
DAY = 86400
OFFSETS = "/proc/self/timens_offsets"


def clocks() -> dict[int, float]:
    return {clock: time.clock_gettime(clock) for clock in (0, 1, RAW, COARSE, 7, TAI)}


def offsets(process: nslab.Process) -> dict[str, tuple[int, int]]:
    rows = [line.split() for line in process.read(OFFSETS).splitlines()]
    return {name: (int(seconds), int(nanoseconds)) for name, seconds, nanoseconds in rows}


def test_time_01_unsharing_moves_the_next_child_only() -> None:
    with nslab.process() as process:
        before = link("time", process.pid)
        assert link("time_for_children", process.pid) == before
        process.unshare("time")
        after = link("time_for_children", process.pid)
        assert link("time", process.pid) == before != after
        with process.fork() as child:
            assert link("time", child.pid) == after


def test_time_02_an_execve_enters_too() -> None:
    script = (
        "import ctypes, os; ctypes.CDLL(None).unshare(0x80); print(os.readlink('/proc/self/ns/time'), flush=True);"
        "os.execvp('readlink', ['readlink', '/proc/self/ns/time', '/proc/self/ns/time_for_children'])"
    )
    before, after, children = nslab.run([sys.executable, "-c", script], isolate="user").lines
    assert before == link("time")
    assert after == children != before


def test_time_03_each_clock_has_its_own_offset_and_the_creator_keeps_his() -> None:
    with nslab.Container(isolate="time", clock={"monotonic": 1000, "boottime": "5000.5"}) as web:
        before, inside, after = clocks(), web.call(clocks), clocks()
        for clock, offset in ((1, 1000), (RAW, 1000), (COARSE, 1000), (7, 5000.5)):
            assert before[clock] + offset - 0.01 <= inside[clock] <= after[clock] + offset + 0.01, clock
        panel = web.clocks()
        assert {name: clock.offset for name, clock in panel.items()} == {
            "monotonic": 1000, "boottime": 5000.5, "uptime": 5000.5, "realtime": 0,
        }  # fmt: skip
        assert "+1h 23m 20.5s" in str(panel)
        assert "+1h 23m 20.5s" in panel._repr_mimebundle_()["text/html"]


def test_time_04_the_wall_clock_and_tai_are_the_machines() -> None:
    with nslab.Container(isolate="time", clock={"monotonic": DAY, "boottime": DAY}) as web:
        before, inside, after = clocks(), web.call(clocks), clocks()
        for clock in (0, TAI):
            assert before[clock] <= inside[clock] <= after[clock]


@pytest.mark.requires("tool:uptime")
def test_time_05_what_tells_the_uptime_follows_boottime() -> None:
    def sysinfo() -> int:
        info = (ctypes.c_long * 64)()
        assert ctypes.CDLL(None).sysinfo(ctypes.byref(info)) == 0
        return int(info[0])

    with nslab.Container(isolate="time", clock={"boottime": 3000 * DAY}) as web:
        now = time.clock_gettime(time.CLOCK_BOOTTIME) + 3000 * DAY
        assert abs(web.call(sysinfo) - now) < 2
        assert abs(float(web.run("cat /proc/uptime").stdout.split()[0]) - now) < 1
        assert "up 8 years" in web.run("uptime -p").stdout
        assert sysinfo() < now - 2999 * DAY


def test_time_06_offsets_are_open_until_the_first_member_and_then_fixed() -> None:
    with nslab.process() as process:
        assert offsets(process) == {"monotonic": (0, 0), "boottime": (0, 0)}
        with pytest.raises(nslab.SyscallError) as caught:
            process.write(OFFSETS, "monotonic 0 0")  # of the initial namespace
        assert caught.value.name == ("EPERM" if os.geteuid() else "EACCES")
        assert "whose clocks nobody can shift" in str(caught.value)
        assert "too late" not in str(caught.value)
        process.unshare("time")
        process.write(OFFSETS, "monotonic 5 0")
        process.write(OFFSETS, "monotonic 7 0")
        with process.fork():
            with pytest.raises(nslab.SyscallError, match="too late") as caught:
                process.write(OFFSETS, "monotonic 9 0")
            assert caught.value.name == "EACCES"
            assert offsets(process)["monotonic"] == (7, 0)


def test_time_07_no_clock_goes_below_zero_or_past_146_years() -> None:
    uptime = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    with nslab.process() as process:
        process.unshare("time")
        for offset in (-uptime // 2, 4_600_000_000):
            process.write(OFFSETS, f"monotonic {offset} 0")
        for offset in (-uptime - 100, 2**63 // 10**9 // 2):
            with pytest.raises(nslab.SyscallError, match="become negative") as caught:
                process.write(OFFSETS, f"monotonic {offset} 0")
            assert caught.value.name == "ERANGE"
            with nslab.record() as trace, pytest.raises(nslab.SpecError, match="clock"):
                nslab.run("true", isolate="time", clock={"monotonic": offset})
            assert len(trace) == 0, "refused before anything is made"


def test_time_08_what_is_no_offset_is_refused() -> None:
    with nslab.process() as process:
        process.unshare("time")
        process.write(OFFSETS, "1 11 0\n7 12 999999999")
        assert offsets(process) == {"monotonic": (11, 0), "boottime": (12, 999999999)}
        for text in ("monotonic 1 1000000000", "monotonic 1 -1", "realtime 1 0", "0 1 0", "monotonic 1", "1 1 0\njunk"):
            with pytest.raises(nslab.SyscallError, match="CLOCK SECONDS NANOSECONDS") as caught:
                process.write(OFFSETS, text)
            assert caught.value.name == "EINVAL", text


def test_time_09_a_nested_namespace_starts_with_the_offsets_around_it() -> None:
    with nslab.process() as process:
        process.unshare("time")
        process.write(OFFSETS, "monotonic 100 0")
        with process.fork() as child:
            around = link("time", child.pid)
            child.unshare("time")
            assert link("time_for_children", child.pid) != around
            assert offsets(child)["monotonic"] == (100, 0)


@pytest.mark.requires("tool:setpriv")
def test_time_10_offsets_need_cap_sys_time() -> None:
    script = (
        "import ctypes; assert ctypes.CDLL(None).unshare(0x80) == 0\n"
        "try:\n with open('/proc/self/timens_offsets', 'w') as file: file.write('monotonic 1 0')\n print('written')\n"
        "except OSError as error: print(error.strerror)"
    )
    with nslab.Container(isolate="user") as web:
        assert web.run([sys.executable, "-c", script]).stdout == "written\n"
        without = ["setpriv", "--bounding-set=-sys_time", sys.executable, "-c", script]
        assert web.run(without).stdout == "Operation not permitted\n"


def nap(absolute: bool, seconds: float) -> float:
    """clock_nanosleep(2) on the monotonic clock; how long it took."""
    begin = time.clock_gettime(time.CLOCK_MONOTONIC)
    until = begin + seconds if absolute else seconds
    request = (ctypes.c_long * 2)(int(until), int(until % 1 * 1e9))
    assert ctypes.CDLL(None).clock_nanosleep(1, 1 if absolute else 0, ctypes.byref(request), None) == 0
    return time.clock_gettime(time.CLOCK_MONOTONIC) - begin


@pytest.mark.parametrize("offset", [5000, -10])
def test_time_11_an_absolute_sleep_is_measured_on_the_shifted_clock(offset: int) -> None:
    with nslab.Container(isolate="time", clock={"monotonic": offset}) as web:
        for absolute in (True, False):
            assert 0.03 <= web.call(nap, absolute, 0.03) < 1


def timerfd() -> float:
    """An absolute deadline 30 ms from now; how long it took until the timer could be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(1, 0)
    begin = time.clock_gettime(time.CLOCK_MONOTONIC)
    until = begin + 0.03
    assert libc.timerfd_settime(fd, 1, (ctypes.c_long * 4)(0, 0, int(until), int(until % 1 * 1e9)), None) == 0
    os.read(fd, 8)
    os.close(fd)
    return time.clock_gettime(time.CLOCK_MONOTONIC) - begin


def condition() -> float:
    """A wait for another thread, in vain: Python turns the timeout into an absolute one of a futex."""
    begin = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert not threading.Event().wait(0.03)
    return time.clock_gettime(time.CLOCK_MONOTONIC) - begin


@pytest.mark.parametrize("offset", [5000, -10])
@pytest.mark.parametrize("wait", [timerfd, condition])
def test_time_12_absolute_deadlines_are_taken_on_the_shifted_clock(wait: Callable[[], float], offset: int) -> None:
    with nslab.Container(isolate="time", clock={"monotonic": offset}) as web:
        assert 0.03 <= web.call(wait) < 1


def join_own_time() -> None:
    with open("/proc/self/ns/time_for_children") as file:
        syscalls.setns(file.fileno(), TIME)


def test_time_13_setns_moves_the_caller_when_it_has_one_thread() -> None:
    with nslab.process() as process:
        process.unshare("time")
        with pytest.raises(nslab.SyscallError, match="2 threads") as caught:
            process.call(with_a_thread, join_own_time)
        assert caught.value.name == "EUSERS"
        assert link("time", process.pid) == link("time")
        process.call(join_own_time)
        assert link("time", process.pid) == link("time_for_children", process.pid) != link("time")


def test_time_14_proc_shows_times_as_the_reader_sees_them() -> None:
    def seen() -> tuple[int, int]:
        btime = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        start = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
        return int(btime.split()[1]), int(start)

    with nslab.Container(isolate="time", clock={"boottime": DAY}) as web:
        (btime, start), (inner_btime, inner_start) = seen(), web.call(seen)
        assert abs(btime - inner_btime - DAY) <= 1
        assert inner_start - start == DAY * os.sysconf("SC_CLK_TCK")


def test_time_15_clone3_makes_one_with_the_child_inside_from_birth() -> None:
    def born() -> str:
        reader, writer = os.pipe()
        pid = syscalls.clone3(TIME)
        if pid == 0:
            os.write(writer, os.readlink("/proc/self/ns/time").encode())
            os._exit(0)
        os.waitpid(pid, 0)
        text = os.read(reader, 100).decode()
        os.close(reader)
        os.close(writer)
        return text

    with nslab.process() as process:
        inside = process.call(born)
        assert inside.startswith("time:[")
        assert inside != link("time_for_children", process.pid) == link("time")
