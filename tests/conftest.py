"""What every test has: requirements as data, and a check that it left nothing behind.

    @pytest.mark.requires("root", "tool:bwrap")

What a machine lacks is a skip that says what is missing and how to get it; with NSLAB_MUST_WORK set it is a failure. A
requirement that belongs to another tier (root among the rootless tests) takes the test out of this one: see ELSEWHERE.
"""

from __future__ import annotations

import contextlib
import gc
import getpass
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.oracle import cgroups, is_standby, system_v

MUST_WORK = os.environ.get("NSLAB_MUST_WORK", "") not in ("", "0")
# Set by tests/suite.py: root, rootless, subids ...; empty when pytest is called by hand.
TIER = os.environ.get("NSLAB_TIER", "")

# -- requirements -----------------------------------------------------------------------------------------------------


class Requirement(NamedTuple):
    """``probe`` takes what stands behind the colon of the name, "" when there is none."""

    probe: Callable[[str], bool]
    reason: str
    how: str


def _is_root(_: str) -> bool:
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    cap_sys_admin = 21
    return os.geteuid() == 0 and effective is not None and bool(int(effective[1], 16) >> cap_sys_admin & 1)


def _has_userns(_: str) -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "--user", "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def _has_subids(_: str) -> bool:
    def has_range(table: str) -> bool:
        try:
            lines = Path(table).read_text().splitlines()
        except OSError:
            return False
        return any(line.split(":")[0] in (getpass.getuser(), str(os.getuid())) for line in lines)

    return bool(shutil.which("newuidmap")) and has_range("/etc/subuid") and has_range("/etc/subgid")


def _is_initial(kind: str) -> bool:
    return os.stat(f"/proc/self/ns/{kind}").st_ino == {"pid": 4026531836, "user": 4026531837}[kind]  # on every kernel


def _has_linux(version: str) -> bool:
    release, wanted = ([int(number) for number in re.findall(r"\d+", text)[:2]] for text in (os.uname().release, version))
    return release >= wanted


def _has_python(version: str) -> bool:
    from tests.suite import find_python

    return find_python(version) is not None


def _has_cgroup2(controllers: str) -> bool:
    import nslab
    from nslab.container import limits

    try:
        limits.place(tuple(filter(None, controllers.split("+"))))
    except nslab.Unavailable:
        return False
    return True


REQUIREMENTS = {
    "root": Requirement(_is_root, "needs root with CAP_SYS_ADMIN", "run it as root, for example: sudo make test"),
    "ordinary": Requirement(lambda _: os.geteuid() != 0, "needs an ordinary user", "run it as one"),
    "userns": Requirement(
        _has_userns,
        "needs user namespaces that a process may make",
        "see the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns",
    ),
    "subids": Requirement(
        _has_subids,
        "needs newuidmap and a range of subordinate ids",
        "apt-get install uidmap, and a line for the user in /etc/subuid and /etc/subgid",
    ),
    "initial": Requirement(_is_initial, "needs to be in the initial namespace of kind {}", "run it outside any container"),
    "linux": Requirement(_has_linux, "needs Linux {}", "a newer kernel"),
    "tool": Requirement(lambda name: shutil.which(name) is not None, "needs {}", "make test DEPS=install"),
    "cgroup2": Requirement(
        _has_cgroup2,
        "needs cgroup v2 with {} for this user",
        "it is run by the tier uml: python -m tests.suite --tier uml",
    ),
    "python": Requirement(_has_python, "needs Python {}", "install it where PATH or ~/.pyenv/versions has it"),
}

# What holds in one tier only, and so takes a test out of the others when tests/suite.py runs them all.
ELSEWHERE = {
    "root": {"root", "uml"},
    "cgroup2": {"uml"},
    "ordinary": {"rootless", "subids"},
    "subids": {"subids"},
}


@cache
def missing(name: str) -> str | None:
    """Why ``name`` does not hold here, with the way out, or None."""
    requirement, argument = REQUIREMENTS[key(name)], name.partition(":")[2]
    if requirement.probe(argument):
        return None
    return f"{requirement.reason.format(argument)} ({requirement.how})"


def required(item: pytest.Item) -> list[str]:
    names = [name for mark in item.iter_markers("requires") for name in mark.args]
    names += ["root"] if item.get_closest_marker("root") else []
    names += ["ordinary"] if item.get_closest_marker("rootless") else []
    return names


# The marker that a whole folder gets, so that no test in it can be forgotten.
FOLDERS = {"notebooks": "notebook", "browser": "browser", "taken_out": "taken_out"}


@pytest.hookimpl(tryfirst=True)  # before -m selects by these markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        mark = FOLDERS.get(item.path.relative_to(config.rootpath / "tests").parts[0])
        if mark:
            item.add_marker(mark)
        unknown = [name for name in required(item) if key(name) not in REQUIREMENTS]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid} requires {unknown}: see REQUIREMENTS in tests/conftest.py")
    if not TIER:
        return
    gone = [item for item in items if _is_elsewhere(item)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if not _is_elsewhere(item)]


def _is_elsewhere(item: pytest.Item) -> bool:
    names = required(item)
    if TIER == "subids":
        return "subids" not in names
    # The tier "user" is the whole suite as an ordinary user: nothing is run elsewhere, and what is missing is said.
    return TIER != "user" and any(TIER not in ELSEWHERE.get(key(name), {TIER}) and not is_here(name) for name in names)


