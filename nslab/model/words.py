"""Text of others, made fit to be shown, and numbers as words."""

from __future__ import annotations


def readable(text: str) -> str:
    """The text on one line of plain characters: others as escapes, an undecodable byte as \\xNN."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))


def shift(seconds: float) -> str:
    """The offset of a clock, in the units that ``clock=`` takes: "+365d", "-1h 30m", "+0.5s", "+0s"; to a microsecond."""
    rest, parts = round(abs(seconds) * 1e6), []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size * 10**6)
        parts += [f"{count}{unit}"] if count else []
    if rest or not parts:
        parts.append(f"{rest / 1e6:f}".rstrip("0").rstrip(".") + "s")
    return ("-" if seconds < 0 else "+") + " ".join(parts)
