"""Frozen values as plain data that JSON can hold, and back: by the types that their fields are declared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def to_plain(value: Any) -> Any:
    """Dataclasses and named tuples as dicts and lists. Text that is no UTF-8 keeps its surrogates: JSON escapes them."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    return value


def from_plain(wanted: Any, data: Any) -> Any:
    """``data`` as a value of the type ``wanted``. Of several dataclasses the one that has the names of ``data``."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        if data is None or not isinstance(data, dict | list):
            return data
        among = [each for each in inner if each is not type(None)]
        return from_plain(next((each for each in among if _fits(each, data)), among[0]), data)
    if origin is tuple:
        return tuple(from_plain(inner[0], each) for each in data)
    if origin is Mapping:
        return {key: from_plain(inner[1], each) for key, each in data.items()}
    if isinstance(wanted, type) and is_dataclass(wanted):
        hints = _hints(wanted)
        return wanted(**{name: from_plain(hints[name], each) for name, each in data.items()})
    if isinstance(wanted, type) and issubclass(wanted, tuple):
        return wanted(*data)
    return data


def _fits(wanted: Any, data: Any) -> bool:
    return (
        is_dataclass(wanted) and isinstance(data, dict) and {field.name for field in fields(wanted) if field.init} == set(data)
    )


@cache
def _hints(wanted: Any) -> dict[str, Any]:
    return get_type_hints(wanted)
