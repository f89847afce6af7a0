"""Labs beside what else makes networks: Mininet, ip(8), and Python that speaks netlink and does nothing else.

The others work in network and mount namespaces of their own, which are gone with them.
"""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nslab import Topology, netlink
from nslab.network import listing
from tests.crash.oracle import descendants, is_standby

HERE = Path(__file__).resolve().parent
HOSTS, PINGED, SOME, TURNS = 300, 100, 15, 3
DEBIAN = "/usr/bin/python3"  # the Python that Debian's mininet is a package of
APART = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
UNTOUCHED = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys; mount -t tmpfs none /run; "
# One command for all that one namespace can see, then one in each host.
BY_IP = 'ip -batch "$0/all"; for each in $(seq $1); do ip -n h$each -batch "$0/$each"; done'

Result = tuple[str, str, float | None, float, str]  # what, measured, the value that the limit is on, limit, unit


def networks() -> Iterator[Result]:
    """300 hosts on one bridge, addressed and up, and gone again. The quickest of three turns each counts."""
    ours: list[float] = []
    gone: list[float] = []
    theirs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(HOSTS + 1):
            Path(folder, str(number) if number else "all").write_text(_lines(number))
        contenders: dict[str, Callable[[], float]] = {
            "raw netlink": lambda: float(_output([sys.executable, HERE / "raw_netlink.py", HOSTS])),
            "ip": lambda: _took(["sh", "-c", BY_IP, folder, HOSTS]),
        }
        has = has_mininet()
        Topology.single(2).deploy().destroy()
        for _ in range(TURNS):
            seconds = _deploy_and_destroy()
            ours.append(seconds[0])
            gone.append(seconds[1])
            for name, measure in contenders.items():
                theirs.setdefault(name, []).append(measure())
            if has:
                start, _, stop = mininet(HOSTS)
                theirs.setdefault("Mininet", []).append(start)
                theirs.setdefault("Mininet's stop", []).append(stop)
    for name, limit in (("Mininet", 1 / 8), ("ip", 1 / 2), ("raw netlink", 2.0)):
        yield row(f"{HOSTS} hosts on a bridge, against {name}", min(ours), theirs.get(name), limit)
    yield row(
        f"{HOSTS} hosts, until the last interface is gone, against Mininet", min(gone), theirs.get("Mininet's stop"), 1 / 4
    )


def growing() -> Iterator[Result]:
    """A tree of 1,000 hosts against one of 100."""
    took: dict[int, list[float]] = {2: [], 3: []}
    for _ in range(TURNS):
        for depth, times in took.items():
            begin = time.perf_counter()
            with Topology.tree(depth=depth, fanout=10).deploy():
                times.append((time.perf_counter() - begin) / 10**depth)
            gc.collect()
    few, many = min(took[2]) * 1e3, min(took[3]) * 1e3
    yield "a host of 1,000 in a tree, against one of 100", f"{many:.2f} / {few:.2f} ms", many / few, 1.5, "x"


def pinging() -> Iterator[Result]:
    """Each of 100 hosts from each other. Mininet has one ping after the other, so what some of them take tells for all."""
    with Topology.single(PINGED).deploy() as lab:
        begin = time.perf_counter()
        matrix = lab.ping_all()
        ours = time.perf_counter() - begin
    theirs = [mininet(PINGED, SOME)[1] * PINGED * (PINGED - 1) / (SOME * (SOME - 1))] if has_mininet() else None
    what = f"ping_all of {PINGED} hosts ({len(matrix.lost)} lost), against Mininet's, from {SOME * (SOME - 1)} of its pings"
    yield row(what, ours, theirs, 1 / 5)


def memory() -> Iterator[Result]:
    """What a node costs in user space, in the notebook's process, the spawner and the rest: of a fresh Python, in kilobytes."""
    code = "from tests.bench.networks import memory_of_a_node; print(*memory_of_a_node())"
    printed = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=HERE.parents[1]
    ).stdout
    kilobytes, processes = map(float, printed.split())
    yield f"memory of a node that is a network ({processes:.0f} processes)", f"{kilobytes:.0f} kB", kilobytes, 50, "kB"


def memory_of_a_node() -> tuple[float, int]:
    """Kilobytes and processes that there are more of with a lab than without, by the number of its hosts."""
    Topology.single(2).deploy().destroy()
    before, processes = _private(), len(_processes())
    with Topology.single(HOSTS).deploy():
        return (_private() - before) / HOSTS, len(_processes()) - processes


# -- measuring --------------------------------------------------------------------------------------------------------


def row(what: str, ours: float, theirs: list[float] | None, limit: float) -> Result:
    if not theirs:
        return what, "apt-get install mininet bridge-utils", None, limit, "x"
    return what, f"{ours:.3f} / {min(theirs):.3f} s", ours / min(theirs), limit, "x"


def _deploy_and_destroy() -> tuple[float, float]:
    """The seconds from nothing to a lab, and from its end to the last port of its bridge."""
    gc.collect()
    begin = time.perf_counter()
    lab = Topology.single(HOSTS).deploy()
    took = time.perf_counter() - begin
    assert lab.fabric
    fabric = netlink.Socket(socket.socket(fileno=os.dup(lab.fabric.socket.fileno())))  # keeps the namespace alive
    begin = time.perf_counter()
    lab.destroy()
    while len(listing.links(fabric)) > 2:  # lo and the bridge
        time.sleep(0.001)
    fabric.close()
    return took, time.perf_counter() - begin


def has_mininet() -> bool:
    find = [DEBIAN, "-c", "import mininet"]
    return bool(shutil.which("brctl") and shutil.which("mnexec")) and subprocess.run(find, capture_output=True).returncode == 0


def mininet(hosts: int, pinged: int = 0) -> list[float]:
    return [float(word) for word in _output([DEBIAN, HERE / "mininet_lab.py", hosts, pinged]).split()]


def _apart(command: list[object]) -> list[str]:
    return [*APART, "sh", "-c", UNTOUCHED + 'exec "$@"', "sh", *map(str, command)]


def _output(command: list[object]) -> str:
    return subprocess.run(_apart(command), stdout=subprocess.PIPE, text=True, check=True).stdout


def _took(command: list[object]) -> float:
    begin = time.perf_counter()
    subprocess.run(_apart(command), check=True)
    return time.perf_counter() - begin


def _lines(number: int) -> str:
    if number:
        return f"link set lo up\nlink set eth0 up\naddress add 10.0.{number >> 8}.{number & 255}/16 dev eth0\n"
    lines = ["link add s1 type bridge", "link set s1 up"]
    for each in range(1, HOSTS + 1):
        lines += [
            f"netns add h{each}",
            f"link add s1-{each} type veth peer name eth0 netns h{each}",
            f"link set s1-{each} master s1 up",
        ]
    return "\n".join([*lines, ""])


def _processes() -> set[int]:
    """This one and its helpers; not those that are kept ahead of the next request, whoever makes it."""
    return {os.getpid(), *(pid for pid in descendants(os.getpid()) if not is_standby(pid))}


def _private() -> int:
    """Kilobytes that these processes share with nobody."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _processes()]
    return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Private_"))
