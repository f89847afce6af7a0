"""How far a deploy is, shown where somebody looks and when it takes a while: a bar in a notebook, a line on a terminal."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

Told = Callable[[float], object]  # with how much is done, from 0 to 1

AFTER, EVERY = 1.0, 0.1  # seconds before anything is shown, and from one time to the next
WIDTH = 30  # characters of the bar on a terminal


class Progress:
    """Hears how much is done, and tells ``told``, or whoever looks. At its end nothing of it is seen any more."""

    def __init__(self, title: str, told: Told | None):
        self._show = told or _Shown(title)

    def part(self, first: float, last: float) -> Callable[[int, int], None]:
        """What is to be told how many of how many are done, in this part of the whole."""

        def done(count: int, total: int) -> None:
            self._show(first + (last - first) * count / total)

        return done

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._show, _Shown):
            self._show.clear()


class Bar:
    """So much is done, as a notebook shows it."""

    def __init__(self, title: str, done: float):
        self._title, self._done = title, done

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        percent = f"{self._title} {self._done:.0%}"
        return {"text/plain": percent, "text/html": f'<progress value="{self._done:.3f}"></progress> {escape(percent)}'}


class _Shown:
    """Shows it itself, over what it has shown before."""

    def __init__(self, title: str):
        self._title = title
        self._next = time.monotonic() + AFTER
        self._handle: Any = None  # of IPython, for what it shows to be shown again
        self._line = ""

    def __call__(self, done: float) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        if sys.stderr and sys.stderr.isatty():
            self._write(f"{self._title} [{'#' * round(done * WIDTH):{WIDTH}}] {done:4.0%}")
        elif display := getattr(builtins, "display", None):  # of IPython, in a notebook
            bar = Bar(self._title, done)
            if self._handle:
                self._handle.update(bar)
            else:
                self._handle = display(bar, display_id=True)

    def clear(self) -> None:
        if self._line:
            self._write("")
        if self._handle:
            self._handle.update({"text/plain": ""}, raw=True)

    def _write(self, line: str) -> None:
        """Write over what stood there."""
        sys.stderr.write(f"\r{line.ljust(len(self._line))}" + ("" if line else "\r"))
        sys.stderr.flush()
        self._line = line
