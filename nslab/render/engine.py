"""Which program draws: graphviz-pure, which pip brings, or else the ``dot`` of the machine. Neither needs to be configured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, files

import graphviz
from graphviz.backend import execute

from nslab.errors import Unavailable

PACKAGE = "graphviz-pure"
HOW_TO_GET_IT = f"pip install {PACKAGE}, or install graphviz (Debian: apt-get install graphviz)"


def draw(dot: str, form: str) -> bytes:
    """Graphviz source as ``form``: svg, png, or what else the program knows. Unavailable where there is no program.

    It is a process of its own, started by exec, which reads the source and ends.
    """
    program = find()
    if program is None:
        raise Unavailable(
            f"drawing needs {PACKAGE} or graphviz's dot, and neither is on this {platform.machine()}", HOW_TO_GET_IT
        )
    try:
        done = execute.run_check([program, f"-T{form}"], input=dot.encode(), capture_output=True, quiet=True)
    except (graphviz.ExecutableNotFound, OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.decode(errors="replace").strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise Unavailable(f"{program} could not draw this as {form}: {said.splitlines()[0] if said else 'it says nothing'}",
                          HOW_TO_GET_IT) from None  # fmt: skip
    return bytes(done.stdout)


def find() -> str | None:
    """The path of the program that draws; that of pip first, whose pictures are the same on every machine."""
    return _installed() or shutil.which(PACKAGE) or shutil.which("dot")


@cache
def _installed() -> str | None:
    """Where pip put it: it need not be on the PATH of a notebook."""
    try:
        found = [file for file in files(PACKAGE) or () if file.name == PACKAGE]
    except PackageNotFoundError:
        return None
    return shutil.which(os.path.realpath(str(found[0].locate()))) if found else None
