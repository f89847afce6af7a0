"""A trace as a sequence: who asked the kernel for what, in the order of time, each process in a lane of its own."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import groupby

from nslab.model import KINDS
from nslab.render import style
from nslab.render.cells import cell, kind_cells, table
from nslab.render.folding import MOST, UNFOLD
from nslab.render.picture import Picture, text_table
from nslab.trace import Step

ABOUT = (
    "Time goes down, in milliseconds. Each process has a lane, with a dot where it calls the kernel. A coloured field names "
    "the kind of namespace that the call is about; what nobody asked for is marked ◷, and the tooltip says why nslab did it."
)
LANES = 8  # processes that have a lane of their own
# The kind that a call is about, where no CLONE_NEW* says so.
_ABOUT_KIND = {"sethostname": "uts", "setdomainname": "uts", "mount": "mnt", "umount2": "mnt", "pivot_root": "mnt",
               "chroot": "mnt", "move_mount": "mnt", "open_tree": "mnt", "mount_setattr": "mnt"}  # fmt: skip
_ID_FILES = ("/uid_map", "/gid_map", "/setgroups")


def sequence(trace: Sequence[Step], title: str = "", most: int | None = MOST) -> Picture:
    """The steps of a trace. Past ``most`` lines, calls of one kind that follow each other are one line; None keeps each."""
    runs = _runs(trace, most)
    pids = list(dict.fromkeys(step.pid for step in trace))
    lanes = pids if len(pids) <= LANES else pids[: LANES - 1]
    others = len(pids) - len(lanes)
    start = min((step.start for step in trace), default=0.0)
    heads = [cell("ms", align="right"), *(cell(f"{pid}", bold=True, line=True, align="center") for pid in lanes),
             *([cell(f"{others} others", bold=True, line=True)] if others else []),
             cell("kinds", bold=True), cell("call", bold=True), cell("result", bold=True)]  # fmt: skip
    graph = style.digraph()
    body = (_row(run, [*lanes, *([None] if others else [])], start) for run in runs)
    graph.node("trace", table([heads, *body], border=0), shape="plain", fillcolor="transparent", tooltip=" ")
    rows = [("#", "ms", "PID", "call", "result", "implied, because")]
    rows += [(str(number), f"{(step.start - start) * 1e3:.2f}", str(step.pid), _call(step), _result(step), step.implied)
             for number, step in enumerate(trace, 1)]  # fmt: skip
    title = title or f"Trace: {len(trace)} system calls of {len(pids)} processes"
    return Picture(title, graph.source, text_table(rows), rows, ABOUT)


def _runs(trace: Sequence[Step], most: int | None) -> list[list[Step]]:
    if most is None or len(trace) <= most:
        return [[step] for step in trace]
    runs = [list(run) for _, run in groupby(trace, lambda step: (step.pid, step.call, step.errno))]
    if len(runs) > most:  # then the middle is what is told in one line
        half = most // 2
        return [*runs[:half], [step for run in runs[half : len(runs) - half] for step in run], *runs[len(runs) - half :]]
    return runs


def _row(run: list[Step], lanes: Sequence[int | None], start: float) -> list[str]:
    step = run[0]
    mixed = any(other.call != step.call or other.pid != step.pid for other in run)
    text = f"{len(run)} more calls" if mixed else f"{step.call} × {len(run)}" if len(run) > 1 else _call(step)
    tip = (_listing(run) if len(run) > 1 else _call(step)) + (f" [implied: {step.implied}]" if step.implied else "")
    lane = step.pid if step.pid in lanes else None
    result = "" if len(run) > 1 and not step.errno else _result(step)
    return [
        cell(f"{(step.start - start) * 1e3:.1f}", align="right"),
        *(cell("●" if pid == lane and not mixed else "", line=True, align="center", tip=f"PID {step.pid}") for pid in lanes),
        kind_cells(_kinds(step)) if not mixed and _kinds(step) else cell(),
        cell(f"◷ {text}" if step.implied else text, tip=tip, longest=64),
        cell(f"✗ {result}" if step.errno else result, bold=bool(step.errno)),
    ]  # fmt: skip


def _listing(run: list[Step]) -> str:
    more = f" and {len(run) - 10} more" if len(run) > 10 else ""
    return f"{'; '.join(_call(step) for step in run[:10])}{more}; {UNFOLD}"


def _kinds(step: Step) -> list[str]:
    words = " ".join(step.args)
    named = [kind.name for kind in KINDS.values() if kind.symbol in words]
    if step.call == "write" and any(name in words for name in _ID_FILES):
        return ["user"]
    return named or ([_ABOUT_KIND[step.call]] if step.call in _ABOUT_KIND else [])


def _call(step: Step) -> str:
    return f"{step.call}({', '.join(step.args)})"


def _result(step: Step) -> str:
    return errno.errorcode.get(step.errno, str(step.errno)) if step.errno else "" if step.result is None else str(step.result)
