"""nslab up: a lab, deployed and held in the background."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from nslab.cli import common
from nslab.labs.bringing import bring_up
from nslab.topology import Topology


def up(
    file: Annotated[str, typer.Argument(help="The topology, in YAML: docs/files.md has the keys.", metavar="FILE.yaml")],
    name: Annotated[str | None, typer.Option(help="What the lab is called, instead of what the file says.")] = None,
    as_json: common.Json = False,
) -> None:
    """Deploy the lab of a file, and keep it up in the background until nslab down.

    From any terminal and notebook of this user: nslab exec NODE -- ping -c1 OTHER; nslab ping; nslab.attach("NAME"). On any
    failure, and when it is interrupted, nothing is left.
    """
    topology = Topology.read(file)
    topology.name = name or topology.name
    begin = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task(f"deploying {escape(topology.summary())}", total=1.0)
        about = bring_up(topology, file=os.path.abspath(file), progress=lambda done: shown.update(task, completed=done))
    if as_json:
        print(json.dumps(about, indent=2))
        return
    lab, nodes = shlex.quote(topology.name), [node for node, role in about["nodes"].items() if role != "switch"]
    print(f"{topology.name} is up: {topology.summary()}, in {time.monotonic() - begin:.1f} s; held by PID {about['pid']}")
    if len(nodes) > 1:
        print(f"  nslab exec {lab}/{nodes[0]} -- ping -c1 {nodes[1]}")
    print(f"  nslab ping {lab}\n  nslab down {lab}")
