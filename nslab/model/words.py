"""Text of others, made fit to be shown."""

from __future__ import annotations


def readable(text: str) -> str:
    """The text on one line of plain characters: others as escapes, an undecodable byte as \\xNN."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()
