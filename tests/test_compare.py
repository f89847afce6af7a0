"""The table of `make compare`: made by one command, from what the kernel says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nslab.model import KINDS
from tests.helpers import ROOT

pytestmark = pytest.mark.requires("userns", "tool:busybox", "tool:bwrap", "tool:runc")


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    command = [sys.executable, "-m", "tests.compare", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_kind_is_nslabs_own(table) -> None:
    for tool in ("nslab", "nslab, hardened"):
        assert {kind: table[tool][f"{kind} namespace"] for kind in KINDS} == dict.fromkeys(KINDS, "own")
        assert table[tool]["host name"] == "web"
        assert table[tool]["root filesystem"] == "own, pivoted"
        assert table[tool]["descriptors above 2"] == "0"


def test_what_the_other_tools_are_known_for(table) -> None:
    """So that the cells are not all alike: a table that said "own" everywhere would fail here."""
    assert table["bwrap"]["time namespace"] == "the machine's"
    assert table["bwrap"]["no_new_privs"] == "yes"
    assert table["unshare"]["time namespace"] == "own"
    assert table["unshare"]["root filesystem"] == "own, by chroot"
    assert table["unshare"]["no_new_privs"] == "no"


@pytest.mark.requires("root")  # an ordinary user's runc needs cgroups of his own
def test_runc_beside(table) -> None:
    assert table["runc"]["capabilities, bounding"].startswith("3 of ")
    assert table["runc"]["session keyring"] == "own"
    assert table["runc"]["/proc/sys"] == "read-only"


def test_hardened_closes_what_a_plain_container_leaves_open(table) -> None:
    plain, hardened = table["nslab"], table["nslab, hardened"]
    closed = {"no_new_privs": "yes", "seccomp filter": "yes", "/proc/sys": "read-only", "/sys": "sysfs, read-only"}
    assert {question: hardened[question] for question in closed} == closed
    assert not set(closed.items()) & {question: plain[question] for question in closed}.items()
