"""A session that runs cells of a notebook and can take isolation out of some: what is asked for is then not made.

It is for cells that fail when their namespaces are missing, so it must be safe when they are: the session is root, with every
id mapped, in a user namespace with all else that can be isolated below it. The machine is out of reach of what it does, but
for its cgroups: those are told by a PID in their name that nobody else has, and removed.

    python -m tests.taken_out.sandbox    reads {"path": ..., "steps": [[cell, kinds to take out, soft], ...]}

A line for each step is printed. Where it is soft, what fails in the cell does not count.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.oracle import APART
from tests.helpers import ROOT, eventually

EVERYBODY = "0 0 4294967295"
PATIENCE = 30  # seconds for one cell
OWN = ["--uts", "--ipc", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# There is an interface beside lo, as on a machine. PIDs begin high, so that none inside is one outside by chance.
NETWORK = "ip link set lo up; ip link add eth0 type veth peer eth1; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up; "
INSIDE = NETWORK + 'echo $0 >/proc/sys/kernel/ns_last_pid; "$@"'
PIDS = 10_000  # of one session, at most
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Step:
    """A cell that was run: the kinds that it asked for, and how it failed ("" when it did not)."""

    cell: int
    used: frozenset[str]
    error: str


def session(path: Path, steps: Sequence[tuple[int, Sequence[str], bool]], folder: Path) -> list[Step]:
    """Run these cells of a notebook, one after the other; of what is after the death of the session there is no step."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "IPYTHONDIR": f"{folder}/ipython", "TMPDIR": str(folder)}
    command = ["unshare", "--user", "sh", "-c", 'read go; exec unshare "$@"', "sh", *OWN]
    first = random.randrange(APART, 4_000_000)  # of 4,194,304 that a PID namespace has
    command += ["sh", "-c", INSIDE, str(first), sys.executable, "-m", "tests.taken_out.sandbox"]
    with (folder / "stderr").open("a") as stderr:
        process = subprocess.Popen(
            command, cwd=path.parent, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        here = os.readlink("/proc/self/ns/user")
        assert eventually(lambda: os.readlink(f"/proc/{process.pid}/ns/user") != here, 10)
        for name in ("gid_map", "uid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text(EVERYBODY)
        said, _ = process.communicate("go\n" + json.dumps({"path": str(path), "steps": steps}), timeout=PATIENCE * 10)
    finally:
        process.kill()
        process.wait()
        remove_cgroups(range(first, first + PIDS))
    return [Step(cell, frozenset(used), error) for cell, used, error in map(json.loads, said.splitlines())]


def remove_cgroups(pids: range) -> None:
    """Cgroups are no namespace's: those that a session left, by the PID in their names, are thawed and removed."""
    for folder, names, _ in os.walk(CGROUPS, topdown=False):
        for name in names:
            if any(int(number) in pids for number in re.findall(r"\d{7}", name)):
                remove(Path(folder, name))


def remove(group: Path) -> None:
    for inner in [path for path in group.iterdir() if path.is_dir()]:
        remove(inner)
    for name, word in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
        if (group / name).exists():
            (group / name).write_text(word)

    def gone() -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:  # a process in it has not quite ended
            return False
        return True

    assert eventually(gone, 5), f"{group} cannot be removed"


# -- inside -----------------------------------------------------------------------------------------------------------


class TakingOut(ast.NodeTransformer):
    """The raw calls that isolate do nothing, also where a function holds them that is called elsewhere."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return ast.Constant(0) if ast.unparse(node.func).endswith("syscalls.unshare") else node


class Softening(ast.NodeTransformer):
    """What a cell asserts, or fails in, is not what a later one is about: each of its statements is tried."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.generic_visit(node)
        suppress = ast.parse("with __import__('contextlib').suppress(Exception): pass").body[0]
        node.body = [ast.With(suppress.items, [statement]) for statement in node.body]
        return node


def main() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    asked = json.loads(sys.stdin.read())
    cells = json.loads(Path(asked["path"]).read_text())["cells"]
    out: set[str] = set()
    used = watched(out)
    shell = InteractiveShell.instance()
    signal.signal(signal.SIGALRM, too_long)
    for cell, kinds, soft in asked["steps"]:
        source = "".join(cells[cell]["source"])
        out.clear()
        out.update(kinds)
        used.clear()
        if kinds:
            source = rewritten(source, soft=soft)
        signal.alarm(PATIENCE)
        result = shell.run_cell(source)
        signal.alarm(0)
        error = result.error_before_exec or result.error_in_exec
        report.write(json.dumps([cell, sorted(used), f"{type(error).__name__}: {error}" if error else ""]) + "\n")
    report.close()
    os._exit(0)  # the namespaces end with us; nothing has to be closed


def too_long(*_: object) -> None:
    raise TimeoutError("the cell took too long")


def rewritten(source: str, *, soft: bool) -> str:
    try:
        tree = TakingOut().visit(ast.parse(source))
    except SyntaxError:  # a magic: it has no Python to be rewritten
        return source
    return ast.unparse(ast.fix_missing_locations(Softening().visit(tree) if soft else tree))


def watched(out: set[str]) -> set[str]:
    """From now on kinds in ``out`` are not made; the set that is returned gets all that are asked for."""
    from nslab.namespaces import Process
    from nslab.ops import spec

    used: set[str] = set()
    ask, unshare = spec.kinds, Process.unshare

    def kinds(isolate, argument="isolate"):
        found = ask(isolate, argument)
        if argument == "join":
            return found
        used.update(found)
        return tuple(kind for kind in found if kind not in out)

    def leave(self, wanted):
        if kinds(wanted, "kinds"):
            unshare(self, wanted)

    spec.kinds, Process.unshare = kinds, leave
    return used


if __name__ == "__main__":
    main()
