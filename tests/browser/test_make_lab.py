"""`make lab`, as a person's first command: it serves the course, to this machine only, and ends without a trace."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.jupyter import free_port, own_home
from tests.browser.processes import Watched, descendants, wait_until
from tests.elsewhere import AS_NOBODY, Elsewhere

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def make_lab(checkout: Path, home: Path, *variables: str, env: dict[str, str], before: list[str]) -> Iterator[str]:
    """The address that it prints; afterwards it is asked to end, and has to."""
    command = [*before, "make", "lab", "OPEN=no", *variables]
    log = home / "make-lab.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=checkout, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        printed = wait_until(
            lambda: re.search(r"http://\S+token=\w+", log.read_text()) or process.poll() is not None, 200, log.read_text
        )
        assert not isinstance(printed, bool), log.read_text()
        yield printed[0]
    finally:
        everything = Watched({process.pid, *descendants(process.pid)})
        process.send_signal(signal.SIGTERM)
        process.wait()
        assert everything.left(10) == []


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def listening(port: int) -> set[str]:
    """The addresses, as /proc/net writes them, on which somebody listens at this port."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return {words[1].split(":")[0] for words in lines if words[3] == "0A" and int(words[1].split(":")[1], 16) == port}


@pytest.mark.requires("tool:make")
def test_make_lab_serves_the_course_and_is_quick_the_second_time(tmp_path):
    port = free_port()
    env = own_home(tmp_path)
    with make_lab(ROOT, tmp_path, f"PORT={port}", env=env, before=[]):
        pass  # the environment is there now
    with make_lab(ROOT, tmp_path, f"PORT={port}", env=env, before=[]) as address:
        assert f"127.0.0.1:{port}/lab/tree/notebooks" in address
        assert status(address) == 200
        assert status(f"http://127.0.0.1:{port}/api/contents") == 403
        assert listening(port) == {"0100007F"}
        said = (tmp_path / "make-lab.log").read_text()
        assert "setting up" not in said, "that takes its time"
        assert ("--allow-root" in said) == (os.geteuid() == 0)


@pytest.mark.requires("tool:make", "tool:setpriv")
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user, the test above says the same")
def test_make_lab_sets_itself_up_for_an_ordinary_user_in_a_fresh_checkout(tmp_path):
    elsewhere = Elsewhere(ROOT)
    try:
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        env = {"PATH": "/usr/bin:/bin", "HOME": f"{elsewhere.folder}/home", "TMPDIR": f"{elsewhere.folder}/tmp", **pip}
        with make_lab(elsewhere.copy, tmp_path, env=env, before=AS_NOBODY) as address:
            assert status(address) == 200
    finally:
        elsewhere.close()
