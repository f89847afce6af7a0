"""`make binder-test`: the image of binder/Dockerfile, and the course in it, where nothing is allowed.

    python -m tests.binder [--only NOTEBOOK]... [--hub] [--shell] [--json]

It is built without a container engine (image), then each notebook runs in the kernel that it asks for itself, which in
this image is a Linux of its own, under the limits of a strict container (confine).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

from nslab.lessons.course import Course
from tests.binder import confine, hub, image
from tests.binder.memory import limited

KERNEL = "python3"  # what the notebooks ask for; in this image it is the own kernel
TINY = """
import nslab
with nslab.Container("web", isolate="uts pid net", hostname="web") as web:
    assert web.run("hostname").stdout == "web\\n"
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.binder", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NOTEBOOK", help="only this one, as 01-uts (may be repeated)")
    parser.add_argument("--hub", action="store_true", help="in place of the course: JupyterHub with two users")
    parser.add_argument("--shell", action="store_true", help="a shell under the limits, to look around")
    parser.add_argument("--json", action="store_true", help="what came of it as JSON, on the standard output")
    args = parser.parse_args()
    if os.geteuid() or missing():
        sys.exit(f"this needs root and mmdebstrap, bubblewrap, util-linux and git; missing: {' '.join(missing()) or 'root'}")
    with image.built(more=hub.MORE if args.hub else "", say=say) as made:
        say(f"{made.size / 1e6:.0f} MB in {made.seconds:.0f} s")
        if args.shell:
            return confine.start(made, ["bash"]).wait()
        return hub.test(made) if args.hub else course(made, args.only, as_json=args.json)


def missing() -> list[str]:
    return [name for name in ("mmdebstrap", "bwrap", "setpriv", "git") if not shutil.which(name)]


def say(text: str) -> None:
    print(f"binder: {text}", file=sys.stderr, flush=True)


def course(made: image.Image, only: list[str] | None, *, as_json: bool) -> int:
    """The limits, a tiny notebook, then the units; how many failed."""
    say(confine.output(made, ["python", "-c", confine.FORBIDDEN]).strip())
    with limited(confine.MEMORY) as memory:
        status = confine.start(made, ["python", "-c", confine.HUNGRY], memory=memory, stderr=subprocess.DEVNULL).wait()
        if not status or not memory.kills:
            sys.exit("more memory than the limit could be had")
        say(f"{confine.MEMORY >> 20} MB of memory: who takes more is killed")
    began = time.monotonic()
    tiny = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell(TINY)]})
    place = made.root / "tmp" / "tiny" / "00-start.ipynb"
    place.parent.mkdir()
    place.write_text(tiny)
    os.chown(place.parent, confine.UID, confine.UID)
    outcomes = [told(run(made, "--folder", "/tmp/tiny"))]
    if outcomes[0]["linux"] == os.uname().release:
        sys.exit("the notebooks' kernel is on the machine's Linux, and not on its own")
    for unit in Course.find(image.ROOT / "notebooks").choose(only or ()):
        outcomes.append(told(run(made, unit.name)))
    failed = sum(not outcome["ok"] for outcome in outcomes)
    peak = max(outcome["peak"] for outcome in outcomes)
    say(f"{len(outcomes)} notebooks in {time.monotonic() - began:.0f} s, {failed} failed; at most {peak >> 20} MB of memory")
    if as_json:
        facts = {"bytes": made.size, "build_seconds": round(made.seconds), "peak": peak, "notebooks": outcomes}
        print(json.dumps(facts, indent=2))
    return failed


def cell(source: str) -> dict:
    return {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": source}


def run(made: image.Image, *words: str) -> dict:
    """What came of one unit, and the most memory that it took: it has failed when something was killed for taking too much."""
    command = ["nslab", "course", "run", "--kernel", KERNEL, "--json", *words]
    with limited(confine.MEMORY) as memory:
        with confine.start(made, command, memory=memory, stdout=subprocess.PIPE) as process:
            text, _ = process.communicate()
        found = {"unit": words[-1], "impossible": "", "seconds": 0.0, "ready": 0.0, "ok": False, "linux": ""}
        outcome = {
            **found,
            "failure": None,
            **(json.loads(text)[0] if text else {}),
            "peak": memory.peak,
            "kills": memory.kills,
        }
    outcome["ok"] = outcome["ok"] and not outcome["kills"]
    return outcome


def told(outcome: dict) -> dict:
    """The same, after a line for a reader."""
    status = "impossible" if outcome["impossible"] else "passed" if outcome["ok"] else "failed"
    took = f"{outcome['seconds']:6.1f} s, the first answer after {outcome['ready']:4.1f} s, {outcome['peak'] >> 20:5} MB"
    say(f"{outcome['unit']:30} {status:10} {took}")
    if outcome["kills"]:
        say(f"    out of memory: {outcome['kills']} processes were killed")
    if failure := outcome["failure"]:
        say(f"cell {failure['cell']}:\n{failure['source']}\n{failure['message']}")
    elif outcome["impossible"]:
        say(f"    {outcome['impossible']}")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
