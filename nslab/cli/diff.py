"""nslab diff: what changed between two snapshots, or since one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nslab.cli import common, spaces
from nslab.observe import diff as difference
from nslab.observe import discover


def diff(
    before: Annotated[Path, typer.Argument(help="A snapshot: nslab ls --save FILE makes one.")],
    after: Annotated[Path | None, typer.Argument(help="A later one; none is this moment.", show_default=False)] = None,
    as_json: common.Json = False,
) -> None:
    """Print what appeared (+), vanished (-) and changed (~): nslab diff A.json B.json

    nslab draw draws what --json prints.
    """
    one = spaces.read("BEFORE", before)
    found = difference(one, discover() if after is None else spaces.read("AFTER", after))
    print(found.to_json() if as_json else found)
