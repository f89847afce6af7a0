"""nslab ping: who reaches whom in a lab."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nslab.cli import common, labs


def ping(
    lab: labs.Lab = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 2.0,
    as_json: common.Json = False,
) -> None:
    """Ping every host of a lab from every other, and show the times in milliseconds: nslab ping shop

    Status 1 when an answer is missing.
    """
    from nslab.labs.attached import attach

    with attach(labs.chosen(lab)) as running:
        matrix = running.ping_all(timeout=timeout)
    if as_json:
        print(json.dumps([{"from": one, "to": two, "ms": time} for (one, two), time in matrix.times.items()], indent=2))
    else:
        print(matrix)
    raise typer.Exit(1 if matrix.lost else 0)
