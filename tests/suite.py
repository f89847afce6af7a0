"""The whole suite by one command: `make test`, or python -m tests.suite [--quick] [--tier NAME] [-- PYTEST ARGUMENTS].

A tier is one run of pytest: a user, a Python, and a part of the tests. Root runs them all, those of an ordinary user as
nobody in a copy of the checkout. Before and after, the machine has to look the same; a tier leaves no process.
The few that fail are tried once more, alone: a busy machine is no defect, and those that then pass are named in the table.
It ends with a table of what ran, what was skipped and why, and a line of three counts.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tests.elsewhere import Elsewhere
from tests.fingerprint import changes, fingerprint

ROOT = Path(__file__).resolve().parent.parent
MUST_WORK = os.environ.get("NSLAB_MUST_WORK", "") not in ("", "0")
TIMEOUT = 900  # seconds for one tier
SECOND_LOOK = 4  # failures of one tier that may be tried again; more than that is no accident
PYTHONS = ("3.11", "3.13")  # that the suite runs on, where they are installed

# What some tests need, by its Debian package: a program on the PATH or a file.
PACKAGES = {
    "graphviz": "dot",
    "bubblewrap": "bwrap",
    "chromium": "chromium",
    "runc": "runc",
    "uidmap": "newuidmap",
    "util-linux": "unshare",
    "iproute2": "ip",
    "iputils-ping": "ping",
    "nftables": "nft",
    "slirp4netns": "slirp4netns",
    "tcpdump": "tcpdump",
    "procps": "ps",
    "busybox-static": "busybox",
    "user-mode-linux": "linux.uml",
    "gcc": "cc",
    "libc6-dev": "/usr/include/stdio.h",
    "make": "make",
    "zstd": "zstd",
}

CORE = "not notebook and not browser and not crash and not taken_out"
UML = "uml"  # the tests that need a whole cgroup v2, on a kernel that has one


@dataclass
class Tier:
    name: str
    user: str  # root, rootless (nobody), subids (nobody with subordinate ids), uml (root elsewhere), user (whoever we are)
    select: str  # a marker expression of pytest
    python: Path
    may_be_empty: bool = False
    patience: int = TIMEOUT
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # tests that passed only then
    seconds: float = 0.0


def main() -> int:
    args = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(ROOT)
    # What a shell starts in the background ignores them, and so would all that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of some thousand interpreters compiles all that it imports
    dependencies(args.deps)
    become_subreaper()
    not_run: list[str] = []
    all_tiers = list(tiers(args, not_run))
    chosen = [tier for tier in all_tiers if not args.tier or any(fnmatch(tier.name, wanted) for wanted in args.tier)]
    if not chosen:
        sys.exit(f"no such tier; there are: {' '.join(tier.name for tier in all_tiers)}")
    before = fingerprint()
    elsewhere = Elsewhere(ROOT) if any(tier.user in ("rootless", "subids") for tier in chosen) else None
    try:
        for tier in chosen:
            print(f"\n==== {tier.name}: {tier.select} ({_version(tier.python)}, {_who(tier.user)}) ====")
            run(tier, elsewhere, args.pytest)
    finally:
        if elsewhere:
            elsewhere.close()
    return report(chosen, not_run, changes(before, fingerprint()))


def _arguments() -> argparse.Namespace:
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="python -m tests.suite", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only the first tier: units and the kernel, as who you are")
    parser.add_argument("--tier", action="append", metavar="NAME", help="only this tier (a pattern; may be repeated)")
    parser.add_argument("--deps", choices=["install"], help="as root on Debian, fetch the packages that some tests need")
    args = parser.parse_args(own)
    args.pytest = rest
    return args


# -- what there is to run ---------------------------------------------------------------------------------------------


def tiers(args: argparse.Namespace, not_run: list[str]) -> Iterator[Tier]:
    here = Path(sys.executable)
    user, other = ("root", "rootless") if os.geteuid() == 0 else ("user", "")
    yield Tier(user, user, CORE, here)
    if args.quick:
        return
    if other:
        yield Tier("rootless", "rootless", CORE, here)
        yield Tier("subids", "subids", CORE, here, may_be_empty=True)
    if not args.tier or any("3." in name or "*" in name for name in args.tier):
        for python in other_pythons(not_run):
            yield Tier(f"{user}-{_version(python)}", user, CORE, python)
            if other:
                yield Tier(f"rootless-{_version(python)}", "rootless", CORE, python)
    for name, select in (("notebooks", "notebook"), ("crash", "crash")):
        yield Tier(name, user, select, here, may_be_empty=name == "crash")
        if other:
            yield Tier(f"{name}-rootless", "rootless", select, here, may_be_empty=name == "crash")
    if other:
        yield Tier("taken-out", "root", "taken_out", here, patience=2 * TIMEOUT)
    if shutil.which("linux.uml"):
        yield Tier("uml", "uml", UML, here)
    else:
        not_run.append("uml: there is no linux.uml, a kernel that runs as a process (Debian's user-mode-linux)")
    yield Tier("browser", user, "browser", here)


def other_pythons(not_run: list[str]) -> Iterator[Path]:
    """An environment's python for each further Python; NSLAB_TEST_PYTHONS="3.12 /a/python" names others, "" none."""
    mine = _version(Path(sys.executable))
    for wanted in os.environ.get("NSLAB_TEST_PYTHONS", " ".join(PYTHONS)).split():
        if wanted == mine:
            continue
        python = wanted if "/" in wanted else find_python(wanted)
        if python is None:
            not_run.append(f"Python {wanted}: not on the PATH and not in ~/.pyenv/versions")
            continue
        venv = f".venv-{_version(Path(python))}"
        if subprocess.run([".ci/venv", venv, "test"], env={**os.environ, "PYTHON": python}).returncode:
            not_run.append(f"Python {wanted}: its environment {venv} could not be made")
            continue
        yield ROOT / venv / "bin" / "python"


