"""What can go wrong, and what to do about it.

    NslabError
    ├── SpecError (ValueError)         what was asked for cannot be: which argument, which rule
    │   └── NoSuchKind (KeyError)      a kind of namespace that is not there
    ├── Refused                        it would change the machine itself, which nslab never does
    ├── Unavailable                    this machine lacks something: what, and how to get it
    ├── SyscallError (OSError)         the kernel said no: call, args, errno, hint, and the steps before it
    ├── DeadNamespace                  the process or namespace that was to be used is gone
    ├── SpawnerError                   the helper process that makes namespaces is gone or answered nonsense
    └── CommandError                   a command ran and failed; .result has its output
        └── CommandTimeout (TimeoutError)

Everything but SyscallError is raised before or after the kernel was asked, never instead of its answer.
"""

from __future__ import annotations

import errno as _errno
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_SCREENFUL = 12  # steps in a row that a message tells one by one
_LONG = 1200  # characters of an argument that are shown whole


class NslabError(Exception):
    """The root of every error that nslab raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook: the reader's own lines and the message, without the inside of nslab."""
        return render_traceback(self)


class SpecError(NslabError, ValueError):
    """An argument that cannot be: ``argument`` is its name, ``rule`` the rule that it breaks.

    Raised before anything is made.
    """

    def __init__(self, argument: str, rule: str):
        super().__init__(argument, rule)
        self.argument = argument
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.argument}: {self.rule}"


class NoSuchKind(SpecError, KeyError):
    """No namespace of this kind is there to be looked up; a KeyError, as of any mapping."""


class Refused(NslabError):
    """nslab does not do this, because it would change the machine itself; the text says what to do instead."""


class Unavailable(NslabError):
    """Something that this machine lacks: ``requirement``, and ``how_to_get_it``."""

    def __init__(self, requirement: str, how_to_get_it: str):
        super().__init__(requirement, how_to_get_it)
        self.requirement = requirement
        self.how_to_get_it = how_to_get_it

    def __str__(self) -> str:
        return f"{self.requirement}\n  what to do: {self.how_to_get_it}"


class SyscallError(NslabError, OSError):
    """A system call that failed.

    ``call`` is its name, ``args`` its decoded arguments (a tuple of str), ``errno`` the number, ``hint`` says what that
    number means here and what to do. ``steps`` are the steps of the same plan that had been done before it, oldest
    first; it is empty when the call stood alone.
    """

    args: tuple[Any, ...]

    def __init__(self, call: str, args: Sequence[str], errno: int, hint: str = "", steps: Iterable[Any] = ()):
        super().__init__(errno, os.strerror(errno))
        self.call = call
        self.args = tuple(args)
        self.hint = hint
        self.steps = tuple(steps)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.call, self.args, self.errno, self.hint, self.steps))

    @property
    def name(self) -> str:
        """The symbol of the errno: EPERM, EINVAL and so on."""
        return _errno.errorcode.get(self.errno or 0, str(self.errno))

    def __str__(self) -> str:
        lines = [f"{called(self.call, self.args)} failed with {self.name}"]
        if self.hint:
            lines += [f"  {line}" for line in self.hint.splitlines()]
        else:
            lines[0] += f" ({os.strerror(self.errno or 0)})"
        if self.steps:
            lines.append(f"  done before it, and undone since ({len(self.steps)}):")
            lines += [f"    {line}" for line in _told(self.steps)]
        return "\n".join(lines)


def called(call: str, args: Iterable[str]) -> str:
    """A call with its decoded arguments on one line, with the middle of a very long one left out."""
    half = _LONG // 2
    short = (f"{arg[:half]} ... {len(arg) - _LONG} more ... {arg[-half:]}" if len(arg) > _LONG else arg for arg in args)
    return f"{call}({', '.join(short)})"


def _told(steps: Sequence[Any]) -> Iterator[str]:
    """A line for each step that was asked for; implied ones in a row with the same reason are one line."""
    for why, group in itertools.groupby(steps, key=lambda step: step.implied):
        row = list(group)
        if why and len(row) > 1:
            names = ", ".join(dict.fromkeys(step.call for step in row))
            yield f"and {len(row)} implied steps: {why} ({names})"
        elif len(row) > _SCREENFUL:
            yield from map(str, row[: _SCREENFUL // 2])
            yield f"and {len(row) - _SCREENFUL} more"
            yield from map(str, row[-_SCREENFUL // 2 :])
        else:
            yield from map(str, row)


class DeadNamespace(NslabError):
    """The process or namespace that was to be used is gone."""


class SpawnerError(NslabError):
    """The spawner, the helper process that makes namespaces, is gone or did not answer as it should."""


class CommandError(NslabError):
    """A command ended with another status than 0; ``result`` has its output."""

    def __init__(self, message: str, result: Any = None):
        super().__init__(message, result)
        self.message = message
        self.result = result

    def __str__(self) -> str:
        return self.message


class CommandTimeout(CommandError, TimeoutError):
    """A command did not end in time and was killed; ``result`` has the output so far."""


def render_traceback(error: BaseException) -> list[str]:
    """The traceback of ``error`` as lines: the reader's own frames, without those inside nslab, IPython or the library."""
    import linecache
    import sysconfig
    import traceback

    inside = (os.path.dirname(os.path.abspath(__file__)) + os.sep, sysconfig.get_paths()["stdlib"] + os.sep)
    lines = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith(inside) and f"{os.sep}site-packages{os.sep}" not in file:
            code = linecache.getline(file, number, frame.f_globals).strip()
            lines.append(f"{'here' if 'ipykernel' in file else file}, line {number}: {code}")
    return [*lines, f"{type(error).__name__}: {error}"]
