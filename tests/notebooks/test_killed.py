"""A notebook that makes things by hand, killed in the middle: they are undone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import nbformat
import pytest

from tests.conftest import MUST_WORK
from tests.helpers import ROOT, eventually
from tests.notebooks.kernel import Kernel

UNIT = ROOT / "notebooks" / "09-cgroups.ipynb"


def groups(pid: int) -> set[Path]:
    """Those that the unit makes in this kernel."""
    return {path for path in Path("/sys/fs/cgroup").rglob(f"unit-09-{pid}*") if path.is_dir()}


@pytest.mark.requires("root", "userns")
def test_its_cgroups_are_removed(tmp_path: Path) -> None:
    """Those that nslab did not make, with processes in them, and one inside the other."""
    with Kernel(tmp_path, cwd=UNIT.parent) as kernel:
        for cell in nbformat.read(UNIT, as_version=4).cells:
            if cell.cell_type == "code":
                kernel.run(cell.source).ok()
            if "db = web.fork()" in cell.source:
                break
        made = groups(kernel.pid)
        if not made and not MUST_WORK:
            pytest.skip("root may make no cgroup here")
        assert made
        os.kill(kernel.pid, signal.SIGKILL)
        assert eventually(lambda: not any(path.exists() for path in made), 10), made
