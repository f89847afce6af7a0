"""What a recorded cell looks like: a frame with a mark, for light and dark, and the same as text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from nslab.machines.report import Check
from nslab.recordings.store import Output

ORANGE = "#E69F00"  # of the palette of Okabe and Ito
FRAME = f"border:1px solid {ORANGE};border-left-width:5px;padding:4px 12px 6px;margin:2px 0"
PRE = "margin:4px 0;padding:0;background:none;color:inherit;white-space:pre-wrap;overflow-wrap:anywhere"
RULE = (
    "Cells of the course are shown with what they printed when they were recorded, each in such a frame; they are not run. "
    "Predictions work. A cell that you write or change is run."
)


def notice(verdict: Check) -> dict[str, str]:
    """Said once, below the first cell: why recordings are shown, and what lifts that."""
    head = f"This machine allows no namespaces ({verdict.finding})."
    html = (
        f'<div style="{FRAME}"><b>{escape(head)}</b><br>{escape(RULE)}'
        f"<br><i>What to do:</i> {escape(verdict.remedy)}. <code>nslab.doctor()</code> tells more.</div>"
    )
    return {"text/plain": f"{head}\n{RULE}\nWhat to do: {verdict.remedy}. nslab.doctor() tells more.", "text/html": html}


def framed(outputs: Iterable[Output], kernel: str, *, failed: bool = False) -> dict[str, str]:
    """What a cell put out when it was recorded, marked; ``failed`` is one that was run here all the same."""
    parts = [_part(output) for output in outputs]
    mark = f"Recorded on {kernel}, {'for it failed here' if failed else 'not run here'}"
    mark += "" if parts else "; it printed nothing"
    html = "".join(part for part, _ in parts)
    text = "\n".join(part.rstrip("\n") for _, part in parts)
    return {
        "text/html": f'<div style="{FRAME}"><div style="font-size:85%"><b style="color:{ORANGE}">●</b> {escape(mark)}</div>'
        f'<div style="overflow-x:auto">{html}</div></div>',
        "text/plain": f"RECORDED on {kernel}, not on this machine" + (f":\n\n{text}" if parts else "; it printed nothing"),
    }


def _part(output: Output) -> tuple[str, str]:
    """One output as HTML and as text."""
    data: dict[str, Any] = output.get("data", {})
    text = "".join(output.get("text") or output.get("error") or data.get("text/plain", ""))
    if "text/html" in data:
        html = "".join(data["text/html"])
    elif "image/svg+xml" in data:
        html = "".join(data["image/svg+xml"])
    elif "image/png" in data:
        html = f'<img alt="{escape(text)}" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    else:
        html = f'<pre style="{PRE}">{escape(text)}</pre>'
    return html, text
