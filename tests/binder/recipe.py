"""A Dockerfile, read as a list of steps: the few instructions that ours has, and an error for any other."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Step:
    """One instruction that does something, with who does it, where, and in which environment."""

    does: str  # RUN or COPY
    text: str
    user: str = "root"
    folder: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    base: str  # as in FROM
    steps: tuple[Step, ...]
    user: str  # who the finished image runs as, where, with what environment and which command
    folder: str
    env: Mapping[str, str]
    command: tuple[str, ...]


def read(path: Path, arguments: Mapping[str, str] | None = None) -> Recipe:
    """A Dockerfile as a Recipe. ``arguments`` are what --build-arg gives. ValueError for an instruction not known here."""
    base, user, folder, command = "", "root", "/", ()
    steps: list[Step] = []
    env: dict[str, str] = {}
    args: dict[str, str] = {}  # they are in the environment while it is built, and not afterwards

    def filled(text: str) -> str:
        known = {**args, **env}
        return VARIABLE.sub(lambda match: known.get(match[1] or match[2], ""), text)

    for word, text in _instructions(path.read_text()):
        if word == "FROM":
            base = text
        elif word == "ARG":
            name, _, default = text.partition("=")
            args[name] = (arguments or {}).get(name, default)
        elif word == "ENV":
            env.update(filled(pair).split("=", 1) for pair in shlex.split(text))
        elif word in ("RUN", "COPY"):
            steps.append(Step(word, text if word == "RUN" else filled(text), user, folder, {**args, **env}))
        elif word == "USER":
            user = filled(text)
        elif word == "WORKDIR":
            folder = filled(text)
        elif word == "CMD":
            command = tuple(json.loads(text))
        elif word != "EXPOSE":
            raise ValueError(f"{path.name} has an instruction that is not known here: {word}")
    return Recipe(base, tuple(steps), user, folder, env, command)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", "", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        yield word.upper(), re.sub(r"\s{2,}", " ", rest.strip())
