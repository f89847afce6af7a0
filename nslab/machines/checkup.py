"""What this machine allows, found out by looking and by trying, with the remedy for what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from nslab.errors import NslabError
from nslab.model import KINDS
from nslab.namespaces import privilege

MARKS = {"ok": "yes", "part": "partly", "fail": "no"}
COLOURS = {"ok": "#009E73", "part": "#E69F00", "fail": "#D55E00"}
TOOLS = (("dot", "graphviz", "pictures"), ("newuidmap", "uidmap", "more than one id in a user namespace, without being root"))


@dataclass(frozen=True)
class Check:
    """One question: ``status`` is "ok", "part" or "fail", ``finding`` what was found, ``remedy`` what to do about it."""

    name: str
    status: str
    finding: str
    remedy: str = ""


class Report:
    """The checks by name: report["userns"].status."""

    def __init__(self, checks: list[Check]):
        self.checks = {check.name: check for check in checks}

    def __getitem__(self, name: str) -> Check:
        return self.checks[name]

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks.values())

    @property
    def works(self) -> bool:
        """Whether isolation works here at all."""
        return self["userns"].status == "ok"

    def to_json(self) -> str:
        """A JSON list of objects with the fields of Check."""
        return json.dumps([asdict(check) for check in self])

    def __str__(self) -> str:
        lines = []
        for check in self:
            lines.append(f"{MARKS[check.status]:7} {check.name}: {check.finding}")
            lines += [f"{'':7} what to do: {check.remedy}"] if check.remedy else []
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = []
        for check in self:
            remedy = f"<br><i>what to do: {escape(check.remedy)}</i>" if check.remedy else ""
            rows.append(
                f'<tr><td style="text-align:left"><b style="color:{COLOURS[check.status]}">{MARKS[check.status]}</b></td>'
                f'<td style="text-align:left">{escape(check.name)}</td>'
                f'<td style="text-align:left">{escape(check.finding)}{remedy}</td></tr>'
            )
        return {"text/plain": str(self), "text/html": f"<table>{''.join(rows)}</table>"}


def doctor(root: str = "/") -> Report:
    """Look at this machine (or, for a test, at the files of another below ``root``) and say what works here.

    On the machine itself it also tries: it makes one user namespace and lets it go.
    """
    checks = [_privilege(), *_kinds(root), *_sysctls(root)]
    if root == "/":
        checks += [_trial(), *_tools()]
    return Report(checks)


def _privilege() -> Check:
    if privilege.is_privileged():
        return Check("privilege", "ok", f"uid {os.geteuid()} with CAP_SYS_ADMIN: every kind of namespace directly")
    return Check(
        "privilege", "part", f"uid {os.geteuid()} without CAP_SYS_ADMIN: a user namespace first, then the other kinds inside"
    )


def _kinds(root: str) -> Iterator[Check]:
    folder = os.path.join(root, "proc/self/ns")
    have = set(os.listdir(folder)) if os.path.isdir(folder) else set(KINDS)
    missing = [f"{kind} (Linux {KINDS[kind].since})" for kind in KINDS if kind not in have]
    if missing:
        yield Check("kinds", "part", f"this kernel lacks {', '.join(missing)}", "a newer kernel, or one built with them")
    else:
        yield Check("kinds", "ok", f"this kernel has all {len(KINDS)}: {', '.join(KINDS)}")


def _sysctls(root: str) -> Iterator[Check]:
    """What keeps an ordinary user from making user namespaces; root is not bound by the last two."""
    limit = _sysctl(root, "user/max_user_namespaces")
    if limit == "0":
        yield Check("max-user-namespaces", "fail", "user.max_user_namespaces is 0", "sysctl user.max_user_namespaces=15000")
    else:
        yield Check("max-user-namespaces", "ok", f"user.max_user_namespaces is {limit or 'not there'}")
    if _sysctl(root, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        yield Check(
            "apparmor-userns", "fail", "kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor keeps ordinary users out",
            "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile with 'userns,' for this Python",
        )  # fmt: skip
    else:
        yield Check("apparmor-userns", "ok", "AppArmor does not restrict user namespaces")
    if _sysctl(root, "kernel/unprivileged_userns_clone") == "0":
        yield Check(
            "userns-clone",
            "fail",
            "kernel.unprivileged_userns_clone is 0",
            "as root: sysctl kernel.unprivileged_userns_clone=1",
        )


def _sysctl(root: str, name: str) -> str:
    try:
        with open(os.path.join(root, "proc/sys", name)) as file:
            return file.read().strip()
    except OSError:
        return ""


def _trial() -> Check:
    from nslab.container import run

    try:
        uid = run("/usr/bin/id -u", isolate="user", timeout=10, check=True).stdout.strip()
    except NslabError as error:
        return Check(
            "userns", "fail", f"a user namespace could not be made: {error}", "see the checks above, or ask for another machine"
        )
    return Check("userns", "ok", f"a user namespace was made, with uid {uid} inside")


def _tools() -> Iterator[Check]:
    for tool, package, use in TOOLS:
        if shutil.which(tool):
            yield Check(tool, "ok", f"{tool} is here, for {use}")
        else:
            yield Check(tool, "part", f"{tool} is not here; it is needed for {use}", f"apt-get install {package}")
    ranges = privilege.subordinate("uid")
    if ranges:
        yield Check(
            "subordinate-ids", "ok", f"subordinate uids: {', '.join(f'{count} from {first}' for first, count in ranges)}"
        )
    elif not privilege.is_privileged():
        yield Check(
            "subordinate-ids", "part", "this user has no subordinate ids: one id inside is all there is",
            "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        )  # fmt: skip
