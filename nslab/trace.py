"""What the kernel was asked: a Step is one system call, a Trace many of them.

``record()`` collects the steps of whatever runs inside it, nested as deep as you like. In the processes that the
spawner makes, the same ``emit`` fills the list that travels back to the notebook.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable, Sequence
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Protocol, overload

from nslab.errors import called


class Step(NamedTuple):
    """One system call.

    ``args`` are decoded; ``result`` is what it returned (None when it failed), ``errno`` 0 or the error number,
    ``start`` a time as of time.time(), ``duration`` in seconds, ``pid`` who called, as whoever reads the trace numbers
    processes (a PID in ``result`` is as the caller numbers them). ``implied`` says why nslab made the call without being
    asked, and is empty otherwise.
    """

    call: str
    args: tuple[str, ...]
    result: int | str | None
    errno: int
    start: float
    duration: float
    pid: int
    implied: str = ""

    def __str__(self) -> str:
        outcome = _errno.errorcode.get(self.errno, str(self.errno)) if self.errno else self.result
        mark = f"   [implied: {self.implied}]" if self.implied else ""
        return f"{called(self.call, self.args)} = {outcome}{mark}"


class Scripted(Protocol):
    """Whatever can be written as a shell script: a plan."""

    def shell(self) -> str: ...


class Trace(Sequence[Step]):
    """The steps that were recorded, oldest first: a sequence, JSON-able, and shown as a table in a notebook."""

    def __init__(self, steps: Iterable[Step] = ()):
        self._steps = list(steps)
        self._scripts: list[Scripted] = []

    def append(self, step: Step) -> None:
        self._steps.append(step)

    def add_script(self, script: Scripted) -> None:
        """Remember a plan whose steps are recorded here, for ``shell()``."""
        self._scripts.append(script)

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        return self._steps[index]

    @property
    def failed(self) -> tuple[Step, ...]:
        """The steps that ended with an errno."""
        return tuple(step for step in self._steps if step.errno)

    def shell(self) -> str:
        """The same as a shell script: pasted into a terminal, it leaves the same state of the kernel."""
        return "\n".join(script.shell().rstrip("\n") for script in self._scripts) + "\n"

    def to_json(self) -> str:
        """A JSON list of objects with the fields of Step."""
        import json

        return json.dumps([step._asdict() for step in self._steps])

    def __str__(self) -> str:
        return "\n".join(str(step) for step in self._steps)

    def __repr__(self) -> str:
        return f"<Trace of {len(self._steps)} steps, {len(self.failed)} failed>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self) or "(no steps)", "text/html": self._html()}

    def _html(self) -> str:
        from html import escape

        rows = []
        for number, step in enumerate(self._steps, 1):
            outcome = _errno.errorcode.get(step.errno, str(step.errno)) if step.errno else step.result
            style = "color:#D55E00;font-weight:bold" if step.errno else "opacity:.65" if step.implied else ""
            cells = (number, called(step.call, step.args), outcome, f"{step.duration * 1e6:.0f}", step.pid,
                     step.implied)  # fmt: skip
            columns = "".join(
                f'<td style="text-align:left;{"font-family:monospace" if i == 1 else ""}">'
                + escape(str(cell)).replace("|", "|<wbr>")  # a line may end between two flags: else the table is too wide
                + "</td>"
                for i, cell in enumerate(cells)
            )
            rows.append(f'<tr style="{style}">{columns}</tr>')
        names = ("#", "call", "result", "µs", "PID", "implied, because")
        head = "".join(f'<th style="text-align:left">{name}</th>' for name in names)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


_open: ContextVar[tuple[Trace, ...]] = ContextVar("open traces", default=())


def is_open() -> bool:
    """Whether anybody records."""
    return bool(_open.get())


def emit(step: Step) -> None:
    """Add a step to every trace that is open here."""
    for trace in _open.get():
        trace.append(step)


def emit_script(script: Scripted) -> None:
    """Add a plan to every trace that is open here."""
    for trace in _open.get():
        trace.add_script(script)


class record:
    """``with record() as t:`` records each system call that nslab makes inside the block, into a new Trace or the one given."""

    def __init__(self, trace: Trace | None = None):
        self.trace = Trace() if trace is None else trace

    def __enter__(self) -> Trace:
        self._token: Token[Any] = _open.set((*_open.get(), self.trace))
        return self.trace

    def __exit__(self, *_: object) -> None:
        _open.reset(self._token)
