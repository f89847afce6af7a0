"""A JupyterLab server: what it is asked over HTTP, and a home that keeps its traces in one folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.browser.processes import command_line, descendants


@dataclass
class Server:
    url: str
    token: str
    folder: Path  # what it serves
    process: subprocess.Popen[bytes]
    first: Path  # the first folder of its PATH
    sockets: Path  # where own kernels have theirs

    def api(self, path: str, method: str = "GET", content: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"},
            data=None if content is None else json.dumps(content).encode(),
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=10 if content is None else 60) as response:
            body = response.read()
        return json.loads(body) if body else None

    def write(self, name: str, *cells: str) -> str:
        """Put a notebook with these code cells where the server has it; its name."""
        notebook = {
            "cells": [
                {
                    "cell_type": "code",
                    "id": f"c{number}",
                    "source": cell,
                    "metadata": {},
                    "outputs": [],
                    "execution_count": None,
                }
                for number, cell in enumerate(cells)
            ],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.folder / name).write_text(json.dumps(notebook))
        return name

    def kernel_pid(self, kernel_id: str) -> int:
        for pid in descendants(self.process.pid):
            if kernel_id in command_line(pid):
                return pid
        raise LookupError(f"no process of kernel {kernel_id}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def own_home(folder: Path) -> dict[str, str]:
    """Variables that keep a server's settings, runtime files and history inside ``folder``."""
    places = {name: folder / name.lower() for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    unwanted = ("JUPYTER_", "XDG_", "DISPLAY", "WAYLAND_DISPLAY")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**inherited, **{name: str(place) for name, place in places.items()}}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
