"""What the machine looks like from outside of everything that nslab makes: it has to be the same after as before."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

# Commands whose output is part of the picture, where they are installed.
COMMANDS = {
    "links": "ip -j link",
    "addresses": "ip -j addr",
    "routes": "ip -j route show table all",
    "routes of IPv6": "ip -j -6 route show table all",
    "rules": "ip -j rule",
    "nft": "nft --stateless list ruleset",
}
COUNTING_DOWN = {"valid_life_time", "preferred_life_time", "expires"}
# The sysctls outside of net/ that belong to a namespace.
NAMESPACED = "kernel/hostname kernel/domainname kernel/pid_max kernel/sem kernel/msg* kernel/shm* kernel/auto_msgmni"
MORE = "fs/mqueue/* user/max_*"
COUNTERS = re.compile(r"_count$|/stable_secret$|/flush$|_next_id$")


def fingerprint() -> dict[str, list[str]]:
    """Lines under a title each."""
    return {
        "names": [os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text().strip()],
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "sysctls": _sysctls(),
        **{title: _command(command) for title, command in COMMANDS.items()},
    }


def changes(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """A diff of two fingerprints, empty when they are the same."""
    said = []
    for title, old in before.items():
        lines = difflib.unified_diff(old, after[title], f"{title} before", f"{title} after", lineterm="", n=0)
        said += [line for line in lines if not line.startswith("@@")]
    return said


def _sysctls() -> list[str]:
    root = Path("/proc/sys")
    paths = [Path(folder) / name for folder, _, names in os.walk(root / "net") for name in names]
    paths += [path for pattern in f"{NAMESPACED} {MORE}".split() for path in root.glob(pattern)]
    lines = []
    for path in sorted(set(paths)):
        name = str(path.relative_to(root))
        if COUNTERS.search(name):
            continue
        try:
            lines.append(f"{name} = {path.read_text().strip()}")
        except (OSError, UnicodeDecodeError):  # not for us to read: we cannot have changed it either
            continue
    return lines


def _command(command: str) -> list[str]:
    if not shutil.which(command.partition(" ")[0]):
        return []
    result = subprocess.run(command.split(), capture_output=True, text=True)
    try:
        return [json.dumps(_steady(entry), sort_keys=True) for entry in json.loads(result.stdout)]
    except ValueError:
        return result.stdout.splitlines()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in COUNTING_DOWN}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value
