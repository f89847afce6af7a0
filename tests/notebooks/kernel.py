"""A real notebook kernel to run cells in, started and ended by jupyter_client as JupyterLab does it."""

from __future__ import annotations

import os
import queue
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Cell:
    """What a cell that ran left in the notebook. ``chunks`` are the pieces of its streams in the order they came."""

    chunks: list[tuple[str, str]] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)  # of display() and of the last expression
    error: str = ""  # the name of the exception
    message: str = ""
    traceback: str = ""

    def stream(self, name: str) -> str:
        return "".join(text for chunk, text in self.chunks if chunk == name)

    @property
    def stdout(self) -> str:
        return self.stream("stdout")

    @property
    def stderr(self) -> str:
        return self.stream("stderr")

    def ok(self) -> Cell:
        """This cell, which raised nothing."""
        assert not self.error, self.traceback
        return self


def own_python(python: Sequence[str] = ()) -> KernelSpec:
    """A kernel of this very Python, or of another command, without any kernel installed for Jupyter."""
    return KernelSpec(
        argv=[*(python or [sys.executable]), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python", language="python",
    )  # fmt: skip


def execute(notebook: NotebookNode, folder: Path, connection: Path, *, timeout: float, python: Sequence[str] = ()) -> None:
    """Run all cells of ``notebook`` in a kernel of its own whose working directory is ``folder``, errors included.

    ``timeout``: seconds a cell; ``connection``: the file with the kernel's ports.
    """
    manager = KernelManager(connection_file=str(connection))
    manager._kernel_spec = own_python(python)
    try:
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, km=manager, timeout=timeout, allow_errors=True, resources=resources).execute()
    finally:
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)


class _Manager(KernelManager):
    owner: int | None = None

    def write_connection_file(self, **options: Any) -> None:
        super().write_connection_file(**options)
        if self.owner is not None:
            os.chown(self.connection_file, self.owner, self.owner)


class Kernel:
    """An ipykernel with files of its own in ``folder``; what it writes to its terminal goes to ``terminal``.

    ``python`` is the command of its interpreter (setpriv ... python for another user, who is then the ``owner``), or ``spec``
    the whole kernelspec.
    """

    def __init__(
        self, folder: Path, *, python: Sequence[str] = (), env: Mapping[str, str] | None = None, owner: int | None = None,
        cwd: Path | None = None, spec: KernelSpec | None = None,
    ):  # fmt: skip
        self.folder = folder
        home = folder / "home"
        home.mkdir(exist_ok=True)
        if owner is not None:
            os.chown(home, owner, owner)
        self.env = {
            **(os.environ if env is None else env),
            "HOME": str(home),
            "IPYTHONDIR": f"{home}/ipython",
            "JUPYTER_RUNTIME_DIR": f"{home}/runtime",
            "JUPYTER_CONFIG_DIR": f"{home}/config",
        }
        self.manager = _Manager(connection_file=str(folder / "kernel.json"))
        self.manager.owner = owner
        self.manager._kernel_spec = spec or own_python(python)
        self.terminal = open(folder / "terminal", "w+b")  # noqa: SIM115
        try:
            self.manager.start_kernel(cwd=str(cwd or Path.cwd()), env=self.env, stdout=self.terminal, stderr=self.terminal)
            self.connect()
        except BaseException:
            self.close()
            raise

    def connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        pid: int = self.manager.provisioner.pid
        return pid

    def begin(self, code: str) -> str:
        """Start a cell and return its id, for finish()."""
        identity: str = self.client.execute(code, allow_stdin=False)
        return identity

    def messages(self, identity: str, timeout: float) -> Any:
        """The messages of a cell as they come, up to its end. TimeoutError when that takes longer."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"the cell was still running after {timeout} s") from None
            if message["parent_header"].get("msg_id") != identity:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return
            yield message["msg_type"], content

    def finish(self, identity: str, timeout: float = 30, until: str | None = None) -> Cell:
        """What the cell puts out until its end, or until it has printed the text ``until``."""
        cell = Cell()
        for kind, content in self.messages(identity, timeout):
            if kind == "stream":
                cell.chunks.append((content["name"], content["text"]))
                if until is not None and until in cell.stdout:
                    return cell
            elif kind in ("execute_result", "display_data"):
                cell.data.append(content["data"])
            elif kind == "error":
                cell.error, cell.message = content["ename"], content["evalue"]
                cell.traceback = COLOURS.sub("", "\n".join(content["traceback"]))
        return cell

    def run(self, code: str, timeout: float = 30) -> Cell:
        return self.finish(self.begin(code), timeout)

    def interrupt(self) -> None:
        """The stop button."""
        self.manager.interrupt_kernel()

    def restart(self, *, now: bool = False) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(now=now)
        self.connect()

    def shutdown(self, *, now: bool = True) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=now)

    def terminal_text(self) -> str:
        """What the kernel wrote to the terminal of the server."""
        self.terminal.seek(0)
        return self.terminal.read().decode(errors="replace")

    def close(self) -> None:
        if getattr(self, "client", None):
            self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self.terminal.close()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
