"""Topologies in files: read, written, and refused with line, column and rule; the schema and the document that go with them."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

import nslab
from nslab import Topology
from nslab.topology import files
from tests.helpers import ROOT
from tests.test_topology import SHAPES, all_shapes

pytestmark = pytest.mark.unit

EVERYTHING = """\
name: every key
ipv6: false
nodes:
  a: host
  b: host
  r: router
  s: switch
  gw: nat
links:
  - [a, s]
  - ends: [gw, s]
    outside: gw
    up: false
  - ends: [r, s]
    subnet: 10.0.1.0/24
    addresses: {r: [10.0.1.5, 10.0.1.6]}
    names: {r: uplink}
    rate: 10mbit
  - ends: [b, r]
    subnet: [10.0.2.0/24, fd00:2::/64]
    addresses: {b: 10.0.2.9}
    delay: 5ms
    loss: 1.5%
"""


def valid(text: str) -> bool:
    """What a JSON Schema checker says, that of jsonschema."""
    checker = jsonschema.Draft202012Validator(files.schema())
    return bool(checker.is_valid(YAML(typ="safe", pure=True).load(text)))


@all_shapes
def test_there_and_back_again(shape) -> None:
    lab = SHAPES[shape]()
    text = lab.to_yaml()
    again = Topology.from_yaml(text)
    assert again.to_python() == lab.to_python()
    assert again.to_yaml() == text
    assert again.resolve() == lab.resolve()
    assert valid(text)
    code: dict[str, Topology] = {}
    exec(lab.to_python(), code)
    assert code["lab"].to_yaml() == text


def test_every_key_there_and_back_again() -> None:
    lab = Topology.from_yaml(EVERYTHING)
    assert lab.to_yaml() == EVERYTHING
    assert valid(EVERYTHING)
    by_hand = Topology("every key", ipv6=False)
    a, b, r, s = by_hand.host("a"), by_hand.host("b"), by_hand.router("r"), by_hand.switch("s")
    by_hand.link(a, s)
    by_hand.link(by_hand.nat("gw"), s, outside="gw", up=False)
    by_hand.link(r, s, subnet="10.0.1.0/24", addresses={r: ["10.0.1.5", "10.0.1.6"]}, names={r: "uplink"}, rate="10mbit")
    by_hand.link(b, r, subnet=["10.0.2.0/24", "fd00:2::/64"], addresses={b: "10.0.2.9"}, delay="5ms", loss="1.5%")
    assert lab.to_python() == by_hand.to_python()
    assert lab.resolve() == by_hand.resolve()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("shape: {single: 4}", lambda: Topology.single(4)),
        ("shape: {linear: 3}", lambda: Topology.linear(3)),
        ("shape: {ring: 3}", lambda: Topology.ring(3)),
        ("shape: {star: 2}", lambda: Topology.star(2)),
        ("shape: {tree: {fanout: 3, depth: 2}}", lambda: Topology.tree(depth=2, fanout=3)),
    ],
)
def test_shapes(text, same) -> None:
    lab, other = Topology.from_yaml(text, name="x"), same()
    other.name = "x"
    assert lab.to_python() == other.to_python()
    more = Topology.from_yaml(text + "\nnodes: {late: host}\nlinks: [[late, h1]]")
    assert more.links[-1].ends == (more["late"], more["h1"])
    assert valid(text)


def test_a_file_gives_its_name(tmp_path) -> None:
    path = tmp_path / "small.lab.yaml"
    path.write_text("nodes: {é: host}\n")
    assert Topology.read(path).name == "small"
    path.write_text("name: other\nnodes: {é: host}\n")
    assert Topology.read(str(path)).name == "other"
    assert list(Topology.read(path).nodes) == ["é"]
    path.write_bytes(b"name: \xff")
    with pytest.raises(nslab.SpecError, match="UTF-8, at byte 6"):
        Topology.read(path)
    with pytest.raises(nslab.SpecError, match="cannot be read: No such file"):
        Topology.read(tmp_path / "none.yaml")


def test_a_rootfs_is_sought_where_the_file_is(tmp_path) -> None:
    (tmp_path / "root").mkdir()
    file = tmp_path / "lab.yaml"
    file.write_text(
        "nodes:\n  a: {role: host, isolate: mnt, rootfs: root, limits: {pids: 010, cpu: .5}}\n"
        "  b: {role: host, isolate: mnt, rootfs: machine}\n"
    )
    lab = Topology.read(file)
    assert lab["a"].options() == {"isolate": "mnt", "rootfs": str(tmp_path / "root"), "limits": {"pids": 10, "cpu": 0.5}}
    again = Topology.from_yaml(lab.to_yaml())
    assert [node.options() for node in again] == [node.options() for node in lab]
    mounted = Topology()
    mounted.host("a", mounts=[nslab.Bind("/etc", "/mnt")], isolate="mnt")
    with pytest.raises(nslab.SpecError, match=r"node 'a': its mounts cannot be told in a text"):
        mounted.to_yaml()


AB = "nodes: {a: host, b: host}\nlinks:\n  - ends: [a, b]\n    "
WRONG = {
    # what a checker of the schema finds too
    "nodes: {a: hots}": r"1:12: nodes\.a: 'hots' is none of host, router, nat, switch\. Did you mean host\?",
    "nodes: {a: 5}": r"1:12: nodes\.a: must be text or keys and values",
    "nodes:\n  a: host\n  b: {}": r"3:6: nodes\.b: lacks role",
    "nodes: [a]": r"1:8: nodes: must be keys and values",
    "node: {a: host}": r"1:1: node: there is no such key; known: name, .*Did you mean nodes\?",
    "rate: 5mbit": r"1:1: rate: there is no such key.*Did you mean links\[\]\.rate\?",
    "links: {}": r"1:8: links: must be a list",
    "links: [a]": r"1:9: links\[0\]: must be a list or keys and values",
    "links: [[a]]": r"1:9: links\[0\]: must be a list of 2, not of 1",
    "links: [{rate: 5mbit}]": r"1:9: links\[0\]: lacks ends",
    AB + "rat: 5mbit": r"4:5: links\[0\]\.rat: there is no such key.*Did you mean rate\?",
    AB + "rate: 5": r"4:11: links\[0\]\.rate: must be text: '5', in quotes",
    AB + "subnet: []": r"4:13: links\[0\]\.subnet: must be a list of at least 1",
    AB + "names: {a: 0x10}": r"4:16: links\[0\]\.names\.a: must be text",
    "name: 5.0": r"1:7: name: must be text: '5.0', in quotes",
    "name: 2001-01-01": r"1:7: name: must be text",
    "name:": r"1:6: name: must be text",
    "ipv6: 1": r"1:7: ipv6: must be true or false",
    "ipv6: yes": r"1:7: ipv6: must be true or false",
    "shape: {ring: three}": r"1:15: shape\.ring: must be a whole number",
    "nodes: {a: {role: host, limits: {cpu: much}}}": r"1:39: nodes\.a\.limits\.cpu: must be a number",
    "nodes: {a: {role: host, rootfs: 5}}": r"1:33: nodes\.a\.rootfs: must be text",
    "shape: {tree: {depth: 2}}": r"1:15: shape\.tree: lacks fanout",
    "shape: {}": r"1:8: shape: must be one of single, linear",
    "shape: {ring: 3, star: 2}": r"1:8: shape: must be one of",
    "- a": r"1:1: must be keys and values",
    # what only the reader finds
    "shape: {ring: 2}": r"1:15: shape\.ring: routers: 2 does not lie between 3",
    "nodes: {a: host, A: host}": r"1:21: nodes\.A: node 'A': is 'a' to a resolver",
    "nodes: {SW_SUPERVISOR_1x: host}": r"1:27: nodes\.SW_SUPERVISOR_1x: .* 16 bytes",
    "links: [[a, b]]": r"1:9: links\[0\]: node 'a': is not in this topology",
    AB + "rate: 5mm": r"4:11: links\[0\]\.rate: link a--b: rate '5mm' is not a number",
    AB + "subnet: 10.0.0.0": r"4:13: links\[0\]\.subnet: link a--b: .* no length",
    AB + "subnet: 10.0.0.0/24\n    addresses: {a: 10.0.1.1}": r"3:5: links\[0\]: link a--b, node 'a': .* outside the subnet",
    # what is no such YAML
    "": "1:1: is empty",
    "# nothing": "1:1: is empty",
    "nodes:\n\ta: host": "2:1: is no YAML: found character 'a tab",
    "nodes:\n  a: host\n b: host": "3:2: is no YAML",
    "nodes:\n\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}a: host": "2:1: ",
    "name: a\n---\nname: b": "2:1: is no YAML: but found another document",
    "name: [a": "1:9: is no YAML",
    "name: a\nnodes: \x07": "2:8: is no YAML",
    "x: " + "[" * 500: "1:1: is nested too deeply",
    "name: !!python/object/apply:os.system [id]": r"1:7: name: the tag \S+os\.system is not for here",
    "nodes: &x {a: host}\nlinks: *x": "1:8: links: an alias is not for here",
    "nodes: {a: host}\n<<: {name: x}": "2:1: <<: there is no such key",
    "? [a]\n: b": "1:3: a key: a key must be text",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[:40]))
def test_F14_F23_what_cannot_be_is_named_with_line_and_column(text) -> None:
    with pytest.raises(nslab.SpecError, match="^text:" + WRONG[text]):
        Topology.from_yaml(text)


def test_F15_a_key_that_is_there_twice() -> None:
    with pytest.raises(nslab.SpecError, match=r"^text:3:3: nodes\.r1: is there twice, in line 2 and in line 3"):
        Topology.from_yaml("nodes:\n  r1: host\n  r1: router\n")


def test_F17_text_stays_text() -> None:
    lab = Topology.from_yaml(
        "name: 52:54:00:12:34:56\nnodes: {on: host, no: host}\nlinks: [{ends: [on, no], names: {on: yes, no: 1-2}}]"
    )
    assert lab.name == "52:54:00:12:34:56"
    assert lab.links[0].names == {"on": "yes", "no": "1-2"}


def test_the_schema_refuses_what_the_reader_refuses_for_its_form() -> None:
    jsonschema.Draft202012Validator.check_schema(files.schema())
    texts = list(WRONG)
    formal = texts[: texts.index("shape: {ring: 2}")]
    assert [text for text in formal if valid(text)] == []
    others = texts[len(formal) : texts.index("")]
    assert [text for text in others if not valid(text)] == []


def test_the_document_has_every_key_with_the_words_of_the_schema() -> None:
    text = (ROOT / "docs/files.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE)
    assert rows == list(described(files.schema(), ""))
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert Topology.from_yaml(example).to_yaml() == example
    assert Path(files.SCHEMA).is_file()


def described(schema, where):
    """(path, description) of each key of the schema, in its order."""
    definitions = files.schema()["$defs"]
    filled = {**definitions[schema["$ref"].rpartition("/")[2]], **schema} if "$ref" in schema else schema
    for key, inner in filled.get("properties", {}).items():
        yield f"{where}{key}", inner.get("description") or definitions[inner["$ref"].rpartition("/")[2]]["description"]
        yield from described(inner, f"{where}{key}.")
    if isinstance(filled.get("additionalProperties"), dict):
        yield from described(filled["additionalProperties"], f"{where}*.")
    for form in filled.get("anyOf", ()):
        yield from described(form, where)
    if "items" in filled:
        yield from described(filled["items"], f"{where[:-1]}[].")
