"""A YAML text, checked against a JSON Schema: plain values, and for each of them where it stands.

Of JSON Schema the words are known that schema.json has. Text stays as it was written: no number is text, and no text is a
number, a date or a time of day (YAML 1.2). Tags and aliases are refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from nslab.errors import SpecError

DocumentPath = tuple[str | int, ...]
Schema = Mapping[str, Any]

_CORE = "tag:yaml.org,2002:"
_TYPES = {
    "map": "object", "seq": "array", "str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null",
    "timestamp": "a date",
}  # fmt: skip
_WORDS = {
    "object": "keys and values", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number",
    "boolean": "true or false",
}  # fmt: skip


class Document:
    """The text of ``file``, as ``value``; SpecError naming line, column, the path of keys and the rule that it breaks."""

    def __init__(self, text: str, file: str, schema: Schema):
        self.file = file
        self._schema = schema
        self._places: dict[DocumentPath, tuple[int, int]] = {}
        self._seen: set[int] = set()
        self.value = self._checked(self._composed(text), schema, ())

    def error(self, path: DocumentPath, rule: str) -> SpecError:
        """What is wrong with the value that is reached by these keys."""
        while path not in self._places:
            path = path[:-1]
        return self._at(*self._places[path], f"{dotted(path)}: {rule}" if path else rule)

    def _at(self, line: int, column: int, rule: str) -> SpecError:
        return SpecError(f"{self.file}:{line}:{column}", rule)

    def _composed(self, text: str) -> Any:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            node = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = str(error.problem or error.context).replace("\\t", "a tab, which does not indent")
            raise self._at(mark.line + 1, mark.column + 1, f"is no YAML: {what}") from None
        except YAMLError as error:  # a character that no YAML may have
            before = text[: getattr(error, "position", 0)]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise self._at(line, column, f"is no YAML: {getattr(error, 'reason', error)}") from None
        except RecursionError:
            raise self._at(1, 1, "is nested too deeply") from None
        if node is None:
            raise self._at(1, 1, "is empty; it needs nodes and links")
        return node

    # -- one value ------------------------------------------------------------------------------------------------------

    def _checked(self, node: Any, schema: Schema, path: DocumentPath) -> Any:
        """The plain value of a node of the YAML."""
        self._places[path] = node.start_mark.line + 1, node.start_mark.column + 1
        schema = self._resolved(schema)
        kind = self._kind(node, path)
        if "anyOf" in schema:
            forms = {each.get("type", "string"): each for each in map(self._resolved, schema["anyOf"])}
            if kind not in forms:
                raise self.error(path, f"must be {' or '.join(map(_WORDS.__getitem__, forms))}")
            schema = forms[kind]
        wanted = schema.get("type", "string")
        if kind != wanted and (kind, wanted) != ("integer", "number"):
            quoted = f": {node.value!r}, in quotes" if wanted == "string" and isinstance(node.value, str) and node.value else ""
            raise self.error(path, f"must be {_WORDS[wanted]}{quoted}")
        if kind == "object":
            return self._mapping(node, schema, path)
        if kind == "array":
            return self._sequence(node, schema, path)
        choices = schema.get("enum", (node.value,))
        if node.value not in choices:
            raise self.error(path, f"{node.value!r} is none of {', '.join(choices)}{_nearest(node.value, choices)}")
        return _CONVERT.get(wanted, str)(node.value)

    def _kind(self, node: Any, path: DocumentPath) -> str:
        kind = _TYPES.get(node.tag.removeprefix(_CORE), "") if node.tag.startswith(_CORE) else ""
        if not kind:
            raise self.error(path, f"the tag {node.tag} is not for here: plain text, lists and keys will do")
        if not isinstance(node.value, str):
            if id(node) in self._seen:
                raise self.error(path, "an alias is not for here: write it out")
            self._seen.add(id(node))
        return kind

    def _resolved(self, schema: Schema) -> Schema:
        """What a reference to the definitions stands for."""
        if "$ref" in schema:
            found: Schema = self._schema["$defs"][schema["$ref"].rpartition("/")[2]]
            return found
        return schema

    def _mapping(self, node: Any, schema: Schema, path: DocumentPath) -> dict[str, Any]:
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        found: dict[str, Any] = {}
        for key, value in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if not isinstance(key.value, str):
                raise self._at(line, column, f"{dotted(path) or 'a key'}: a key must be text")
            inner = (*path, key.value)
            if key.value in found:
                first = self._places[inner][0]
                raise self._at(line, column, f"{dotted(inner)}: is there twice, in line {first} and in line {line}")
            if key.value not in known and others is False:
                rule = f"{dotted(inner)}: there is no such key; known: {', '.join(known)}"
                raise self._at(line, column, rule + self._meant(key.value, known))
            found[key.value] = self._checked(value, known.get(key.value, others), inner)
        if lacking := [key for key in schema.get("required", ()) if key not in found]:
            raise self.error(path, f"lacks {' and '.join(lacking)}")
        if not schema.get("minProperties", 0) <= len(found) <= schema.get("maxProperties", len(found)):
            raise self.error(path, f"must be one of {', '.join(known)}")
        return found

    def _sequence(self, node: Any, schema: Schema, path: DocumentPath) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", len(node.value))
        if not least <= len(node.value) <= most:
            count = str(least) if least == most else f"at least {least}"
            raise self.error(path, f"must be a list of {count}, not of {len(node.value)}")
        return [self._checked(each, schema["items"], (*path, number)) for number, each in enumerate(node.value)]

    def _meant(self, key: str, known: Mapping[str, Any]) -> str:
        """What may have been meant by a key that is not known here: a similar one, or one that belongs elsewhere."""
        if near := _nearest(key, known):
            return near
        places = [where for where, keys in _keys(self._schema, self._schema, "") if key in keys]
        return f". Did you mean {places[0] + '.' if places[0] else ''}{key}?" if places else ""


def _keys(schema: Schema, root: Schema, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The keys that a schema knows, by the place where they may stand."""
    known = schema.get("properties", {})
    if known:
        yield where, known
    for key, inner in known.items():
        yield from _keys(inner, root, f"{where}.{key}".lstrip("."))
    for inner in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]:
        yield from _keys(inner, root, where + ("[]" if "items" in schema else ""))


def dotted(path: DocumentPath) -> str:
    """("links", 0, "rate") -> "links[0].rate"."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f". Did you mean {near[0]}?" if near else ""


def _whole(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)  # 010 is ten


def _number(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _truth(text: str) -> bool:
    return text.lower() == "true"


_CONVERT = {"integer": _whole, "number": _number, "boolean": _truth}
