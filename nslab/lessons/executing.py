"""A unit run from top to bottom in a kernel of its own, as its reader does, and the cell in which that failed.

The kernel is a process of this very Python, whatever kernels are installed, with no profile of the user's. A cell fails when it
raises, and also when an output tells of trouble: a display that fails does not fail its cell.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from nslab.lessons.course import Unit

TIMEOUT = 300  # seconds for one cell
TROUBLE = re.compile(r"Traceback \(most recent call last\)|Warning: ")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a unit failed: the number of the cell among those with code, its source, and what it said."""

    cell: int
    source: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit went; ``notebook`` is what it looks like now, as nbformat has it."""

    unit: Unit
    seconds: float
    failure: Failure | None
    notebook: Any

    def to_dict(self) -> dict[str, Any]:
        failure = self.failure and {name: getattr(self.failure, name) for name in Failure.__slots__}
        return {
            "unit": self.unit.name, "title": self.unit.title, "seconds": round(self.seconds, 1), "facts": self.unit.facts,
            "ok": not failure, "failure": failure,
        }  # fmt: skip


def execute(unit: Unit, *, progress: Callable[[int, int], object] = lambda done, all_: None) -> Outcome:
    """Run a unit up to its end or its first failing cell. ``progress`` is told how many cells are done, and of how many."""
    notebook = nbformat.read(unit.path, as_version=4)  # type: ignore[no-untyped-call]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nslab-course-") as folder:
        manager = KernelManager(connection_file=f"{folder}/kernel.json")
        manager._kernel_spec = _this_python()
        client = NotebookClient(notebook, km=manager, timeout=TIMEOUT)
        env = {**os.environ, "IPYTHONDIR": f"{folder}/ipython", "JUPYTER_RUNTIME_DIR": folder}
        try:
            with (
                tempfile.TemporaryFile() as terminal,
                client.setup_kernel(env=env, cwd=str(unit.path.parent), stdout=terminal, stderr=terminal),
            ):
                failure = _run(client, notebook, progress)
        finally:
            if client.kc:
                client.kc.stop_channels()
            if manager.has_kernel:
                manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
    return Outcome(unit, time.monotonic() - start, failure, notebook)


def _this_python() -> KernelSpec:
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return KernelSpec(argv=argv, display_name="Python 3", language="python")


def _run(client: NotebookClient, notebook: Any, progress: Callable[[int, int], object]) -> Failure | None:
    code = [(index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
    for done, (index, cell) in enumerate(code):
        progress(done, len(code))
        message = ""
        try:
            client.execute_cell(cell, index, execution_count=done + 1)
        except CellExecutionError as error:
            message = "\n".join(_texts(cell)) or str(error)
        except (CellTimeoutError, DeadKernelError) as error:
            message = str(error)
        else:
            expected = "raises-exception" in cell.metadata.get("tags", ())
            message = "" if expected else next((text for text in _texts(cell) if TROUBLE.search(text)), "")
        if message:
            return Failure(done + 1, cell.source, COLOURS.sub("", message))
    progress(len(code), len(code))
    return None


def _texts(cell: Any) -> Iterator[str]:
    """All that a cell shows, as text."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join(output.traceback)
        else:
            yield from (str(data) for data in output.data.values())