def find_python(version: str) -> str | None:
    """The path of a Python of this version ("3.13"): on the PATH, or among those that pyenv installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True),
    ]
    for candidate in filter(None, candidates):
        code = "import sys; print(*sys.version_info[:2], sep='.'); print(sys._base_executable)"
        result = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if result.returncode == 0 and result.stdout.splitlines()[0] == version:
            return result.stdout.splitlines()[1]
    return None


def dependencies(deps: str | None) -> None:
    def is_there(what: str) -> bool:
        return os.path.exists(what) if what.startswith("/") else shutil.which(what) is not None

    wanted = [package for package, what in PACKAGES.items() if not is_there(what)]
    if not wanted:
        return
    print(f"Some tests need what is not here: {' '.join(wanted)}")
    if deps != "install" or os.geteuid() != 0:
        print(f"They are skipped. To get it:  {'' if os.geteuid() == 0 else 'sudo '}make test DEPS=install")
        return
    if not shutil.which("apt-get"):
        sys.exit("DEPS=install knows Debian and Ubuntu only: there is no apt-get here.")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], env=env, stdin=subprocess.DEVNULL, check=True)
    install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *wanted]
    subprocess.run(install, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


# -- running one tier -------------------------------------------------------------------------------------------------


def run(tier: Tier, elsewhere: Elsewhere | None, extra: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="nslab-suite-") as folder:
        os.chmod(folder, 0o777)
        outcomes = look(tier, Path(folder), elsewhere, extra)
        failed = [name for name, (outcome, _) in outcomes.items() if outcome == "failed"]
        if 0 < len(failed) <= SECOND_LOOK:
            print(f"\n{len(failed)} failed; once more, alone:")
            for name, (outcome, why) in look(
                tier, Path(folder), elsewhere, [*extra, "--last-failed", "--last-failed-no-failures=none"]
            ).items():
                if name in failed and outcome == "passed":
                    outcomes[name] = outcome, why
                    tier.again.append(name)
    for outcome, why in outcomes.values():
        tier.counts[outcome] += 1
        if outcome == "skipped":
            tier.reasons[why] += 1
    if not tier.counts["passed"] + tier.counts["failed"] and not tier.may_be_empty and not extra and MUST_WORK:
        tier.problems.append("no test ran, and NSLAB_MUST_WORK is set")


def look(tier: Tier, folder: Path, elsewhere: Elsewhere | None, extra: list[str]) -> dict[str, tuple[str, str]]:
    """Run pytest for a tier: by the name of each test its outcome, and why it was skipped."""
    junit = folder / "junit.xml"
    junit.unlink(missing_ok=True)
    arguments = ["-m", "pytest", "--no-header", "-o", f"cache_dir={folder}/cache", "-m", tier.select, f"--junitxml={junit}"]
    arguments += [f"--basetemp={folder}/t", *extra]
    if tier.user in ("rootless", "subids"):
        assert elsewhere
        command, env = elsewhere.command(tier.python, arguments, subids=tier.user == "subids")
        cwd = elsewhere.copy
    elif tier.user == "uml":
        arguments = [word for word in arguments if not word.startswith("--basetemp=")]  # its own /tmp
        arguments += (
            [] if any(not word.startswith("-") for word in extra) else with_marker("uml")
        )  # collecting all the others takes long there
        command, env, cwd = [sys.executable, "-m", "tests.uml", str(folder), str(tier.python), *arguments], {**os.environ}, ROOT
    else:
        path = f"{tier.python.parent}:{os.environ['PATH']}"
        command, env, cwd = [str(tier.python), *arguments], {**os.environ, "PATH": path}, ROOT
    env["NSLAB_TIER"] = tier.user
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL)
    status = wait(process, tier.patience)
    tier.seconds += time.monotonic() - start
    if status is None:
        tier.problems.append(f"still running after {tier.patience} s")
    tier.problems += end_what_is_left()
    no_tests_collected = 5
    if status not in (0, 1, no_tests_collected, None):
        tier.problems.append(f"pytest ended with status {status}")
    return dict(read(junit)) if junit.exists() else {}


def with_marker(name: str) -> list[str]:
    return [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if f"pytest.mark.{name}" in path.read_text()]


def read(junit: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Of what pytest wrote: the name of each test, its outcome, and why it was skipped. One of two phases may have failed."""
    for case in ET.parse(junit).getroot().iter("testcase"):
        said = {child.tag: child.get("message", "") for child in case}
        outcome = "failed" if said.keys() & {"failure", "error"} else "skipped" if "skipped" in said else "passed"
        yield f"{case.get('classname')}::{case.get('name')}", (outcome, said.get("skipped", ""))


