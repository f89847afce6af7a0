"""Labs in a real kernel: a plain cell, one that awaits, and one that is interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.notebooks.kernel import Kernel

TWO_SUBNETS = """
import nslab
lab = nslab.Topology("two subnets")
a, b, r = lab.host("a"), lab.host("b"), lab.router("r")
lab.link(a, r, subnet="10.0.1.0/24"); lab.link(b, r, subnet="10.0.2.0/24", rate="10mbit")
with lab.deploy():
    a.run("ping -c1 b").check()
    print(lab.ping_all().lost, lab.draw().text.count("10mbit"))
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator[Kernel]:
    folder: Path = tmp_path_factory.mktemp("kernel")
    with Kernel(folder, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}) as kernel:
        kernel.run("import nslab; nslab.run('true', isolate='uts')").ok()  # its helpers stay
        yield kernel


@pytest.mark.requires("tool:ping")
@pytest.mark.parametrize("last", ["", "import asyncio; await asyncio.sleep(0)"], ids=["plain", "async"])
def test_the_two_subnets_typed_into_a_notebook(kernel: Kernel, last: str) -> None:
    assert kernel.run(f"{TWO_SUBNETS}{last}").ok().stdout == "[] 1\n"
    shown = kernel.run("lab").ok().data[-1]
    assert "10.0.2.254/24" in shown["text/plain"]
    assert "10.0.2.254/24" in shown["text/html"]


def test_the_stop_button_ends_a_command_and_the_lab_stays(kernel: Kernel) -> None:
    kernel.run("import nslab\nlab = nslab.Topology.ring(3)\nlab.deploy()").ok()
    cell = kernel.begin("lab['h1'].run('echo ready; exec sleep 1000', stream=True)")
    kernel.finish(cell, until="ready")
    kernel.interrupt()
    assert kernel.finish(cell, 10).error == "KeyboardInterrupt"
    assert kernel.run("print(lab.ping_all().lost)\nlab.destroy()").ok().stdout == "[]\n"
