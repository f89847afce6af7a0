"""Recordings as files: for each unit the release of Linux that it ran on, and of each cell the key and what it put out.

An output is {"stream": name, "text": lines}, {"data": {MIME type: lines}} or {"error": lines}. Texts are lists of lines, so
that a new recording changes few lines of the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nslab.lessons.prediction import MIME as PREDICTION

FOLDER = Path(__file__).with_name("units")
ORDER = ("text/html", "image/svg+xml", "image/png")  # of an output the first of these is kept, beside its text
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
Output = dict[str, Any]


def key(source: str) -> str:
    """By which the recording of a cell is found: a hash of its source, without blank lines around it."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """A recorded cell: its unit, its number among those with code, from 1, and the Linux that it ran on."""

    unit: str
    number: int
    kernel: str
    key: str
    outputs: Sequence[Output]


class Recordings:
    """All recordings of a folder, of FOLDER when none is named. ``units`` are the cells of each, in their order."""

    def __init__(self, folder: Path | None = None):
        self.units: dict[str, list[Cell]] = {}
        self._by_key: dict[str, list[Cell]] = {}
        for path in sorted((folder or FOLDER).glob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            cells = [
                Cell(path.stem, number, content["kernel"], each["key"], each["outputs"])
                for number, each in enumerate(content["cells"], 1)
            ]
            self.units[path.stem] = cells
            for cell in cells:
                self._by_key.setdefault(cell.key, []).append(cell)

    def find(self, source: str, at: Cell | None = None) -> Cell | None:
        """The recording of this source; of several, the next one in the unit of the cell ``at``, that cell included."""
        found = self._by_key.get(key(source), [])
        here = [cell for cell in found if at and cell.unit == at.unit]
        ahead = [cell for cell in here if at and cell.number >= at.number]
        return next(iter([*ahead, *here, *found]), None)


def write(path: Path, kernel: str, cells: Iterable[tuple[str, Sequence[Output]]]) -> None:
    """The file of a unit: the source and the condensed outputs of each cell."""
    content = {"kernel": kernel, "cells": [{"key": key(source), "outputs": outputs} for source, outputs in cells]}
    path.write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def condensed(outputs: Iterable[Mapping[str, Any]]) -> list[Output]:
    """What is kept of outputs as nbformat has them: no colours, no widgets, of each picture one form and its text."""
    kept: list[Output] = []
    for output in outputs:
        if output["output_type"] == "stream":
            text = COLOURS.sub("", output["text"])
            if kept and kept[-1].get("stream") == output["name"]:
                text = "".join(kept.pop()["text"]) + text
            kept.append({"stream": output["name"], "text": _lines(text)})
        elif output["output_type"] == "error":
            kept.append({"error": _lines(COLOURS.sub("", "\n".join(output["traceback"])))})
        else:
            data: dict[str, Any] = output["data"]
            best = next((name for name in ORDER if name in data), "")
            kinds = [name for name in (best, "text/plain") if name in data]
            shown: dict[str, Any] = {name: _lines(data[name]) for name in kinds}
            if "actual" in data.get(PREDICTION, {}):
                shown[PREDICTION] = data[PREDICTION]
            kept.append({"data": shown})
    return kept


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
