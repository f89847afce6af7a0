"""%%ns in a real kernel: output as it comes, the stop button, the tab key, and what an error looks like."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.oracle import descendants, name
from tests.helpers import ROOT, has_ended, pidfd_of
from tests.notebooks.kernel import Kernel

MAKE = "%load_ext nslab\nimport nslab\nweb = nslab.Container('boxed', isolate='uts pid mnt', hostname='in-a-box')"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator[Kernel]:
    folder: Path = tmp_path_factory.mktemp("kernel")
    with Kernel(folder, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}) as kernel:
        kernel.run(MAKE).ok()
        yield kernel


def test_output_comes_while_the_cell_runs(kernel: Kernel) -> None:
    for option, text in (("", "echo first; sleep 1000"), ("--python", "import time; print('first'); time.sleep(1000)")):
        cell = kernel.begin(f"%%ns boxed {option}\n{text}")
        assert kernel.finish(cell, until="first").stdout.startswith("first")
        kernel.interrupt()
        assert kernel.finish(cell).error == "KeyboardInterrupt"


def test_the_stop_button_ends_what_the_cell_started(kernel: Kernel) -> None:
    cell = kernel.begin("%%ns boxed\nsleep 1000 &\ntrap '' INT TERM\necho ready\nwhile :; do sleep 1000; done")
    kernel.finish(cell, until="ready")
    bash = min(pid for pid in descendants(kernel.pid) if name(pid) == "bash")  # the others are about to become sleep
    with pidfd_of(bash) as pidfd:
        kernel.interrupt()
        assert kernel.finish(cell, 10).error == "KeyboardInterrupt"
        assert has_ended(pidfd)
    assert kernel.run("%%ns boxed\nhostname").ok().stdout == "in-a-box\n", "the container lives"


def complete(kernel: Kernel, code: str) -> list[str]:
    request = kernel.client.complete(code, len(code))
    deadline = time.monotonic() + 20
    while True:
        reply = kernel.client.get_shell_msg(timeout=max(0, deadline - time.monotonic()))
        if reply["parent_header"].get("msg_id") == request:
            matches: list[str] = reply["content"]["matches"]
            return matches


@pytest.mark.parametrize(
    ("code", "expected"),
    [("%%ns bo", "boxed"), ("%ns we", "web"), ("%%ns boxed --exp", "--expect-fail"), ("%%ns --python w", "web")],
)
def test_the_tab_key(kernel: Kernel, code: str, expected: str) -> None:
    assert expected in complete(kernel, code)


def test_errors_are_for_the_reader(kernel: Kernel) -> None:
    cell = kernel.run("%%ns boxed\necho so far\nexit 3")
    assert (cell.error, cell.stdout) == ("CommandError", "so far\n")
    assert cell.message == "it ended with status 3"
    assert not re.search(r"nslab/(magics|container)", cell.traceback)
    cell = kernel.run("%%ns boxde\ntrue")
    assert cell.stderr == "UsageError: there is no container or node 'boxde' here; did you mean 'boxed'?\n"
    assert kernel.run("%%ns boxed --expect-fail\nexit 3").ok().stdout == "failed, as expected, with status 3\n"


def test_a_flood_is_cut_and_a_timeout_is_the_cell_s(kernel: Kernel) -> None:
    cell = kernel.run("%%ns boxed --timeout 0.5\nyes")
    assert cell.error == "CommandTimeout"
    assert cell.message == "the cell was still running after 0.5 s, and was ended"
    shown, _, after = cell.stdout.partition("\n[stdout: 1048576 bytes shown, the rest omitted]\n")
    assert (len(shown), after) == (1 << 20, "")
