"""Topologies in files: YAML of few keys, described by schema.json."""

from __future__ import annotations

import functools
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nslab.errors import SpecError
from nslab.topology import shapes
from nslab.topology.document import Document, DocumentPath

if TYPE_CHECKING:
    from nslab.topology.node import Node
    from nslab.topology.topology import Topology

    Locate = Callable[[DocumentPath, str], SpecError]
    Made = TypeVar("Made", bound=Topology)

SCHEMA = Path(__file__).with_name("schema.json")
ROOTS = ("machine", "busybox")  # words for a rootfs; others are paths
WIDTH = 120  # of a line, where it can be folded


@functools.cache
def schema() -> Any:
    """The JSON Schema of such a file, read."""
    return json.loads(SCHEMA.read_bytes())


def load(path: str | os.PathLike[str]) -> tuple[str, str]:
    """The text of a file, and the name of a topology that has none of its own: that of the file without its ending."""
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise SpecError(os.fspath(path), f"is not UTF-8, at byte {error.start}") from None
    except OSError as error:
        raise SpecError(os.fspath(path), f"cannot be read: {error.strerror}") from None
    return text, Path(path).name.partition(".")[0]


def build(empty: type[Made], text: str, name: str, file: str) -> Made:
    """The topology that a text describes, resolved once: SpecError saying in which line of ``file`` what cannot be stands."""
    document = Document(text, file, schema())
    nodes = document.value.get("nodes", {}).values()
    for options in (each for each in nodes if isinstance(each, dict) and each.get("rootfs") not in (None, *ROOTS)):
        options["rootfs"] = os.path.join(os.path.dirname(os.path.abspath(file)), options["rootfs"])
    made = construct(empty, {"name": name, **document.value}, document.error)
    try:
        made.resolve()
    except SpecError as error:
        first = len(made.links) - len(document.value.get("links", ()))
        paths: list[DocumentPath] = [("links", at) for at, link in enumerate(made.links[first:]) if str(link) in error.argument]
        paths += [("nodes", node) for node in made.nodes if f"node {node!r}" in error.argument]
        raise document.error([*paths, ()][0], str(error)) from None
    return made


def construct(empty: type[Made], asked: Mapping[str, Any], locate: Locate | None = None) -> Made:
    """The topology that the plain values of such a text describe; ``locate`` makes an error of a path and a rule."""
    made = empty(asked.get("name", ""), ipv6=asked.get("ipv6", True))
    for kind, values in asked.get("shape", {}).items():
        with _Located(locate, ("shape", kind)):
            make = getattr(shapes, kind)
            make(made, **values) if isinstance(values, dict) else make(made, values)
    for node, what in asked.get("nodes", {}).items():
        options = {"role": what} if isinstance(what, str) else dict(what)
        with _Located(locate, ("nodes", node), options):
            getattr(made, options.pop("role"))(node, **options)
    for number, link in enumerate(asked.get("links", ())):
        options = dict(link) if isinstance(link, dict) else {"ends": link}
        ends = options.pop("ends")
        with _Located(locate, ("links", number), options):
            made.link(*ends, **options)
    return made


class _Located:
    """Says where stands what is refused here: at ``path`` of a document, or below that at one of ``keys`` that is named."""

    def __init__(self, locate: Locate | None, path: DocumentPath, keys: Iterable[str] = ()):
        self.locate = locate
        self.path = path
        self.keys = keys

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, SpecError) and self.locate:
            named = [key for key in self.keys if key in re.findall(r"\w+", str(error))][:1]
            raise self.locate((*self.path, *named), str(error)) from None


def describe(topology: Topology) -> dict[str, Any]:
    """The plain values from which construct() makes it again."""
    data: dict[str, Any] = {"name": topology.name} if topology.name else {}
    data |= {} if topology.ipv6 else {"ipv6": False}
    links: list[Any] = []
    for link in topology.links:
        ends, options = [end.name for end in link.ends], link.options()
        links.append({"ends": ends, **options} if options else ends)
    nodes = {node.name: _described(node) for node in topology}
    return data | ({"nodes": nodes} if nodes else {}) | ({"links": links} if links else {})


def _described(node: Node) -> str | dict[str, Any]:
    """Its role, or what is asked for besides; SpecError for what no text stands for."""
    options = node.options()
    if any(not isinstance(mount, str) for mount in options.get("mounts", ())):
        raise SpecError(f"node {node.name!r}", "its mounts cannot be told in a text: give them in short, /source:/target:ro")
    if options.get("rootfs") not in (None, *ROOTS):
        options["rootfs"] = os.path.abspath(options["rootfs"])
    return {"role": node.role, **options} if options else node.role


def dump(topology: Topology) -> str:
    """A topology as such a text, from which build() makes the same again."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def flow(value: Any) -> Any:
        """What is short in one line: [a, b]."""
        if isinstance(value, dict):
            made: Any = CommentedMap({key: flow(each) for key, each in value.items()})
        elif isinstance(value, list | tuple):
            made = CommentedSeq(map(flow, value))
        else:
            return value
        made.fa.set_flow_style()
        return made

    data = describe(topology)
    data |= {"nodes": {name: flow(what) for name, what in data["nodes"].items()}} if "nodes" in data else {}
    data["links"] = [
        {key: flow(value) for key, value in link.items()} if isinstance(link, dict) else flow(link)
        for link in data.get("links", ())
    ]
    yaml = YAML()
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(data if data["links"] else {key: data[key] for key in data if key != "links"}, out)
    return out.getvalue()
