"""A unit run from top to bottom in a kernel of its own, as its reader does, and the cell in which that failed.

The kernel is a process of this very Python, whatever kernels are installed, with no profile of the user's; or an installed one,
by its name. A cell fails when it raises, and also when an output tells of trouble: a display that fails does not fail its cell.
A unit that needs what the Linux below lacks is not run: the kernel is asked, before the first cell.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, NoSuchKernel
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from nslab.errors import Unavailable
from nslab.lessons.course import RECORDED, Unit

TIMEOUT = 300  # seconds for one cell
STARTUP = 180  # seconds for the first answer of a kernel: one of the kernels boots a Linux
ABOUT = """
import json, os
print(json.dumps({"linux": os.uname().release, "kinds": os.listdir("/proc/self/ns")}))
del json, os
"""
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
    """How a unit went; ``notebook`` is what it looks like now, as nbformat has it.

    ``ready`` is how many of the seconds went by before the first cell, ``linux`` the release that it ran on. ``impossible``
    says why it was not run, where it was not. ``recorded`` is how many cells showed a recording instead of running.
    """

    unit: Unit
    seconds: float
    failure: Failure | None
    notebook: Any
    ready: float = 0.0
    linux: str = ""
    impossible: str = ""
    recorded: int = 0

    def to_dict(self) -> dict[str, Any]:
        failure = self.failure and {name: getattr(self.failure, name) for name in Failure.__slots__}
        return {
            "unit": self.unit.name, "title": self.unit.title, "seconds": round(self.seconds, 1), "facts": self.unit.facts,
            "ok": not failure, "failure": failure, "impossible": self.impossible, "ready": round(self.ready, 1),
            "linux": self.linux, "recorded": self.recorded,
        }  # fmt: skip


def execute(unit: Unit, *, kernel: str = "", progress: Callable[[int, int], object] = lambda done, all_: None) -> Outcome:
    """Run a unit up to its end or its first failing cell. ``progress`` is told how many cells are done, and of how many.

    ``kernel`` is the name of an installed one, as `jupyter kernelspec list` has it. Unavailable when there is none, or it does
    not start.
    """
    notebook = nbformat.read(unit.path, as_version=4)  # type: ignore[no-untyped-call]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nslab-course-") as folder:
        manager = KernelManager(connection_file=f"{folder}/kernel.json")
        if kernel:
            manager.kernel_name = kernel
        else:
            manager._kernel_spec = _this_python()
        client = NotebookClient(notebook, km=manager, timeout=TIMEOUT, startup_timeout=STARTUP)
        env = {**os.environ, "IPYTHONDIR": f"{folder}/ipython", "JUPYTER_RUNTIME_DIR": folder}
        try:
            with (
                tempfile.TemporaryFile() as terminal,
                client.setup_kernel(env=env, cwd=str(unit.path.parent), stdout=terminal, stderr=terminal),
            ):
                about = _about(client)
                ready = time.monotonic() - start
                lacks = [kind for kind in unit.needs if kind not in about["kinds"]]
                failure = None if lacks else _run(client, notebook, progress)
        except (NoSuchKernel, RuntimeError) as error:
            raise Unavailable(
                f"the kernel {kernel!r} does not start: {error}", "jupyter kernelspec list; nslab vm install"
            ) from error
        finally:
            if client.kc:
                client.kc.stop_channels()
            if manager.has_kernel:
                manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
    why = f"Linux {about['linux']} was built without {' and '.join(lacks)} namespaces" if lacks else ""
    recorded = sum(any(map(is_recorded, cell.get("outputs", ()))) for cell in notebook.cells)
    return Outcome(unit, time.monotonic() - start, failure, notebook, ready, about["linux"], why, recorded)


def is_recorded(output: Any) -> bool:
    """Whether an output was not made by its cell, but shown from a recording, as is done where nothing is allowed."""
    return RECORDED in output.get("metadata", {}).get("nslab", {})


def _this_python() -> KernelSpec:
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return KernelSpec(argv=argv, display_name="Python 3", language="python")


def _about(client: NotebookClient) -> dict[str, Any]:
    """What kind of Linux the kernel is on, asked in a cell that is not the notebook's."""
    cell = nbformat.v4.new_code_cell(ABOUT)  # type: ignore[no-untyped-call]
    client.nb.cells.append(cell)
    client.execute_cell(cell, len(client.nb.cells) - 1, store_history=False)
    client.nb.cells.pop()
    found: dict[str, Any] = json.loads("".join(_texts(cell)))
    return found


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
