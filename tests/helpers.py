"""What several tests need: waiting with a deadline, threads that stay, and scripts in a Python of their own."""

from __future__ import annotations

import builtins
import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

# A program that forks until it may not, says at which number and with which errno, and stays.
FORK_STORM = """
import os, time
for number in range(100):
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError as error:
        print(number, error.errno, flush=True)
        break
time.sleep(1000)
"""


def eventually(condition: Callable[[], object], seconds: float = 2.0) -> bool:
    """Whether the condition holds within so many seconds; for what has no descriptor to wait on."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True


def has_ended(pidfd: int, seconds: float = 2.0) -> bool:
    """Whether the process behind a pidfd ends within so many seconds."""
    return bool(select.select([pidfd], [], [], seconds)[0])


@contextlib.contextmanager
def pidfd_of(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def idle_thread() -> Iterator[None]:
    """This process has a second thread for a while, as a notebook kernel has."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def with_a_thread(function: Callable[..., object], *args: object) -> object:
    """Call a function while this process, a steered one for example, has a second thread."""
    with idle_thread():
        return function(*args)


def status(pid: int, line: str) -> list[str]:
    """The words of a line of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(row.split()[1:] for row in text.splitlines() if row.startswith(f"{line}:"))


def state(pid: int) -> str:
    """Its letter in /proc/PID/stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def connected() -> None:
    """A pair of sockets that say who wrote, for this process and the ones that it forks."""
    builtins.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # type: ignore[attr-defined]
    for end in builtins.pair:  # type: ignore[attr-defined]
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        end.settimeout(2)


def in_python(script: str, before: Sequence[str] = (), **options: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own, behind another command (unshare, setpriv ...) where one is given."""
    command = [*before, sys.executable, "-c", script]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload,no-any-return]


def link(kind: str, pid: int | str = "self") -> str:
    """The text of /proc/PID/ns/KIND, read by hand."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def reaches(address: str, seconds: float = 1.0) -> bool:
    """Whether somebody at the address answers, be it that nothing listens at that port; for ``call()`` in a network."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect((address, 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


class Row(NamedTuple):
    """A namespace as lsns(8) lists it: ``leader`` is the lowest PID of its members, ``members`` how many they are."""

    kind: str
    members: int
    leader: int


def listed(*options: str) -> str:
    """What lsns prints. Where a process ends while it looks, it prints nothing and fails; then it is asked again."""
    for _ in range(20):
        done = subprocess.run(["lsns", "-n", *options], capture_output=True, text=True)
        if done.returncode == 0:
            break
    return done.stdout


def lsns() -> dict[int, Row]:
    """What it lists, by inode number.

    Numbers are reused at once: the same number is the same namespace when its leader is the same, too.
    """
    rows = (line.split() for line in listed("-o", "NS,TYPE,NPROCS,PID", "--list").splitlines())
    return {int(number): Row(kind, int(count), int(pid)) for number, kind, count, pid in rows}
