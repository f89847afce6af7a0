"""nslab watch: what changes, as it changes."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated

import typer

from nslab.cli import common
from nslab.observe import diff, discover


def watch(
    interval: Annotated[float, typer.Option("--interval", "-i", min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int, typer.Option("--count", "-c", min=0, help="Looks, after which it ends; 0: until Ctrl-C.")] = 0,
    of: Annotated[int | None, typer.Option(help="Only what this PID and all below it have to do with.")] = None,
    as_json: common.Json = False,
) -> None:
    """Print what appears (+), vanishes (-) and changes (~) in the namespaces of this machine, until Ctrl-C.

    With --json a line is the object of one look at which something had changed.
    """
    with contextlib.suppress(KeyboardInterrupt):
        before, looks = discover(of), 0
        while not count or looks < count:
            time.sleep(interval)
            after, looks = discover(of), looks + 1
            if found := diff(before, after):
                print(found.to_json() if as_json else found, flush=True)
            before = after
