"""A JupyterLab server and a Chromium for the tests of this folder.

The server works on a copy of notebooks/ and has a home of its own, so that neither themes nor workspaces persist.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nslab.machines import kernelspecs
from tests.browser.jupyter import Server, answers, free_port, own_home
from tests.browser.notebook import Notebook
from tests.browser.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent.parent
QUIET = "disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server with a home, notebooks and kernels of its own below ``folder``, and ``first``, the first folder of its PATH."""
    served, first = folder / "notebooks", folder / "first"
    if (ROOT / "notebooks").is_dir():
        shutil.copytree(ROOT / "notebooks", served, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    served.mkdir(exist_ok=True)
    first.mkdir()
    sockets = Path(tempfile.mkdtemp(prefix="nslab-sockets-", dir="/tmp"))  # short, and nobody else has any there
    kernelspecs.install(prefix=str(folder))
    env = {
        **own_home(folder),
        "JUPYTER_PATH": f"{folder}/share/jupyter",
        "PATH": f"{first}:{os.environ['PATH']}",
        "TMPDIR": str(sockets),
    }
    port, token = free_port(), secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        "--no-browser", "--expose-app-in-browser", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={served}",
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.append("--allow-root")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    found = Server(f"http://127.0.0.1:{port}", token, served, process, first, sockets)
    try:
        wait_until(lambda: answers(f"{found.url}/api"), 60, (folder / "log").read_text)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        sockets.rmdir()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # slow, and every tier collects this folder

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            chromium_sandbox=os.geteuid() != 0,
            args=[f"--{word}" for word in QUIET.split()],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(server: Server, chromium: Browser) -> Iterator[Any]:
    """A function that opens a notebook of the server in a fresh window."""
    contexts = []

    def open_one(name: str) -> Notebook:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}))
        return Notebook(server, contexts[-1].new_page(), name)

    yield open_one
    for context in contexts:
        context.close()
    for session in server.api("sessions"):
        server.api(f"sessions/{session['id']}", "DELETE")


@pytest.fixture(scope="package")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: NSLAB_SCREENSHOTS, or the tests' own folder."""
    wanted = os.environ.get("NSLAB_SCREENSHOTS")
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