# -- processes: whatever a tier leaves is handed to us, told and ended ------------------------------------------------


def become_subreaper() -> None:
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def wait(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """Its exit status; meanwhile reap the orphans. None if it had to be killed."""

    def on_alarm(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode
    except TimeoutError:
        process.kill()
        process.wait()
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def end_what_is_left(patience: float = 2.0) -> list[str]:
    """The children that are still there after ``patience`` seconds, each ended."""
    deadline = time.monotonic() + patience
    while (left := _reap()) and time.monotonic() < deadline:
        time.sleep(0.02)
    said = []
    while left:
        for pid in left:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            said.append(f"left behind: process {pid} {Path(f'/proc/{pid}/comm').read_text().strip()}: {command[:100]}")
            os.kill(pid, signal.SIGKILL)  # our own child, not yet reaped: the number is still its own
            os.waitpid(pid, 0)
        left = _reap()
    return said


def _reap() -> list[int]:
    """Collect the children that have ended; the PIDs of the others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]


# -- the end ----------------------------------------------------------------------------------------------------------


def report(chosen: list[Tier], not_run: list[str], changed: list[str]) -> int:
    total: Counter[str] = Counter()
    print(f"\n{'tier':20} {'run':>6} {'passed':>6} {'failed':>6} {'skipped':>7} {'s':>5}")
    for tier in chosen:
        tier.counts["failed"] += len(tier.problems)
        total += tier.counts
        passed, failed, skipped = (tier.counts[name] for name in ("passed", "failed", "skipped"))
        ran = passed + failed - len(tier.problems)
        print(f"{tier.name:20} {ran:6} {passed:6} {failed:6} {skipped:7} {tier.seconds:5.0f}")
        for problem in tier.problems:
            print(f"    FAILED: {problem}")
        for name in tier.again:
            print(f"    passed only when tried again: {name}")
        for reason, number in tier.reasons.most_common():
            print(f"    skipped {number}: {reason}")
    for line in not_run:
        print(f"not run: {line}")
    if changed:
        total["failed"] += 1
        print("FAILED: the machine is not as it was:")
        print("\n".join(f"    {line}" for line in changed))
    else:
        print("The machine is as it was: names, mounts, links, addresses, routes, rules, sysctls.")
    print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] or not total["passed"] else 0


def _version(python: Path) -> str:
    code = "import sys; print(*sys.version_info[:2], sep='.')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _who(user: str) -> str:
    names = {
        "root": "as root",
        "rootless": "as nobody",
        "subids": "as nobody with subordinate ids",
        "uml": "as root of user-mode Linux",
    }
    return names.get(user, "as you")


if __name__ == "__main__":
    sys.exit(main())
