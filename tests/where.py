"""docs/where-it-runs.md: which unit of the course runs in which kernel, made by running them all.

    python -m tests.where [--as root|ordinary|own|nothing]...

Root's kernel is this Python on this machine; an ordinary user is nobody, in a copy of the checkout; the own kernel is nobody's
as well; where nothing is allowed, a seccomp filter binds nobody, who has no linux.uml. What came of each is kept in
build/where, and the page is written of what is there: one column can be made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from nslab.lessons.course import Course
from tests.elsewhere import Elsewhere
from tests.notebooks.confined import path_without

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "where"
PAGE = ROOT / "docs" / "where-it-runs.md"
COLUMNS = {"root": "root", "ordinary": "ordinary user", "own": "own kernel", "nothing": "nothing allowed"}
KERNEL = "nslab-own-kernel"

HEAD = """# Where the course runs

Each unit, run from top to bottom in a fresh kernel: as root, as an ordinary user who may make user namespaces, and in a Linux
of its own ("nslab (own kernel)"), started by an ordinary user. The last column is for machines where neither root nor user
namespaces nor a kernel of one's own can be had: there each cell shows what it printed when it was recorded, marked, and is not
run. Seconds are from the start of the kernel to the last cell, on a machine with {processors} processors that had other things
to do: compare columns, not machines. `make where` made this page.

"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.where", description=__doc__.partition("\n")[0])
    parser.add_argument("--as", dest="who", action="append", choices=list(COLUMNS), help="only this column (may be repeated)")
    parser.add_argument("--only", action="append", metavar="UNIT", help="only this unit (may be repeated)")
    parser.add_argument("--page", action="store_true", help="run nothing: write the page of what is kept")
    args = parser.parse_args()
    if os.geteuid():
        sys.exit("this needs root, to be root and somebody else")
    KEPT.mkdir(parents=True, exist_ok=True)
    course = Course.find(ROOT / "notebooks")
    for who in () if args.page else args.who or COLUMNS:
        with Runner(who) as runner:
            for unit in course.choose(args.only or ()):
                outcome = runner.run(unit.name)
                (KEPT / f"{who}-{unit.name}.json").write_text(json.dumps(outcome))
                print(f"{COLUMNS[who]:14} {unit.name:30} {cell(outcome)}", flush=True)
    PAGE.write_text(page(course))
    return 0


class Runner:
    """Runs units as one of COLUMNS."""

    def __init__(self, who: str):
        self.who = who
        self.elsewhere = Elsewhere(ROOT) if who != "root" else None
        if self.elsewhere and who == "own":
            self._run(["vm", "install", "--prefix", f"{self.elsewhere.folder}/home"])
        elif self.elsewhere and who == "nothing":
            self.path = path_without(self.elsewhere.folder / "path")

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        if self.elsewhere:
            self.elsewhere.close()

    def run(self, unit: str) -> dict:
        """What `nslab course run --json` says of a unit."""
        done = self._run(["course", "run", unit, "--json", *(["--kernel", KERNEL] if self.who == "own" else [])])
        if not done.stdout.strip():
            sys.exit(done.stderr)
        return json.loads(done.stdout)[0]

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        arguments = ["-m", "nslab.cli", *words]
        if not self.elsewhere:
            return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
        command, env = self.elsewhere.command(Path(sys.executable), arguments)
        env = {**env, "JUPYTER_PATH": f"{self.elsewhere.folder}/home/share/jupyter"}
        if self.who == "nothing":
            python = command.index("-m") - 1
            command = [*command[:python], command[python], "-m", "tests.notebooks.confined", *command[python:]]
            env = {**env, "PATH": f"{Path(command[python]).parent}:{self.path}"}
        return subprocess.run(command, cwd=self.elsewhere.copy, env=env, capture_output=True, text=True)


def page(course: Course) -> str:
    """The table, and below it each cell that failed."""
    rows = ["| unit | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    failed = []
    for unit in course.units:
        cells = []
        for who, name in COLUMNS.items():
            path = KEPT / f"{who}-{unit.name}.json"
            outcome = json.loads(path.read_text()) if path.exists() else None
            cells.append(cell(outcome) if outcome else "not run")
            if outcome and outcome["failure"]:
                message = outcome["failure"]["message"].strip().splitlines()
                failed.append(f"- {unit.name}, {name}, cell {outcome['failure']['cell']}: `{message[-1][:160]}`")
        rows.append(f"| [{unit.name}](../notebooks/{unit.name}.ipynb) | " + " | ".join(cells) + " |")
    below = ["", "What failed, with the last line of what the cell said:", "", *failed] if failed else []
    return HEAD.format(processors=os.cpu_count()) + "\n".join([*rows, *below]) + "\n"


def cell(outcome: dict) -> str:
    if outcome["impossible"]:
        return f"not possible: {outcome['impossible']}"
    if outcome["recorded"] and outcome["ok"]:
        return f"shown from recordings, {outcome['seconds']:.0f} s"
    return f"{'passed' if outcome['ok'] else 'failed'}, {outcome['seconds']:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
