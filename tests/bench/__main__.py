"""Side by side: nslab and what it is measured against, in one run, taking turns; printed as ratios with their limits.

`make bench`, or python -m tests.bench [--json] [--only PART]. Absolute times are those of this machine today; limits
are on ratios, or on what a person would notice. It ends with status 1 when one is not held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
KINDS = "uts user pid mnt"
ALL = "uts user pid mnt ipc net cgroup time"
BWRAP = {  # it has no time namespaces
    KINDS: "bwrap --unshare-user --unshare-uts --unshare-pid --dev-bind / / --proc /proc /bin/true",
    ALL: "bwrap --unshare-all --unshare-user --dev-bind / / --proc /proc /bin/true",
}
TURNS, BATCH = 15, 10  # of each contender: so many turns of so many runs


@dataclass
class Row:
    what: str
    measured: str
    value: float | None  # what the limit is on; None: not measured
    limit: float
    unit: str = "x"

    @property
    def verdict(self) -> str:
        return "-" if self.value is None else "PASS" if self.value <= self.limit else "FAIL"


def one_shot(who: str, kinds: str) -> Iterator[Row]:
    """A whole container from nothing: made, /bin/true run in it, gone."""
    import nslab

    contenders: dict[str, Callable[[], list[float]]] = {"nslab": lambda: timed(lambda: nslab.run(["/bin/true"], isolate=kinds))}
    missing = {}
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("cc"):
            program = f"{folder}/clone3"
            subprocess.run(["cc", "-O2", "-o", program, HERE / "clone3.c"], check=True)
            contenders["C"] = lambda: c_loop(program, kinds)
        else:
            missing["C"] = "no C compiler: apt-get install gcc libc6-dev"
        if shutil.which("bwrap"):
            contenders["bwrap"] = lambda: timed(lambda: spawn(BWRAP[kinds].split()))
        else:
            missing["bwrap"] = "apt-get install bubblewrap"
        nslab.run(["/bin/true"], isolate=kinds)  # the spawner is warm
        times = take_turns(contenders)
    ours = median(times["nslab"])
    for name, limit in (("C", 3.0), ("bwrap", 1.0)):
        what = f"run(/bin/true, {'all' if kinds == ALL else kinds!r}) as {who}, against {name}"
        if name in missing:
            yield Row(what, missing[name], None, limit)
        else:
            theirs = median(times[name])
            yield Row(what, f"{ours * 1e3:.2f} / {theirs * 1e3:.2f} ms", ours / theirs, limit)


def whole(who: str) -> Iterator[Row]:
    """A container of all kinds: started, one command run in it, stopped; and the same with a small root filesystem of its own.

    The others have no init to enter, so theirs is one command in one go.
    """
    import nslab
    from tests.compare.tools import bundle, rootfs

    def container(**options: Any) -> None:
        with nslab.Container(isolate="all", **options) as made:
            made.run(["/bin/true"])

    container()
    with rootfs() as root:
        contenders: dict[str, Callable[[], list[float]]] = {
            "nslab": lambda: timed(container),
            "nslab, rootfs": lambda: timed(lambda: container(rootfs=root)),
        }
        if shutil.which("bwrap"):
            contenders["bwrap"] = lambda: timed(lambda: spawn(BWRAP[ALL].split()))
        if shutil.which("runc"):
            made = bundle(root, ["/bin/true"])
            runc = ["runc", "--root", f"{root.parent}/state", "run", "--bundle", str(made), f"nslab-bench-{os.getpid()}"]
            contenders["runc, rootfs"] = lambda: timed(lambda: spawn(runc), 3)
        times = {name: median(each) for name, each in take_turns(contenders).items()}
    for ours, theirs, limit in (
        ("nslab", "bwrap", 1.5),
        ("nslab, rootfs", "runc, rootfs", 1.0),
    ):
        what = f"Container(all{ours[5:]}): start, run, stop as {who}, against {theirs.partition(',')[0]}"
        if theirs in times:
            yield Row(what, f"{times[ours] * 1e3:.2f} / {times[theirs] * 1e3:.2f} ms", times[ours] / times[theirs], limit)
        else:
            yield Row(what, f"apt-get install {'bubblewrap' if theirs == 'bwrap' else 'runc'}", None, limit)


def hundred() -> Iterator[Row]:
    """A hundred containers alive: is the hundredth as quick to start as the tenth, and what does each hold?"""
    import nslab

    tenth: list[float] = []
    hundredth: list[float] = []
    held: list[float] = []
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            times, containers = [], []
            for number in range(100):
                start = time.perf_counter()
                container = stack.enter_context(nslab.Container(f"c{number}", isolate=KINDS))
                times.append(time.perf_counter() - start)
                containers.append(container)
            tenth += times[5:15]
            hundredth += times[90:]
            held += [private_memory(container.pid) for container in containers]
    early, late = median(tenth), median(hundredth)
    measured = f"{late * 1e3:.2f} / {early * 1e3:.2f} ms"
    yield Row("start of a container, 100 alive against 10 alive", measured, late / early, 1.3)
    yield Row("private memory of a container (pid namespace)", f"{median(held):.2f} MB", median(held), 3.0, "MB")


def imports() -> Iterator[Row]:
    """What `import nslab` costs a fresh Python, whose own start is taken off."""
    contenders = {
        name: lambda code=code: timed(lambda: spawn([sys.executable, "-c", code]), 2)
        for name, code in (("bare", ""), ("nslab", "import nslab"))
    }
    spawn([sys.executable, "-c", "import nslab"])  # compiled, and in the page cache
    times = take_turns(contenders)
    bare, ours = median(times["bare"]) * 1e3, median(times["nslab"]) * 1e3
    yield Row("import nslab", f"{ours:.0f} - {bare:.0f} ms", ours - bare, 60, "ms")


def lab_rows(part: str) -> Iterator[Row]:
    """Labs; see tests/bench/networks.py."""
    from tests.bench import networks

    return (Row(*each) for each in getattr(networks, part)())


def picture_rows() -> Iterator[Row]:
    """Pictures; see tests/bench/pictures.py."""
    from tests.bench.pictures import pictures

    return (Row(*each) for each in pictures())


# -- measuring --------------------------------------------------------------------------------------------------------


def take_turns(contenders: dict[str, Callable[[], list[float]]]) -> dict[str, list[float]]:
    """A B C A B C ...: a machine that gets slower, gets slower for all."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, contender in contenders.items():
            times[name] += contender()
    return times


