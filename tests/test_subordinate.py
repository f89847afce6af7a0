"""Subordinate ids: what newuidmap(1) gives an ordinary user who has a line in /etc/subuid and /etc/subgid.

The lines are put there for the test alone, by an overlay over /etc in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.requires("root", "tool:newuidmap", "tool:setpriv")

ROOT = Path(__file__).parents[1]
SCRIPT = """
import nslab
with nslab.Container("c", isolate="uts user mnt", uid_map="subordinate", setgroups="allow") as c:
    print("inside", c.run("cat /proc/self/uid_map /proc/self/setgroups").stdout.split())
    print("other", c.run("id -u; id -G", user=1000).stdout.split())
with nslab.Container("d", isolate="uts") as d:
    print("borrowed", d.run("cat /proc/self/uid_map /proc/self/setgroups").stdout.split())
    steps = [*c.trace, *d.trace]
    print("helpers", [step.call for step in steps if "newuidmap" in str(step)])
try:
    nslab.run("true", isolate="user", uid_map=[(0, 5, 1)])
except nslab.SpecError as error:
    print("refused", error)
"""


def as_nobody(tmp_path: Path, script: str, *options: str) -> dict[str, str]:
    """Run a script as uid 65534 with 65,536 subordinate ids from 100000 on; its lines by their first word."""
    folder = tmp_path / "nobody"
    folder.mkdir()
    shutil.copytree(ROOT / "nslab", folder / "nslab", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "etc").mkdir()
    for name in ("subuid", "subgid"):
        (folder / "etc" / name).write_text("65534:100000:65536\n")
    for path in (folder, *folder.rglob("*"), *folder.parents):
        if path.stat().st_uid == os.getuid() and str(path).startswith(str(tmp_path.parents[1])):
            path.chmod(path.stat().st_mode | 0o055)
    inner = 'mount -t overlay overlay -o lowerdir="$0/etc":/etc /etc && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", inner, str(folder), "setpriv", "--reuid", "65534", "--regid", "65534"]
    command += ["--clear-groups", *options, sys.executable, "-c", script]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.fixture(autouse=True)
def readable_python() -> None:
    """The interpreter of this run must be one that another user may start."""
    probe = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", "import nslab"]
    if subprocess.run(probe, capture_output=True, cwd="/").returncode:
        pytest.skip(f"{sys.executable} or the packages beside it cannot be read by another user")


def test_the_whole_range_is_there_inside(tmp_path) -> None:
    said = as_nobody(tmp_path, SCRIPT)
    assert said["borrowed"] == "['0', '65534', '1', '1', '100000', '65536', 'allow']"
    assert said["inside"] == "['0', '0', '1', '1', '1', '65536', 'allow']"  # as the user namespace around numbers them
    assert said["other"] == "['1000', '1000']"
    assert "posix_spawn" in said["helpers"]
    assert said["refused"].startswith("uid_map: (0, 5, 1) lies outside the own uid (65534) and the subordinate ranges")


def test_where_newuidmap_may_not_the_single_map_is_used(tmp_path) -> None:
    """no_new_privs takes the set-uid bit of newuidmap away: nslab then does with one id."""
    script = """
import nslab
with nslab.Container("d", isolate="uts") as d:
    print("borrowed", d.run("cat /proc/self/uid_map /proc/self/setgroups").stdout.split())
"""
    assert as_nobody(tmp_path, script, "--no-new-privs")["borrowed"] == "['0', '65534', '1', 'deny']"
