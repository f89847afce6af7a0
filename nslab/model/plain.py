"""Frozen values as plain data that JSON can hold, and back: by the types that their fields are declared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nslab.model import KINDS


def to_plain(value: Any) -> Any:
    """Dataclasses and named tuples as dicts and lists. Text that is no UTF-8 keeps its surrogates: JSON escapes them."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [to_plain(each) for each in value]
    return value


def from_json(wanted: Any, text: str) -> Any:
    """A value of the dataclass ``wanted`` from JSON; ValueError, which says why, for what is none."""
    name = wanted.__name__.lower()
    try:
        data = json.loads(text)
        if isinstance(data, dict) and data.get("version", 1) != 1:
            raise ValueError(f"this is no {name} that this nslab reads: it is of version {data['version']}, not 1")
        return from_plain(wanted, data)
    except (TypeError, KeyError, RecursionError) as error:
        why = f"what is {error}?" if isinstance(error, KeyError) else error
        raise ValueError(f"this is no {name} of nslab: {why}") from None


def must_be_kinds(names: Iterable[str]) -> None:
    """ValueError for what is none."""
    if unknown := sorted(set(names) - set(KINDS)):
        raise ValueError(f"{unknown[0]!r} is no kind of namespace")


def from_plain(wanted: Any, data: Any) -> Any:
    """``data`` as a value of the type ``wanted``. Of several dataclasses the one that has the names of ``data``.

    TypeError or KeyError for what cannot be one.
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        if not isinstance(data, dict | list):
            return _must_be(inner, data)
        among = [each for each in inner if each is not type(None)]
        return from_plain(next((each for each in among if _fits(each, data)), among[0]), data)
    if origin in (tuple, Sequence):
        return tuple(from_plain(inner[0], each) for each in _must_be(list, data))
    if origin is Mapping:
        return {key: from_plain(inner[1], each) for key, each in _must_be(dict, data).items()}
    if isinstance(wanted, type) and is_dataclass(wanted):
        hints = _hints(wanted)
        return wanted(**{name: from_plain(hints[name], each) for name, each in _must_be(dict, data).items()})
    if issubclass(wanted, tuple):
        return wanted(*_must_be(list, data))
    return _must_be((int, float) if wanted is float else wanted, data)


def _must_be(wanted: type | tuple[type, ...], data: Any) -> Any:
    if not isinstance(data, wanted):
        said = repr(data)
        raise TypeError(f"{said if len(said) < 60 else said[:59] + '…'} stands where something else should")
    return data


def _fits(wanted: Any, data: Any) -> bool:
    return (
        is_dataclass(wanted) and isinstance(data, dict) and {field.name for field in fields(wanted) if field.init} == set(data)
    )


@cache
def _hints(wanted: Any) -> dict[str, Any]:
    return get_type_hints(wanted)
