"""An extension of IPython, loaded by each notebook in a kernel of its own.

Before the first cell it says what became of the last kernel, where that ended unasked. Before each it has Python look anew
for modules: it goes by the time of a folder's last change, which is not told inside while the folder is in use.
"""

from __future__ import annotations

import importlib
import os
from html import escape
from typing import Any

PREVIOUSLY = "NSLAB_PREVIOUSLY"  # the variable with what there is to tell
GO_ON = (
    "What its cells had made is gone with it, containers and variables: run them again, from the top. "
    "Your files are as you saved them."
)


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython when it starts."""
    previously = os.environ.pop(PREVIOUSLY, "")

    def before_cell(*_: Any) -> None:
        nonlocal previously
        importlib.invalidate_caches()
        if previously:
            html = f'<div style="border-left:4px solid #D55E00;padding:4px 12px"><b>{escape(previously)}</b><br>{GO_ON}</div>'
            shell.display_pub.publish({"text/plain": f"{previously}\n{GO_ON}", "text/html": html})
            previously = ""

    shell.events.register("pre_run_cell", before_cell)
