"""watch(): what a block of code, or a cell, changed."""

from __future__ import annotations

import os
import sys

from nslab.model.difference import Difference
from nslab.observe.differing import diff
from nslab.observe.discovering import discover
from nslab.spawner import ensure


class watch:
    """``with nslab.watch() as seen:`` compares before and after the block, and shows what changed.

    What this process and all below it have to do with is compared, the namespaces of the machine included; with ``everything``
    also what others do meanwhile. ``seen.difference`` is the outcome, once the block is left; ``show=False`` keeps it there.
    """

    def __init__(self, *, everything: bool = False, show: bool = True):
        self._of = None if everything else os.getpid()
        self._show = show
        self.difference = Difference(0, 0, ())

    def __enter__(self) -> watch:
        ensure()  # the helpers are not what the block makes
        self._before = discover(self._of)
        return self

    def __exit__(self, *_: object) -> None:
        self.difference = diff(self._before, discover(self._of))
        if self._show:
            show(self.difference)

    def __repr__(self) -> str:
        return repr(self.difference)


def show(thing: object) -> None:
    """Below the cell where there is one, else as text."""
    running = sys.modules.get("IPython")
    if running is not None and running.get_ipython() is not None:
        sys.modules["IPython.display"].display(thing)
    else:
        print(thing)
