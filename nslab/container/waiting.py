"""What to wait for inside a container, checked: the function that one process inside calls, and what it says when in vain."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from nslab.errors import SpecError
from nslab.ops import Execute, spec
from nslab.spawner import conditions

Condition = spec.Command | Callable[[], Any]


def chosen(
    condition: Condition | None, path: spec.Folder | None, port: int | None, work: Callable[[spec.Command], Execute]
) -> tuple[Callable[..., Any], tuple[Any, ...], str]:
    """The function, its arguments, and the condition in words; ``work`` makes of a command what runs inside."""
    if [condition, path, port].count(None) != 2:
        raise SpecError("condition", "needs exactly one of these: a command, a function, path= or port=")
    if path is not None:
        if not isinstance(path, str | os.PathLike):
            raise SpecError("path", f"must be text, not {path!r}")
        name = os.path.join("/", spec.text("path", os.fspath(path)))
        return conditions.path_is_there, (name,), f"there is no {name} inside"
    if port is not None:
        return conditions.port_is_open, (spec.number("port", port, 1, 65535),), f"nothing inside listens on TCP port {port}"
    if isinstance(condition, str) or not callable(condition):
        assert condition is not None
        command = _command(condition, work)
        return conditions.command_succeeds, (command.argv, dict(command.env or {})), f"{condition!r} did not succeed"
    name = getattr(condition, "__name__", type(condition).__name__)
    return conditions.function_is_true, (condition,), f"{name}() was not true"


def _command(condition: spec.Command, work: Callable[[spec.Command], Execute]) -> Execute:
    """SpecError for what cannot be a command, which says so when it was perhaps meant as a path."""
    if isinstance(condition, os.PathLike):
        raise SpecError("condition", f"a path is no command; did you mean path={os.fspath(condition)!r}?")
    try:
        return work(condition)
    except SpecError as error:
        words = () if error.argument != "command" else condition.split() if isinstance(condition, str) else condition
        guess = conditions.guess([*words]) if isinstance(words, Iterable) else ""
        raise SpecError("condition", error.rule + guess) from None


def in_vain(words: str, timeout: float | None, said: str | bytes) -> str:
    """The message when the time is over; what the condition wrote to standard error, each line once."""
    text = said if isinstance(said, str) else said.decode(errors="replace")
    whole = text.splitlines(keepends=True)  # but the last one, at which keeping ended
    lines = list(dict.fromkeys(line.rstrip("\n") for line in whole if line.endswith("\n") or len(whole) == 1))[:5]
    return "\n".join([f"after {timeout:g} s {words}{':' if lines else ''}", *lines])
