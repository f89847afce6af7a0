"""The whole suite by one command: `make test`, or python -m tests.suite [--quick] [--tier NAME] [-- PYTEST ARGUMENTS].

A tier is one run of pytest: a user, a Python, and a part of the tests. Root runs them all, those of an ordinary user as
nobody in a copy of the checkout. Two run beside each other. Before and after, the machine has to look the same; a tier leaves
no process. The few that fail are tried once more, alone: a busy machine is no defect, and those that then pass are named in
the table. It ends with a table of what ran, what was skipped and why, and a line of three counts.

Every test runs as each user that can run it. With two Pythons root has one and nobody has the other, so that what both can run
runs on both. User and Python together matter to CROSSED: those run in all four ways.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.elsewhere import Elsewhere
from tests.fingerprint import changes, fingerprint
from tests.lanes import run_in_lanes
from tests.tier import ROOT, SECOND_LOOK, Tier, run, run_again, with_marker

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
ELSEWHERE = ("rootless", "subids")

# What goes by the rights of a user and by how a Python forks, ends and calls, both at once.
CROSSED = {
    "test_run.py": "commands: pipes, signals and status, through spawner and standby",
    "test_process.py": "a process that is steered: made by the spawner of an ordinary user in another way",
    "test_container.py": "init and supervisors are forks of Python, which write id maps by other rules",
    "test_standby.py": "a child that is forked ahead, and works in the memory of its spawner",
    "test_dying.py": "who ends when one is killed: signals between users and to children of a borrowed user namespace",
    "test_interrupts.py": "KeyboardInterrupt anywhere, and what is then undone",
    "test_joining.py": "entering: a user namespace first, or not",
    "test_nesting.py": "a Python of nslab below another",
    "test_idmaps.py": "maps that only one of them may write",
    "test_subordinate.py": "maps by newuidmap",
    "test_cases_a.py": "faults of spawners, init and commands",
    "test_cases_c.py": "functions that run inside: pickled by this Python, called with those rights",
    "test_messages.py": "what an exception says as whom",
}


def main() -> int:
    args = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(ROOT)
    # What a shell starts in the background ignores them, and so would all that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of some thousand interpreters compiles all that it imports
    dependencies(args.deps)
    not_run: list[str] = []
    all_tiers = list(tiers(args, not_run))
    chosen = [tier for tier in all_tiers if not args.tier or any(fnmatch(tier.name, wanted) for wanted in args.tier)]
    if not chosen:
        sys.exit(f"no such tier; there are: {' '.join(tier.name for tier in all_tiers)}")
    before, start = fingerprint(), time.monotonic()
    elsewhere = Elsewhere(ROOT) if any(tier.user in ELSEWHERE for tier in chosen) else None
    try:
        if elsewhere:
            elsewhere.prepare(tier.python for tier in chosen if tier.user in ELSEWHERE)
        with tempfile.TemporaryDirectory(prefix="nslab-run-") as folder:
            os.chmod(folder, 0o755)
            run_all(chosen, Path(folder), elsewhere, args.pytest)
    except KeyboardInterrupt:
        print("\ninterrupted: nothing is said about the machine, and the tiers that were running have no result")
        return 130
    finally:
        if elsewhere:
            elsewhere.close()
    return report(chosen, not_run, changes(before, fingerprint()), time.monotonic() - start)


def run_all(chosen: Sequence[Tier], folder: Path, elsewhere: Elsewhere | None, extra: list[str]) -> None:
    """First the tiers that go beside each other, then those that go alone, then once more what has failed, alone too."""
    numbers = {tier.name: str(number) for number, tier in enumerate(chosen)}  # short: sockets have their paths below it

    def first(tier: Tier) -> None:
        part = f", {len(tier.files)} files" if tier.files else ""
        print(f"\n==== {tier.name}: {tier.select} ({_version(tier.python)}, {_who(tier.user)}{part}) ====", flush=True)
        run(tier, folder / numbers[tier.name], elsewhere, extra)

    def again(tier: Tier) -> None:
        print(f"\n==== {tier.name}: {len(tier.failed)} failed; once more, alone ====", flush=True)
        run_again(tier, folder / numbers[tier.name], elsewhere, extra)

    run_in_lanes([tier for tier in chosen if not tier.alone], folder, first)
    for tier in chosen:
        if tier.alone:
            run_in_lanes([tier], folder, first)
    for tier in chosen:
        if 0 < len(tier.failed) <= SECOND_LOOK:
            (folder / f"{tier.name}.out").unlink()
            run_in_lanes([tier], folder, again)


def _arguments() -> argparse.Namespace:
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="python -m tests.suite", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only the first tier: units and the kernel, as who you are")
    parser.add_argument("--tier", action="append", metavar="NAME", help="only this tier (a pattern; may be repeated)")
    parser.add_argument("--one", action="store_true", help="one tier after the other, never two at a time")
    parser.add_argument("--deps", choices=["install"], help="as root on Debian, fetch the packages that some tests need")
    args = parser.parse_args(own)
    args.pytest = rest
    return args


# -- what there is to run ---------------------------------------------------------------------------------------------


def tiers(args: argparse.Namespace, not_run: list[str]) -> Iterator[Tier]:
    """The first lane is root's. The second has what is not in its way: nobody's, another kernel's, and sessions apart."""
    here = Path(sys.executable)
    user, other = ("root", "rootless") if os.geteuid() == 0 else ("user", "")
    yield Tier(user, user, CORE, here)
    if args.quick:
        return
    second = 0 if args.one else 1
    by_name = not args.tier or any("3." in name or "*" in name for name in args.tier)
    pythons = list(other_pythons(not_run)) if by_name else []
    # Who asks for a tier by its name gets all of it.
    crossed = tuple(f"tests/{name}" for name in CROSSED) if other and pythons and not args.tier else ()
    if other:
        yield Tier("rootless", "rootless", CORE, here, crossed, lane=second)
        yield Tier("subids", "subids", CORE, here, lane=second, may_be_empty=True)
    for python in pythons:
        yield Tier(f"{user}-{_version(python)}", user, CORE, python, crossed)
        if other:
            yield Tier(f"rootless-{_version(python)}", "rootless", CORE, python, lane=second)
    yield Tier("notebooks", user, "notebook", here)
    if other:
        yield Tier("notebooks-rootless", "rootless", "notebook", here, lane=second)
        yield Tier("taken-out", "root", "taken_out", here, lane=second)
    if shutil.which("linux.uml"):
        yield Tier("uml", "uml", "uml", here, with_marker("uml"), lane=second)
    else:
        not_run.append("uml: there is no linux.uml, a kernel that runs as a process (Debian's user-mode-linux)")
    yield Tier("browser", user, "browser", here)
    yield Tier("crash", user, "crash", here, alone=True, may_be_empty=True)
    if other:
        yield Tier("crash-rootless", "rootless", "crash", here, alone=True, may_be_empty=True)


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


# -- the end ----------------------------------------------------------------------------------------------------------


def report(chosen: Sequence[Tier], not_run: list[str], changed: list[str], seconds: float) -> int:
    total: Counter[str] = Counter()
    print(f"\n{'tier':20} {'run':>6} {'passed':>6} {'failed':>6} {'skipped':>7} {'s':>5}")
    for tier in chosen:
        counts = tier.counts + Counter(failed=len(tier.problems))
        total += counts
        passed, failed, skipped = (counts[name] for name in ("passed", "failed", "skipped"))
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
    print(f"\n{seconds // 60:.0f} min {seconds % 60:.0f} s")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
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
