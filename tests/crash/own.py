"""python -m tests.crash.own ROUNDS [--seed S] [--user UID]: kill parts of a kernel of one's own while it starts.

One of the four dies, or two, at a random moment between nothing and the command at work; two seconds later nothing is left, and
who asked for it, if alive, says what happened. Only when the warden and who asked die in one moment a folder may stay, and a
process that stands still, which was being made just then: the next warden removes them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nslab import procfs
from nslab.machines import leftovers
from tests.crash.__main__ import user
from tests.crash.hosts import User
from tests.crash.oracle import become_subreaper, descendants, end_everything, name, state
from tests.own_kernels import is_alive, left

LIMIT = 2.0  # seconds from the death to nothing left
WAYS = (("nslab-warden",), ("linux.uml",), ("slirp4netns",), ("client",), ("nslab-warden", "client"))
ASKING = """
from nslab.machines import OwnKernel
from nslab.errors import NslabError
own = OwnKernel(["sh", "-c", "sleep 1000 & sleep 1001"])
print(own.process.pid, flush=True)
try:
    own.wait_up()
    while own.over is None:
        own.receive()
except NslabError:
    pass
print("says:", own.explanation().partition("\\n")[0])
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.own", description=__doc__.partition(": ")[2].partition("\n")[0]
    )
    parser.add_argument("rounds", type=int)
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="repeat the random choices of a run")
    parser.add_argument("--user", type=int, metavar="UID", help="as root: as this user (65534, for example)")
    args = parser.parse_args()
    become_subreaper()
    print(f"{args.rounds} rounds, --seed {args.seed}")
    said, bad, slowest = Counter[str](), 0, 0.0
    try:
        with user(args.user) as who:
            for number in range(args.rounds):
                way = WAYS[number % len(WAYS)]
                with round_of(who, way, random.Random(f"{args.seed}/{number}")) as (wrong, says, took):
                    said[f"{' and '.join(way):24} {says}"] += 1
                    bad, slowest = bad + bool(wrong), max(slowest, took)
                    print(*(f"{number}: {' and '.join(way)}: {each}" for each in wrong), sep="\n", end="\n" if wrong else "")
    finally:
        end_everything()
    for line, count in sorted(said.items()):
        print(f"{count:4} x {line}")
    print(f"{args.rounds} rounds, {bad} bad; the slowest was clean after {1000 * slowest:.0f} ms")
    return int(bad > 0)


@contextlib.contextmanager
def round_of(who: User, way: tuple[str, ...], chance: random.Random) -> Iterator[tuple[list[str], str, float]]:
    """What is wrong after it, what who asked said, and how long it took until nothing was left."""
    with tempfile.TemporaryDirectory(prefix="nslab-apart-", dir="/tmp", ignore_cleanup_errors=True) as place:
        if who.uid:
            os.chown(place, who.uid, who.uid)
        env = {**who.env, "TMPDIR": place}
        asks = subprocess.Popen([*who.python, "-c", ASKING], cwd=who.checkout, env=env, stdout=subprocess.PIPE, text=True)
        assert asks.stdout
        warden = int(asks.stdout.readline())
        time.sleep(chance.uniform(0, 1.6))  # not to wait for anything: the random moment
        processes = {warden, *descendants(warden)}
        for victim in way:
            kill(asks.pid if victim == "client" else found(warden, victim))
        since, wrong = time.monotonic(), [""]
        while wrong and time.monotonic() < since + LIMIT:
            wrong = [f"{pid} {name(pid)}" for pid in processes | descendants(os.getpid()) if pid != asks.pid and runs(pid)]
            wrong += left(Path(place)) if len(way) == 1 else []
            for pid in descendants(os.getpid()) - {asks.pid}:
                if state(pid) == ("Z", os.getpid()):
                    os.waitpid(pid, os.WNOHANG)
        took, says = time.monotonic() - since, ""
        if "client" not in way:
            says = asks.communicate(timeout=20)[0].partition("says: ")[2].strip()
            wrong += [] if says else ["who asked for it said nothing"]
        asks.kill()
        asks.wait()
        for folder in Path(place).glob(f"{leftovers.PREFIX}*"):
            leftovers.clear(folder)
        leftovers.sweep(place)
        asks.stdout.close()
        yield wrong, says, took


def found(warden: int, wanted: str) -> int:
    """The first process of this name, as soon as there is one; 0 when the end comes first."""
    while is_alive(warden):
        for pid in (warden, *procfs.descendants(warden)):
            if name(pid) == wanted:
                return pid
    return 0


def runs(pid: int) -> bool:
    return is_alive(pid) and state(pid)[0] != "t"


def kill(pid: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
