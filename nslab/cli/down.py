"""nslab down: the end of labs that are held in the background."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from nslab.cli import common, labs
from nslab.labs.bringing import take_down
from nslab.labs.places import held


def down(
    lab: Annotated[
        list[str] | None,
        typer.Argument(help="The labs; when only one is up, that.", autocompletion=labs.names, show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All labs of this user.")] = False,
    as_json: common.Json = False,
) -> None:
    """End labs, with all that runs in them, and return when nothing of them is left: nslab down shop

    Status 1 when one of them is not up.
    """
    names = [each["name"] for each in held()] if everything else lab or [labs.chosen(None)]
    ended = {name: take_down(name) for name in names}
    if as_json:
        print(json.dumps({"ended": [name for name in names if ended[name]]}))
    for name in names:
        if not ended[name]:
            print(f"nslab: no lab {name!r} is up", file=sys.stderr)
        elif not as_json:
            print(f"{name} is down")
    raise typer.Exit(0 if all(ended.values()) else 1)
