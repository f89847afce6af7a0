"""What a checkup found, as values that can be shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

COLOURS = {"yes": "#009E73", "partly": "#E69F00", "no": "#D55E00"}


@dataclass(frozen=True)
class Check:
    """One question: ``status`` is "yes", "partly" or "no", ``finding`` what was found, ``remedy`` what to do about it."""

    name: str
    status: str
    finding: str
    remedy: str = ""


class Report:
    """The checks by name: report["isolation"].status. The first, "isolation", is the verdict."""

    def __init__(self, checks: Iterable[Check]):
        self.checks = {check.name: check for check in checks}

    @property
    def works(self) -> bool:
        """Whether isolation works here at all."""
        return self["isolation"].status != "no"

    def __getitem__(self, name: str) -> Check:
        return self.checks[name]

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks.values())

    def to_json(self) -> str:
        """A JSON list of objects with the fields of Check."""
        return json.dumps([asdict(check) for check in self])

    def __str__(self) -> str:
        lines = []
        for check in self:
            lines.append(f"{check.status:7} {check.name}: {check.finding}")
            lines += [f"{'':7} what to do: {check.remedy}"] if check.remedy else []
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = []
        for check in self:
            remedy = f"<br><i>what to do: {escape(check.remedy)}</i>" if check.remedy else ""
            rows.append(
                f'<tr><td style="text-align:left"><b style="color:{COLOURS[check.status]}">{check.status}</b></td>'
                f'<td style="text-align:left">{escape(check.name)}</td>'
                f'<td style="text-align:left">{escape(check.finding)}{remedy}</td></tr>'
            )
        return {"text/plain": str(self), "text/html": f"<table>{''.join(rows)}</table>"}
