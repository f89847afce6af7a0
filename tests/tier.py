"""A tier: one run of pytest, as a user, with a Python, of a part of the tests; what it leaves is told and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.elsewhere import Elsewhere

ROOT = Path(__file__).resolve().parent.parent
MUST_WORK = os.environ.get("NSLAB_MUST_WORK", "") not in ("", "0")
TIMEOUT = 1200  # seconds for one tier, of which another runs beside it
COLOUR = "--color=yes" if sys.stdout.isatty() else "--color=no"  # pytest itself writes to a file
SECOND_LOOK = 4  # failures of one tier that may be tried again; more than that is no accident


@dataclass
class Tier:
    name: str
    user: str  # root, rootless (nobody), subids (nobody with subordinate ids), uml (root elsewhere), user (whoever we are)
    select: str  # a marker expression of pytest
    python: Path
    files: tuple[str, ...] = ()  # only these
    lane: int = 0  # tiers of different lanes run beside each other
    alone: bool = False  # nothing runs beside it
    may_be_empty: bool = False
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)  # by test: passed, failed or skipped, and why
    problems: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # tests that passed only then
    seconds: float = 0.0

    @property
    def counts(self) -> Counter[str]:
        return Counter(outcome for outcome, _ in self.outcomes.values())

    @property
    def reasons(self) -> Counter[str]:
        return Counter(why for outcome, why in self.outcomes.values() if outcome == "skipped")

    @property
    def failed(self) -> list[str]:
        return [name for name, (outcome, _) in self.outcomes.items() if outcome == "failed"]


def run(tier: Tier, folder: Path, elsewhere: Elsewhere | None, extra: list[str]) -> None:
    """All that the tier has; what pytest keeps is in a new folder that everybody may write to."""
    folder.mkdir()
    folder.chmod(0o777)
    tier.outcomes = look(tier, folder, elsewhere, extra)
    ran = {outcome for outcome, _ in tier.outcomes.values()} & {"passed", "failed"}
    if not ran and not tier.may_be_empty and not extra and MUST_WORK:
        tier.problems.append("no test ran, and NSLAB_MUST_WORK is set")


def run_again(tier: Tier, folder: Path, elsewhere: Elsewhere | None, extra: list[str]) -> None:
    """What has failed, by what pytest kept in the folder of the first time."""
    failed = tier.failed
    found = look(tier, folder, elsewhere, [*extra, "--last-failed", "--last-failed-no-failures=none"])
    tier.again = [name for name in failed if found.get(name, ("", ""))[0] == "passed"]
    tier.outcomes.update({name: found[name] for name in tier.again})


def look(tier: Tier, folder: Path, elsewhere: Elsewhere | None, extra: list[str]) -> dict[str, tuple[str, str]]:
    """Run pytest for a tier: by the name of each test its outcome, and why it was skipped."""
    junit = folder / "junit.xml"
    junit.unlink(missing_ok=True)
    arguments = ["-m", "pytest", "--no-header", "-o", f"cache_dir={folder}/cache", "-m", tier.select, COLOUR]
    arguments.append(f"--junitxml={junit}")
    if tier.user != "uml":  # which has a /tmp of its own
        arguments.append(f"--basetemp={folder}/t")
    arguments += extra
    if all(word.startswith("-") for word in extra):
        arguments += tier.files
    command, env, cwd = _command(tier, folder, elsewhere, arguments)
    env["NSLAB_TIER"] = tier.user
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL)
    status = wait(process, TIMEOUT)
    tier.seconds += time.monotonic() - start
    if status is None:
        tier.problems.append(f"still running after {TIMEOUT} s")
    tier.problems += end_what_is_left()
    no_tests_collected = 5
    if status not in (0, 1, no_tests_collected, None):
        tier.problems.append(f"pytest ended with status {status}")
    return dict(read(junit)) if junit.exists() else {}


def _command(
    tier: Tier, folder: Path, elsewhere: Elsewhere | None, arguments: list[str]
) -> tuple[list[str], dict[str, str], Path]:
    """The command, its environment and where it runs."""
    if tier.user in ("rootless", "subids"):
        assert elsewhere
        return *elsewhere.command(tier.python, arguments, subids=tier.user == "subids"), elsewhere.copy
    if tier.user == "uml":
        return [sys.executable, "-m", "tests.uml", str(folder), str(tier.python), *arguments], {**os.environ}, ROOT
    return [str(tier.python), *arguments], {**os.environ, "PATH": f"{tier.python.parent}:{os.environ['PATH']}"}, ROOT


def with_marker(name: str) -> tuple[str, ...]:
    """The files that have it: where it is slow, collecting all the others takes long."""
    return tuple(str(path) for path in sorted(Path("tests").rglob("test_*.py")) if f"pytest.mark.{name}" in path.read_text())


def read(junit: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Of what pytest wrote: the name of each test, its outcome, and why it was skipped. One of two phases may have failed."""
    for case in ET.parse(junit).getroot().iter("testcase"):
        said = {child.tag: child.get("message", "") for child in case}
        outcome = "failed" if said.keys() & {"failure", "error"} else "skipped" if "skipped" in said else "passed"
        yield f"{case.get('classname')}::{case.get('name')}", (outcome, said.get("skipped", ""))


# -- processes: whatever a tier leaves is handed to us, told and ended ------------------------------------------------


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
        time.sleep(0.02)  # polling: they were not made by us, and fall to us one after the other
    said = []
    while left:
        for pid in left:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            said.append(f"left behind: process {pid} {Path(f'/proc/{pid}/comm').read_text().strip()}: {command[:100]}")
            os.kill(pid, signal.SIGKILL)  # our own child, not yet reaped: the number is still its own
            os.waitpid(pid, 0)
        left = _reap()
    return said


def interrupt(patience: float = 30.0) -> None:
    """Ctrl-C for each child; those that have not undone what they made after ``patience`` seconds are killed."""
    for pid in _reap():
        os.kill(pid, signal.SIGINT)
    end_what_is_left(patience)


def _reap() -> list[int]:
    """Collect the children that have ended; the PIDs of the others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]
