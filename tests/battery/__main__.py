"""python -m tests.battery [--json]: every way out or across, tried in a hardened container and in a plain one.

Exit status 1 when one leads out of the hardened container.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nslab
from nslab.ops import seccomp
from tests.battery import inside

IPC_PRIVATE, IPC_RMID = 0, 0
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

Outcomes = Mapping[str, tuple[bool, str]]


def numbers() -> dict[str, int]:
    """System calls by name, for this machine."""
    column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
    named = {name: each[column] for group in seccomp.REFUSED.values() for name, each in group.items()}
    return named | {"clone": seccomp.CLONE[column], "clone3": seccomp.CLONE3[column]}


@contextlib.contextmanager
def bait() -> Iterator[dict[str, Any]]:
    """What the machine has, for those inside to reach: a key, an abstract socket, shared memory, a process, a descriptor.

    The key is in a session keyring of this process alone, so this must come before the spawner is started.
    """
    calls = numbers()
    libc.syscall(calls["keyctl"], 1, None)  # KEYCTL_JOIN_SESSION_KEYRING
    libc.syscall(calls["add_key"], b"user", b"nslab-battery", b"secret", 6, -3)
    shm = libc.shmget(IPC_PRIVATE, 4096, 0o666)
    left = os.open("/", os.O_RDONLY)
    os.set_inheritable(left, True)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            name = f"nslab-battery-{os.getpid()}"
            listener.bind(f"\0{name}")
            listener.listen()
            yield {"numbers": calls, "abstract": name, "shm": shm, "pid": os.getpid(), "uid": os.geteuid()}
    finally:
        os.close(left)
        libc.shmctl(shm, IPC_RMID, None)


def python() -> str:
    """A Python that anybody may run: inside, one is somebody else."""
    return next(path for path in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable) if os.path.exists(path))


def tried(facts: Mapping[str, Any], **options: Any) -> Outcomes:
    """What came of each way in a container with these options; others enter it meanwhile."""
    source = Path(inside.__file__).read_text()
    with nslab.Container("battery", **options) as container:
        done = threading.Event()

        def enter() -> None:
            while not done.is_set():
                container.run("true", user=0)
                container.call(sum, range(10**6))  # a Python of ours, for some milliseconds

        thread = threading.Thread(target=enter)
        thread.start()
        try:
            result = container.run([python(), "-I", "-", json.dumps(facts)], input=source, timeout=60, check=True)
        finally:
            done.set()
            thread.join()
    outcomes: Outcomes = {name: (got, detail) for name, (got, detail) in json.loads(result.stdout)["ways"].items()}
    return outcomes


def rows() -> list[dict[str, Any]]:
    """One row a way: its name, what it tries, what came of it in both containers, and why."""
    with bait() as facts:
        hardened, plain = tried(facts, hardened=True), tried(facts, isolate="all")
    return [
        {"name": name, "what": what, "hardened": hardened[name], "plain": plain[name], "why": why}
        for name, (_, what, why) in inside.ways.items()
    ]


def table(found: list[dict[str, Any]]) -> str:
    """Three columns and a sentence."""
    lines = []
    for row in found:
        cells = [("THROUGH: " if got else "refused: ") + detail[:30] for got, detail in (row["hardened"], row["plain"])]
        lines.append((row["what"], *cells, row["why"]))
    head = ("what is tried", "hardened=True", "isolate='all'", "why")
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(3)]
    texts = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]) for line in (head, *lines)
    ]
    out, plain = (sum(row[which][0] for row in found) for which in ("hardened", "plain"))
    return "\n".join([*texts, f"{len(found)} ways; {out} lead through in the hardened container, {plain} in the plain one."])


def as_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The battery in a process of its own, with a spawner of its own, for a test."""
    command = [sys.executable, "-m", "tests.battery", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, cwd=Path(__file__).parents[2]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.battery", description=__doc__)
    parser.add_argument("--json", action="store_true", help="the rows as a JSON list")
    arguments = parser.parse_args()
    found = rows()
    print(json.dumps(found) if arguments.json else table(found))
    sys.exit(any(row["hardened"][0] for row in found))


if __name__ == "__main__":
    main()