def timed(action: Callable[[], object], runs: int = BATCH) -> list[float]:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return times


def c_loop(program: str, kinds: str) -> list[float]:
    result = subprocess.run([program, kinds, str(BATCH)], capture_output=True, text=True, check=True)
    return [int(line) / 1e9 for line in result.stdout.split()]


def spawn(command: list[str]) -> None:
    # Where bytecode is not written, a package in the checkout would be compiled at each start.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    pid = os.posix_spawn(shutil.which(command[0]) or command[0], command, env)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(f"it failed: {' '.join(command)}")


def private_memory(pid: int) -> float:
    """Megabytes that a container's processes share with nobody."""
    total, todo = 0, [pid]
    while todo:
        process = Path(f"/proc/{todo.pop()}")
        lines = (process / "smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        todo += [int(child) for task in process.glob("task/*/children") for child in task.read_text().split()]
    return total / 1024


def seeing_rows() -> Iterator[Row]:
    """discover(); see tests/bench/seeing.py."""
    from tests.bench.seeing import seeing

    return (Row(*each) for each in seeing())


def own_kernel_rows() -> Iterator[Row]:
    """A Linux kernel of one's own; see tests/bench/own_kernel.py."""
    from tests.bench.own_kernel import own_kernel

    return (Row(*each) for each in own_kernel())


# -- the table --------------------------------------------------------------------------------------------------------

WHO = "root" if os.geteuid() == 0 else "an ordinary user"
PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "one-shot": lambda: one_shot(WHO, KINDS),
    "one-shot-all": lambda: one_shot(WHO, ALL),
    "container": lambda: whole(WHO),
    "hundred": hundred,
    "import": imports,
    **{name: lambda name=name: lab_rows(name) for name in ("networks", "growing", "pinging", "memory")},
    "pictures": picture_rows,
    "seeing": seeing_rows,
    "own-kernel": own_kernel_rows,
}
AS_NOBODY_TOO = ("one-shot", "one-shot-all", "container")


def as_nobody(part: str) -> list[Row]:
    from tests.elsewhere import Elsewhere

    elsewhere = Elsewhere(ROOT)
    try:
        command, env = elsewhere.command(Path(sys.executable), ["-m", "tests.bench", "--json", "--only", part])
        result = subprocess.run(command, env=env, cwd=elsewhere.copy, stdout=subprocess.PIPE, text=True)
    finally:
        elsewhere.close()
    if not result.stdout:
        sys.exit("the measurement as an ordinary user failed")
    return [Row(**{name: row[name] for name in Row.__dataclass_fields__}) for row in json.loads(result.stdout)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument("--only", choices=PARTS, help="only this part, as who you are")
    args = parser.parse_args()
    rows: list[Row] = []
    for part, measure in PARTS.items():
        if args.only in (None, part):
            rows += measure()
        if part in AS_NOBODY_TOO and args.only is None and os.geteuid() == 0 and shutil.which("setpriv"):
            rows += as_nobody(part)
    if args.json:
        print(json.dumps([{**asdict(row), "verdict": row.verdict} for row in rows], indent=2))
    else:
        width = max(len(row.what) for row in rows)
        print(f"{'':{width}}  {'measured':>16} {'':>9} {'limit':>9}")
        for row in rows:
            value = "" if row.value is None else f"{row.value:.2f} {row.unit}"
            limit = f"{row.limit:g} {row.unit}"
            print(f"{row.what:{width}}  {row.measured:>16} {value:>9} {limit:>9}  {row.verdict}")
    return 1 if any(row.verdict == "FAIL" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
