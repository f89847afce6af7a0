"""What is left: looked for in /proc, with lsns and in the folders, without nslab.

This process adopts orphans (it is a subreaper), so whatever a round has started is below it or carries its mark.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests import elsewhere, fingerprint

MARK = "NSLAB_CRASH_MARK"
HELPERS = ("nslab-watchdog", "nslab-spawner", "nslab-borrowed")  # they end by themselves, and tidy up before
HELPERS_TIME = 2.5  # seconds that they have for it


def become_subreaper() -> None:
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def read(path: str) -> bytes:
    """A file of /proc; empty when it cannot be read, or its process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(word) for thread in threads for word in read(f"/proc/{pid}/task/{thread}/children").split()]


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    todo = [pid]
    while todo:
        new = [child for child in children(todo.pop()) if child not in found]
        found.update(new)
        todo += new
    return found


def state(pid: int) -> tuple[str, int]:
    """Its state and its parent; ("Z", 0) when it is gone."""
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (fields[0].decode(), int(fields[1])) if fields else ("Z", 0)


def is_standby(pid: int) -> bool:
    """Whether it is the child that a spawner keeps ahead of the requests, which has the spawner's name at first."""
    spawners = ("nslab-spawner", "nslab-borrowed")
    return name(pid) == "nslab-standby" or (name(pid) in spawners and name(pid) == name(state(pid)[1]))


def name(pid: int) -> str:
    return read(f"/proc/{pid}/comm").decode(errors="replace").strip()


def command(pid: int) -> str:
    return read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def marked(mark: str) -> set[int]:
    """The processes with this mark in their environment, wherever they are."""
    wanted = f"{MARK}={mark}".encode()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return {pid for pid in pids if wanted in read(f"/proc/{pid}/environ").split(b"\0")}


class Recorded:
    """Processes held by pidfd: a number that is used again does not stand for one of them."""

    def __init__(self, pids: Iterable[int]):
        self.fds: dict[int, int] = {}
        for pid in pids:
            try:
                self.fds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue

    def alive(self) -> set[int]:
        poll = select.poll()
        for fd in self.fds.values():
            poll.register(fd, select.POLLIN)
        ended = {fd for fd, _ in poll.poll(0)}
        return {pid for pid, fd in self.fds.items() if fd not in ended}

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


class Oracle:
    """Knows what there was before a round of this user. ``temporary`` is the folder that the round has as TMPDIR."""

    def __init__(self, mark: str, temporary: Path, user: int | None = None):
        self.mark = mark
        self.temporary = temporary
        self.user = user
        self.recorded = Recorded(())
        self.before = self.look(set())

    def look(self, allowed: set[int]) -> dict[str, set[str]]:
        ours = (descendants(os.getpid()) | marked(self.mark)) - allowed
        return {
            "mount": set(mounts()),
            "cgroup": set(cgroups(self.user)),
            "System V object": set(system_v(self.user)),
            "namespace": {row for row, pid in namespaces().items() if not pid or pid in ours},
        }

    def record(self) -> Recorded:
        """Remember the processes that there are now."""
        self.recorded.close()
        self.recorded = Recorded(descendants(os.getpid()) | marked(self.mark))
        return self.recorded

    def processes(self, allowed: set[int]) -> set[int]:
        """The living processes of this round but the ``allowed`` ones; zombies are buried where they are ours."""
        found = (descendants(os.getpid()) | marked(self.mark) | self.recorded.alive()) - allowed
        living = set()
        for pid in found:
            letter, parent = state(pid)
            if letter != "Z":
                living.add(pid)
            elif parent == os.getpid():
                os.waitpid(pid, os.WNOHANG)
        return living

    def left(self, allowed: set[int]) -> list[str]:
        """What there is and should not be; the slower looks only when the processes are gone."""
        processes = [f"process {pid} ({name(pid)}) {command(pid)[:120]}" for pid in sorted(self.processes(allowed))]
        if processes:
            return processes
        said = [f"file {path}" for path in self.temporary.rglob("*")]
        for what, found in self.look(allowed).items():
            said += [f"{what} {item}" for item in sorted(found - self.before[what])]
        return said


class Machine:
    """What the machine itself looks like, from outside of everything that a round makes."""

    def __init__(self) -> None:
        self._before = fingerprint.fingerprint()

    def changes(self) -> list[str]:
        """What is different since this was asked last."""
        before, self._before = self._before, fingerprint.fingerprint()
        return fingerprint.changes(before, self._before)


def namespaces() -> dict[str, int]:
    """What lsns shows, with the lowest of its PIDs each; 0 when no process is in it."""
    listing = subprocess.run(
        ["lsns", "--json", "--output", "NS,TYPE,PID"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    rows = json.loads(listing.stdout)["namespaces"] if listing.stdout.strip() else []
    return {f"{row['type']}:[{row['ns']}]": int(row["pid"] or 0) for row in rows}


def mounts() -> list[str]:
    return [line.partition(" - ")[0] for line in read("/proc/self/mountinfo").decode().splitlines()]


def cgroups(user: int | None = None) -> list[str]:
    """Those that can be of this user's tests: below the one that this process is in, or with nslab's name.

    A name says which process had it made; while that lives, and is not below this one, it is another run's.
    """
    own = [line.split(":", 2)[2] for line in read("/proc/self/cgroup").decode().splitlines()]
    below = [f"{path}/" for path in own if path != "/"]
    found = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "nslab" in folder or any(path in folder for path in below)]
    return [folder for folder in found if _can_be_ours(folder, user)]


APART = 1_000_000  # the lowest PID, which only it knows, of a session of tests.taken_out; that removes its cgroups itself


def _can_be_ours(folder: str, user: int | None) -> bool:
    try:
        if not elsewhere.ours(os.stat(folder).st_uid, user):
            return False
    except FileNotFoundError:
        return False
    client = re.search(r"/nslab-(\d+)-", folder)
    if client and state(pid := int(client[1]))[0] == "Z":
        return pid < APART
    return not client or pid in {os.getpid(), *descendants(os.getpid())}


def system_v(user: int | None = None) -> list[str]:
    """The machine's System V objects that can be of this user's tests."""
    said = []
    for table in ("shm", "sem", "msg"):
        head, *lines = read(f"/proc/sysvipc/{table}").decode().splitlines() or [""]
        rows = [dict(zip(head.split(), line.split(), strict=True)) for line in lines]
        said += [(table, *list(row.values())[:2]) for row in rows if elsewhere.ours(int(row["cuid"]), user)]
    return [f"{table} key {key} id {number}" for table, key, number in said]


def end_everything(known: Callable[[], object] = lambda: None) -> None:
    """Kill whatever is below this process until there is nothing, and bury it; ``known`` buries what others wait for.

    First those that nslab's helpers look after, which then have time to remove what is no process.
    """
    deadline = time.monotonic() + HELPERS_TIME
    while (found := descendants(os.getpid())) and time.monotonic() < deadline:
        _kill({pid for pid in children(os.getpid()) if name(pid) not in HELPERS and "nslab.spawner" not in command(pid)})
        _bury(known)
        if found == descendants(os.getpid()):
            time.sleep(0.002)  # polling: they end one after the other
    deadline = time.monotonic() + 10
    while (found := descendants(os.getpid())) and time.monotonic() < deadline:
        _kill(found)
        _bury(known)


def _kill(pids: set[int]) -> None:
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in descendants(os.getpid()):  # still the one that was meant
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        finally:
            os.close(fd)


def _bury(known: Callable[[], object]) -> None:
    known()
    for pid in children(os.getpid()):
        if state(pid)[0] == "Z":
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
