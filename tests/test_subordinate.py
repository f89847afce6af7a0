"""Subordinate ids: what newuidmap(1) gives an ordinary user who has a line in /etc/subuid and /etc/subgid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nslab
from nslab.namespaces import privilege

pytestmark = pytest.mark.requires("ordinary", "subids")

OWN = os.geteuid()


def maps(container: nslab.Container) -> list[str]:
    """uid_map and setgroups, as the inside sees them."""
    return container.run("cat /proc/self/uid_map /proc/self/setgroups").stdout.split()


def test_the_borrowed_user_namespace_has_the_whole_range() -> None:
    first, count = privilege.subordinate("uid")[0]
    with nslab.Container(isolate="uts") as container:
        assert maps(container) == ["0", str(OWN), "1", "1", str(first), str(count), "allow"]


def test_the_range_is_handed_on_and_its_ids_can_be_taken() -> None:
    _, count = privilege.subordinate("uid")[0]
    with nslab.Container(isolate="uts user mnt", uid_map="subordinate", setgroups="allow") as container:
        assert maps(container) == ["0", "0", "1", "1", "1", str(count), "allow"]  # as the user namespace around numbers them
        assert container.run("id -u; id -G", user=1000).lines == ["1000", "1000"]


def test_the_helper_is_on_record() -> None:
    script = """
import nslab
with nslab.Container(isolate="uts") as first:
    print([step.call for step in first.trace if "newuidmap" in str(step)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "['posix_spawn']\n", done.stderr


def test_an_id_that_was_not_granted_is_refused_before() -> None:
    with nslab.record() as trace, pytest.raises(nslab.SpecError, match=r"uid_map: \(0, 5, 1\) lies outside the own uid"):
        nslab.run("true", isolate="user", uid_map=[(0, 5, 1)])
    assert len(trace) == 0


@pytest.mark.requires("tool:setpriv")
def test_where_newuidmap_may_not_the_single_map_is_used() -> None:
    """no_new_privs takes the set-uid bit of newuidmap away: nslab then does with one id."""
    script = """
import nslab
with nslab.Container(isolate="uts") as container:
    print(container.run("cat /proc/self/uid_map /proc/self/setgroups").stdout.split())
"""
    command = ["setpriv", "--no-new-privs", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[1])
    assert done.stdout == f"['0', '{OWN}', '1', 'deny']\n", done.stderr
