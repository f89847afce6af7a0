"""The battery of ways out: none leads out of a hardened container, and the same ones are open in a plain one."""

from __future__ import annotations

import json
import os

import pytest

from tests.battery.__main__ import as_process, table

pytestmark = pytest.mark.requires("userns")

# What a plain container leaves open on any machine, to anybody: if these are refused, the battery does not try them.
OPEN = {
    "memory", "vm_readv", "ptrace", "key", "keys", "unshare_user", "clone_user", "clone3_user", "mount", "open_tree", "umount",
    "double_chroot", "reboot", "no_new_privileges", "joiner",
}  # fmt: skip
OPEN_TO_ROOT = {"shadow", "passwd", "core_pattern", "sysctl", "setuid_file"}


def test_no_way_leads_out_of_a_hardened_container() -> None:
    rows = battery()
    through = {row["name"] for row in rows if row["plain"][0]}
    assert through >= OPEN | (set() if os.geteuid() else OPEN_TO_ROOT)
    assert all(row["why"] in table(rows) for row in rows)


@pytest.mark.requires("subids")
def test_nor_for_an_ordinary_user_with_subordinate_ids() -> None:
    assert {row["name"] for row in battery() if row["plain"][0]} >= OPEN


def battery() -> list[dict]:
    """The rows, after none was found to lead out of the hardened container."""
    done = as_process("--json")
    rows = json.loads(done.stdout)
    assert [row["what"] for row in rows if row["hardened"][0]] == []
    assert done.returncode == 0, done.stderr
    assert len(rows) >= 25
    details = [row[which][1] for row in rows for which in ("hardened", "plain")]
    assert not [detail for detail in details if detail.startswith(("wrong", "killed"))]
    return rows
