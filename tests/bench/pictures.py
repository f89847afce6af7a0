"""A large picture beside one call of graphviz's dot on the same source."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from statistics import median

from nslab import Topology
from nslab.render import draw_layout

NODES, TURNS = 500, 15


def pictures() -> Iterator[tuple[str, str, float | None, float, str]]:
    """A lab of 500 nodes, from its layout to the SVG, folded: what, measured, the value that the limit is on, limit, unit."""
    what = f"a lab of {NODES} nodes drawn, folded, against one call of dot on the same source"
    if not shutil.which("dot"):
        yield what, "apt-get install graphviz", None, 1.1, "x"
        return
    layout = Topology.single(NODES - 1).resolve()
    source = draw_layout(layout).dot.encode()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(TURNS):
        start = time.perf_counter()
        draw_layout(layout).svg
        between = time.perf_counter()
        subprocess.run(["dot", "-Tsvg"], input=source, capture_output=True, check=True)
        ours.append(between - start)
        theirs.append(time.perf_counter() - between)
    yield what, f"{median(ours) * 1e3:.0f} / {median(theirs) * 1e3:.0f} ms", median(ours) / median(theirs), 1.1, "x"