def key(name: str) -> str:
    return name.partition(":")[0]


def is_here(name: str) -> bool:
    """Whether what is usually another tier's can be had in this one: a machine may have a whole cgroup v2."""
    return key(name) == "cgroup2" and missing(name) is None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in required(item):
        reason = missing(name)
        if reason is None:
            continue
        if MUST_WORK and key(name) not in ("root", "ordinary", "python", "cgroup2"):
            pytest.fail(f"{reason}, and NSLAB_MUST_WORK is set", pytrace=False)
        pytest.skip(reason)


# -- nothing is left behind -------------------------------------------------------------------------------------------

SETTLE = 2.0  # seconds that what has been killed has to be gone


def descriptors() -> Counter[str]:
    """The open descriptors by what they are; sockets, pipes and pidfds are alike, whichever number they have."""
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the one that listed the folder
            continue
        found[re.sub(r"^(socket|pipe):\[\d+\]$", r"\1", link)] += 1
    return found


def processes() -> Counter[str]:
    """Every descendant but the helpers that nslab keeps. A zombie that is not ours to reap is as good as gone."""
    helpers = _warm if _warm & _living() else _running()
    found: Counter[str] = Counter()
    # The orphans of the tests are handed to tests/suite.py, our parent.
    todo = ["self"] + ([str(os.getppid())] if TIER else [])
    while todo:
        try:
            lists = [path.read_text() for path in Path(f"/proc/{todo.pop()}/task").glob("*/children")]
        except OSError:
            continue
        for pid in (word for text in lists for word in text.split()):
            if int(pid) == os.getpid():
                continue
            todo.append(pid)
            if int(pid) not in helpers and not _is_foreign_zombie(pid) and not is_standby(int(pid)):
                found[pid] += 1
    return found


def _is_foreign_zombie(pid: str) -> bool:
    stat = _lines(f"/proc/{pid}/stat")
    state, parent = stat[0].rpartition(")")[2].split()[:2] if stat else ("Z", "0")
    return state == "Z" and int(parent) != os.getpid()


def _command(pid: str) -> str:
    words = "".join(_lines(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
    return f"{pid} ({''.join(_lines(f'/proc/{pid}/comm'))}) {words}"


# The watchdog and the spawners, as they were when they were new: what the watchdog adopts later is a leak.
_warm: set[int] = set()


def _running() -> set[int]:
    import nslab.spawner

    return set(nslab.spawner.running_pids())


def _living() -> set[int]:
    return {pid for pid in _running() if os.path.exists(f"/proc/{pid}")}


def warm_up() -> None:
    """Start what stays, so that it counts as there before: the helpers, an ordinary user's borrowed user namespace."""
    global _warm
    import nslab
    import nslab.spawner

    nslab.spawner.ensure()
    if _warm and _warm <= _living():
        return
    with contextlib.suppress(nslab.NslabError):  # user namespaces may be forbidden here; the tests will say so
        nslab.run(["true"], isolate="uts")
    _warm = _running()


def left_behind() -> dict[str, Counter[str]]:
    """All that a test could leave behind, each a Counter, so that the difference says what came."""
    return {
        "descriptors": descriptors(),
        "processes": processes(),
        "mounts": Counter(line.partition(" - ")[0] for line in _lines("/proc/self/mountinfo")),
        "names": Counter([f"hostname {os.uname().nodename}", *(_lines("/proc/sys/kernel/domainname"))]),
        "interfaces": Counter(os.listdir("/sys/class/net")),
        "cgroups": Counter(cgroups()),
        "System V objects": Counter(system_v()),
        "namespaces": Counter(os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def differences(before: dict[str, Counter[str]], after: dict[str, Counter[str]], ignore: set[str]) -> list[str]:
    """What came, and of mounts, interfaces and names also what went."""
    said = []
    for what, old in before.items():
        if what in ignore:
            continue
        describe = _command if what == "processes" else str
        said += [f"{what}: {describe(item)}" for item in sorted((after[what] - old).elements())]
        if what in ("mounts", "interfaces", "names", "namespaces"):
            said += [f"{what}: gone: {item}" for item in sorted((old - after[what]).elements())]
    return said


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test after which more is there than before: descriptors, processes, mounts, interfaces, cgroups, ..."""
    node = request.node
    if node.get_closest_marker("no_leak_check"):
        yield
        return
    is_a = {mark for mark in ("unit", "notebook", "browser") if node.get_closest_marker(mark)}
    if not is_a:
        warm_up()
    # The libraries that talk to a kernel or a browser keep descriptors, and a browser's driver lives as long as we do.
    ignore = {"descriptors"} if is_a & {"notebook", "browser"} else set()
    ignore |= {"processes"} if "browser" in is_a else set()
    before = left_behind()
    yield
    deadline = time.monotonic() + SETTLE
    said = differences(before, left_behind(), ignore)
    if said:
        gc.collect()
    while said and time.monotonic() < deadline:
        time.sleep(0.02)  # polling: most of these have no descriptor to wait on
        found = differences(before, left_behind(), ignore)
        said = [line for line in found if line in said or not line.startswith("System V")]  # another run makes some, too
    if said:
        pytest.fail("left behind:\n  " + "\n  ".join(said), pytrace=False)
