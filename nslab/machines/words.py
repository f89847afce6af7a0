"""What the three say to each other: who asked for a kernel of its own, the warden, and the first process inside.

Lines of JSON, each an object with one key. Down: {"in": bytes for the command}, with "" for their end; {"signal": number};
{"size": [rows, columns]}; {"sync": true}; {"forget": true}; {"end": why}. Up: {"progress": word}; {"connected": true};
{"started": pid}; {"out"} and {"err"} with bytes; {"taken": how many of "in"}; {"synced": true}; {"forgotten": true};
{"ended": status}; {"failed": why}; and of the warden {"folder": path}, {"ready": ports}, {"over": ...}. Bytes are in base64:
what passes a serial line is text, in lines.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Protocol

PLAN = "plan"  # the file in which the first process finds what it has to do


class _Stream(Protocol):
    def fileno(self) -> int: ...
    def read(self, size: int, /) -> bytes | None: ...
    def write(self, data: bytes, /) -> int | None: ...


class Line:
    """One end of such a conversation, over an unbuffered file."""

    def __init__(self, file: _Stream):
        self._file = file
        self._rest = b""
        self.closed = False

    def fileno(self) -> int:
        return self._file.fileno()

    def send(self, **message: Any) -> None:
        self.put(json_line(message))

    def put(self, data: bytes) -> None:
        """All of it, however much the other end takes at once."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(bytes(view)) or 0 :]

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come, after waiting for something; ``closed`` once the other end is."""
        try:
            data = self._file.read(1 << 16)
        except ConnectionResetError:  # it was killed, and had not read all
            data = b""
        self.closed = self.closed or data == b""
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        return [message for message in map(_message, lines) if message]


def _message(line: bytes) -> dict[str, Any]:
    """What a line says; nothing when it is noise, as on a serial line before somebody has taken it over."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def json_line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def read(path: Path) -> dict[str, Any]:
    plan = json.loads(path.read_text())
    assert isinstance(plan, dict)
    return plan


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def data(text: str) -> bytes:
    return base64.b64decode(text)
