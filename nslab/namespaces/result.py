"""Result: what is left to look at of a command that has ended."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, field
from html import escape
from typing import Any

from nslab.errors import CommandError

_STYLE = "font-family:var(--jp-code-font-family,monospace);margin:0;white-space:pre-wrap"  # some pages give <pre> no font


@dataclass(frozen=True)
class Result:
    """What a command that ended leaves behind, in the words of subprocess.

    ``stdout`` and ``stderr`` are str (bytes with text=False), cut at ``max_output`` bytes each, ``omitted`` counts the bytes
    beyond. ``returncode`` is negative for a signal. ``duration`` is in seconds.
    """

    args: tuple[str, ...]
    returncode: int
    stdout: Any
    stderr: Any
    omitted: int = 0
    duration: float = 0.0
    streamed: bool = field(default=False, repr=False)

    @property
    def truncated(self) -> bool:
        """Whether there was more output than was kept."""
        return self.omitted > 0

    @property
    def lines(self) -> list[str]:
        """stdout, split into lines."""
        text = self.stdout if isinstance(self.stdout, str) else self.stdout.decode(errors="replace")
        return text.splitlines()

    def check(self) -> Result:
        """This result, or CommandError when the command failed."""
        if self.returncode != 0:
            raise CommandError(f"{' '.join(self.args)!r} {ended(self.returncode)}{_tail(self.stderr)}", self)
        return self

    def _status(self) -> str:
        parts = [] if self.returncode == 0 else [ended(self.returncode)]
        return "; ".join(parts + ([f"{self.omitted} bytes omitted"] if self.omitted else []))

    def __str__(self) -> str:
        shown = [] if self.streamed else [_text(self.stdout).rstrip("\n"), _text(self.stderr).rstrip("\n")]
        status = self._status()
        return "\n".join([part for part in shown if part] + ([f"[{status}]"] if status else []))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        blocks = []
        if not self.streamed:
            for text, colour in ((_text(self.stdout), "inherit"), (_text(self.stderr), "#D55E00")):
                if text:
                    blocks.append(f'<pre style="{_STYLE};color:{colour}">{escape(text.rstrip())}</pre>')
        if status := self._status():
            blocks.append(f'<div style="color:#D55E00"><b>{escape(status)}</b></div>')
        return {"text/plain": str(self), "text/html": "".join(blocks) or '<span style="opacity:.6">(no output)</span>'}


def _text(output: str | bytes) -> str:
    return output if isinstance(output, str) else output.decode(errors="backslashreplace")


def _tail(output: str | bytes) -> str:
    text = _text(output).rstrip()
    return f":\n{text[-2000:]}" if text else ""


def ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"
