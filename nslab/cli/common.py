"""What several verbs need."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from nslab.namespaces import Result
from nslab.trace import Trace


def is_terminal() -> bool:
    """Whether somebody sits in front of it: a command then gets a terminal of its own, unless told otherwise."""
    return os.isatty(0) and os.isatty(1)


def environment(assignments: Sequence[str]) -> dict[str, str] | None:
    """The environment here with NAME=VALUE on top; None when there are none."""
    wrong = [word for word in assignments if not word.partition("=")[1]]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint="--env")
    return {**os.environ, **dict(word.split("=", 1) for word in assignments)} if assignments else None


def identity(user: str | None) -> str | int | None:
    """A user by name or number."""
    return int(user) if user and user.isdigit() else user


def finish(result: Result) -> NoReturn:
    """End as the command ended."""
    raise typer.Exit(result.returncode if result.returncode >= 0 else 128 - result.returncode)


def show(trace: Trace, steps: bool, script: bool) -> None:
    """What was done, on standard error: the command has standard output."""
    if steps:
        print(trace, file=sys.stderr)
    if script:
        print(trace.shell(), end="", file=sys.stderr)
