"""The doctor: what it finds on this machine, and on made-up ones."""

from __future__ import annotations

import json
import os

import pytest

import nslab
from nslab.model import KINDS


def machine(folder, kinds=tuple(KINDS), **sysctls) -> str:
    """A folder that looks like the root of a machine with these kinds and sysctls (a__b is a/b)."""
    for kind in kinds:
        (folder / "proc/self/ns").mkdir(parents=True, exist_ok=True)
        (folder / "proc/self/ns" / kind).write_text("")
    for name, value in sysctls.items():
        path = folder / "proc/sys" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return str(folder)


def test_case_a16_apparmor_restriction_is_named_with_its_remedy(tmp_path) -> None:
    report = nslab.doctor(machine(tmp_path, kernel__apparmor_restrict_unprivileged_userns=1))
    check = report["apparmor-userns"]
    assert check.status == "fail"
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in check.remedy
    assert "profile" in check.remedy


def test_apparmor_that_allows_is_fine(tmp_path) -> None:
    report = nslab.doctor(machine(tmp_path, kernel__apparmor_restrict_unprivileged_userns=0))
    assert report["apparmor-userns"].status == "ok"


@pytest.mark.parametrize(
    ("name", "sysctl", "value"),
    [("max-user-namespaces", "user__max_user_namespaces", 0), ("userns-clone", "kernel__unprivileged_userns_clone", 0)],
)
def test_a_sysctl_that_forbids_user_namespaces_is_named(tmp_path, name, sysctl, value) -> None:
    check = nslab.doctor(machine(tmp_path, **{sysctl: value}))[name]
    assert check.status == "fail"
    assert sysctl.replace("__", ".") in check.remedy


def test_a_kernel_without_time_namespaces_is_named(tmp_path) -> None:
    check = nslab.doctor(machine(tmp_path, kinds=[kind for kind in KINDS if kind != "time"]))["kinds"]
    assert check.status == "part"
    assert "time (Linux 5.6)" in check.finding


def test_this_machine_is_found_as_it_is() -> None:
    report = nslab.doctor()
    assert report["userns"].status == "ok"
    assert report["kinds"].finding.endswith(", ".join(kind for kind in KINDS if os.path.exists(f"/proc/self/ns/{kind}")))
    assert f"uid {os.geteuid()}" in report["privilege"].finding
    assert [check["name"] for check in json.loads(report.to_json())] == [check.name for check in report]


def test_a_missing_tool_names_its_package(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert nslab.doctor()["dot"].remedy == "apt-get install graphviz"
