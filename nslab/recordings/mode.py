"""A notebook that shows recordings: found out once, after the cell that imports nslab, and done by hooks of IPython.

Nothing is asked at import but a few files, and where these tell of no obstacle nothing is hooked. Else a namespace is tried,
after that cell. An input transformer then puts a magic in the place of each cell that has a recording.
"""

from __future__ import annotations

import ast
import os
from typing import Any

from nslab.errors import NslabError, Unavailable, render_traceback
from nslab.lessons import Prediction
from nslab.lessons.course import RECORDED
from nslab.lessons.prediction import MIME as PREDICTION
from nslab.machines.blockers import blockers
from nslab.machines.machine import Machine
from nslab.machines.report import Check
from nslab.recordings.showing import framed, notice
from nslab.recordings.store import Cell, Output, Recordings

MAGIC = "nslab_recorded"


def arm(shell: Any) -> None:
    """Called when a notebook imports nslab; costs a few milliseconds where all is well."""
    if is_doubtful(Machine()):
        Mode(shell)


def is_doubtful(machine: Machine) -> bool:
    """Whether anything here is known to keep people from making namespaces."""
    lacking = not machine.is_privileged and not os.path.exists(machine.path("proc/self/ns/user"))
    return lacking or any(check.status != "yes" for check in blockers(machine))


def verdict(machine: Machine) -> Check | None:
    """The verdict of the doctor where nothing can be made; None where anything can. One trial is enough for that."""
    from nslab.container import run
    from nslab.machines import doctor

    try:
        run(["/bin/true"], isolate="uts" if machine.is_privileged else "user", timeout=10)
    except NslabError:
        report = doctor()
        return None if report.works else report["isolation"]
    return None


def only_defines(source: str) -> bool:
    """Whether a cell does nothing but import, define functions and constants, and ask for predictions."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic
        return False
    made = {
        target.id
        for each in tree.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    return all(_defines(statement, made) for statement in tree.body)


def _defines(statement: ast.stmt, made: set[str]) -> bool:
    """``made`` are the names that the cell assigns: that of a question is shown by its last line."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.FunctionDef(decorator_list=[], args=ast.arguments(defaults=defaults, kw_defaults=more)):
            return all(default is None or _is_literal(default) for default in [*defaults, *more])
        case ast.Expr(value=ast.Name(id=name)):
            return name in made
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name()], value=value):
            return _is_literal(value) or _is_question(value)
    return False


def _is_question(value: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="nslab"), attr="predict"), args=args, keywords=keywords):
            return all(map(_is_literal, [*args, *(keyword.value for keyword in keywords)]))
    return False


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except ValueError:
        return False
    return True


class Mode:
    """The hooks in one notebook. ``verdict`` is None as long as nobody has asked, and the hooks go when it says all is well."""

    def __init__(self, shell: Any):
        self.shell = shell
        self.verdict: Check | None = None
        self.recordings: Recordings
        self._at: Cell | None = None
        self._error: tuple[Any, ...] = (None, None, None)
        self._before = (shell.custom_exceptions, shell.CustomTB)
        shell.set_custom_exc((Exception,), self._raised)
        shell.events.register("post_run_cell", self._after)

    def _raised(self, shell: Any, kind: Any, error: Any, traceback: Any, tb_offset: int | None = None) -> None:
        """A cell has failed: what is shown of that is decided after it."""
        self._error = (kind, error, traceback)

    def _after(self, result: Any) -> None:
        """After each cell: the first time find out where we are; show what stands for an error."""
        kind, error, traceback = self._error
        self._error = (None, None, None)
        failed = error is not None and error is result.error_in_exec
        first = self.verdict is None
        if first:
            self.verdict = verdict(Machine())
            if self.verdict is None:
                self._disarm()
                if failed:
                    self.shell.showtraceback((kind, error, traceback), running_compiled_code=True)
                return
            self.recordings = Recordings()
            self.shell.register_magic_function(self.show, "line", MAGIC)
            self.shell.input_transformers_cleanup.append(self._instead)
        cell = self.recordings.find(result.info.raw_cell or "", self._at)
        self._at = cell or self._at
        if failed and cell:
            self._show(cell, failed=True)
            result.error_in_exec = None  # so that a run of all cells goes on
        elif failed:
            self._explain(error)
        if first and self.verdict:
            self._publish(notice(self.verdict))

    def _disarm(self) -> None:
        self.shell.custom_exceptions, self.shell.CustomTB = self._before
        self.shell.events.unregister("post_run_cell", self._after)

    def _instead(self, lines: list[str]) -> list[str]:
        """What IPython runs in the place of a cell. It asks this also of cells that it does not run then."""
        source = "".join(lines)
        cell = self.recordings.find(source, self._at)
        if cell is None or cell.number == 1 or only_defines(source):
            return lines
        return [f"get_ipython().run_line_magic({MAGIC!r}, '{cell.unit} {cell.number}')\n"]

    def show(self, line: str) -> None:
        """The magic: a unit, and the number of a cell in it."""
        unit, number = line.split()
        cell = self.recordings.units[unit][int(number) - 1]
        self._at = cell
        self._show(cell)

    def _show(self, cell: Cell, *, failed: bool = False) -> None:
        shown = [self._compared(output) or output for output in cell.outputs]
        self._publish(framed(shown, cell.kernel, failed=failed), {"nslab": {RECORDED: cell.kernel}})

    def _compared(self, output: Output) -> Output:
        """What was predicted in this notebook, compared with what was recorded; empty for what is no comparison."""
        told = output.get("data", {}).get(PREDICTION)
        for asked in [each for each in self.shell.user_ns.values() if told and isinstance(each, Prediction)]:
            if asked.question == told["question"]:
                return {"data": asked.compare(told["actual"], within=told["within"])._repr_mimebundle_()}
        return {}

    def _explain(self, error: Exception) -> None:
        """An error of a cell that has no recording: shortly, and what it comes from when it comes from this."""
        lines = render_traceback(error)
        shown: Exception = error
        if isinstance(error, NslabError | NameError) and self.verdict:
            missing = "names that a recorded cell would have defined are not there, for it was not run, and "
            requirement = f"this machine allows no namespaces ({self.verdict.finding})"
            shown = Unavailable((missing if isinstance(error, NameError) else "") + requirement, self.verdict.remedy)
            lines += [f"Unavailable: {shown}"]
        self.shell._showtraceback(type(shown), shown, lines)

    def _publish(self, data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self.shell.display_pub.publish(data, metadata or {})
