"""The same container by nslab, unshare, bwrap and runc: one table of what each isolates, from the kernel's answers.

`make compare`, or python -m tests.compare [--json]. It makes one container with each tool, looks at it in /proc and ends it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from nslab import NslabError
from tests.compare.facts import facts, session_keyring
from tests.compare.tools import TOOLS, lacking, rootfs


def compare() -> dict[str, dict[str, str]]:
    """By tool: the answers by question, or {"": why it could not be asked}."""
    table = {}
    session_keyring()  # there is one, for all tools alike
    for tool, make in TOOLS.items():
        if reason := lacking(tool):
            table[tool] = {"": reason}
            continue
        try:
            with rootfs() as root, make(root) as (pid, said):
                table[tool] = facts(pid, said)
        except (NslabError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
            table[tool] = {"": str(error).splitlines()[0]}
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="for each tool, an object of question and answer")
    args = parser.parse_args()
    table = compare()
    if args.json:
        print(json.dumps(table, indent=2))
        return 0
    columns = {tool: answers for tool, answers in table.items() if "" not in answers}
    questions = list(dict.fromkeys(question for answers in columns.values() for question in answers))
    rows = [
        ["", *columns],
        *([question, *(answers.get(question, "") for answers in columns.values())] for question in questions),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for tool, answers in table.items():
        if "" in answers:
            print(f"{tool}: not asked: {answers['']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
