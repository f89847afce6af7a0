"""Snapshots and differences as values: whatever is in them comes back from JSON, and can be shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nslab.model import Counters, IdMap, IdRange, InterfaceState, IpcObject, Mount, NamespaceId, Route
from nslab.model.difference import Change, Difference
from nslab.model.snapshot import (
    CgroupContent,
    Holder,
    IpcContent,
    Listener,
    MountContent,
    NetContent,
    SeenInterface,
    SeenNamespace,
    SeenProcess,
    Snapshot,
    TimeContent,
    Unseen,
    UserContent,
    UtsContent,
)
from nslab.observe import diff

pytestmark = pytest.mark.unit

ODD = "a\nb <&> [x] \udcc3("  # a newline, what HTML and rich would read, and a byte that is no UTF-8
USER, NET = NamespaceId(4, 5), NamespaceId(4, 6)
CONTENTS = (
    None,
    UtsContent(ODD, "(none)"),
    UserContent(IdMap((IdRange(0, 1000, 1),)), IdMap(()), "deny"),
    TimeContent(86400.0, -1.5),
    MountContent((Mount(1, 0, "0:1", "/", ODD, ("rw",), {"shared": 3}, "tmpfs", "", ("rw", "a b")),), 7),
    IpcContent((IpcObject("shm", 1, 2, "", 0o600, 0, 4096, 1),)),
    CgroupContent({"": "/x"}),
    NetContent(
        (SeenInterface(InterfaceState("v", 2, "veth", "", 1500, True, True, 0, 2, ("10.0.0.1/24",), Counters(1)), NET, 5),),
        (Route("default", 4, "10.0.0.2", 2, "", 0, "unicast"),),
        (Listener("tcp", "::", 80),),
    ),
)


def example() -> Snapshot:
    return Snapshot(
        1.5, "the machine", 7, {"user": USER},
        tuple(
            SeenNamespace("user", USER, number, f"user {number}", None if number else USER, 0, None, (7,), 7,
                          (Holder("mount", 7, ODD),), ODD, content)
            for number, content in enumerate(CONTENTS)
        ),
        (SeenProcess(7, 1, ODD, "S", 99, 0, (ODD, ""), "/bin/x (deleted)", True, False, {"user": USER}, (7, 1)),),
        (Unseen("processes", 3, "they belong to others"),), 2,
    )  # fmt: skip


def test_a_snapshot_comes_back_from_json() -> None:
    text = example().to_json()
    assert Snapshot.from_json(text) == example()
    text.encode()  # valid UTF-8
    assert json.loads(text)["processes"][0]["pids"] == [7, 1]


@pytest.mark.parametrize("text", ["[]", "{}", "3", "null", '"namespaces"', "[" * 100_000, '{"version": 2, "namespaces": []}'])
def test_what_is_no_snapshot_is_refused(text) -> None:
    with pytest.raises(ValueError, match="no snapshot"):
        Snapshot.from_json(text)


def replaced(text: str, *path: str | int, value: object) -> str:
    """JSON with another value at one place."""
    data = json.loads(text)
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("taken",), "soon"), (("namespaces",), 3), (("namespaces", 0), []), (("namespaces", 0, "kind"), "host"),
        (("namespaces", 0, "id"), 4), (("namespaces", 0, "members"), "7"), (("namespaces", 1, "content"), {"colour": 1}),
        (("processes", 0, "kinds"), []), (("processes", 0, "kinds"), {"host": [4, 5]}), (("processes", 0, "size"), 1),
        (("processes", 0, "pid"), "7"), (("machine",), None),
    ],
)  # fmt: skip
def test_a_snapshot_with_something_else_in_it_is_refused(path, value) -> None:
    with pytest.raises(ValueError, match=r"no snapshot|no kind"):
        Snapshot.from_json(replaced(example().to_json(), *path, value=value))


def test_processes_of_a_difference_are_in_order() -> None:
    one = replace(example(), processes=tuple(replace(example().processes[0], pid=pid) for pid in range(1, 300, 2)))
    two = replace(one, processes=tuple(replace(each, pid=each.pid + 1) for each in one.processes))
    assert [change.subject for change in diff(one, two).of(sort="process")] == [str(pid) for pid in range(1, 301)]


@pytest.mark.parametrize("name", ["nslab-spawner", "nslab-watchdog"])
def test_helpers_neither_appear_nor_vanish(name: str) -> None:
    """They come with the first need of whoever runs nslab, and go with him."""
    one = replace(example(), processes=(replace(example().processes[0], name=name),))
    none = replace(one, processes=())
    assert not diff(none, one).of(sort="process")
    assert not diff(one, none).of(sort="process")
    moved = replace(one, processes=(replace(one.processes[0], kinds={"user": NET}),))
    assert [change.after for change in diff(one, moved).of(sort="process")] == ["user:[6]"]


def test_what_is_no_difference_is_refused() -> None:
    text = Difference(1.5, 2, (Change("appeared", "namespace", "uts:[6]", "uts", NET),)).to_json()
    assert Difference.from_json(text).after == 2
    for broken in ("[]", "null", "{}", text[:-1], replaced(text, "changes", 0, "kind", value="host")):
        with pytest.raises(ValueError, match=r"no difference|no kind|Expecting"):
            Difference.from_json(broken)


def test_case_e08_e09_names_of_others_cannot_break_a_table() -> None:
    bundle = example()._repr_mimebundle_()
    for text in bundle.values():
        text.encode()
    assert "a\\nb" in bundle["text/plain"]
    assert "<&>" not in bundle["text/html"]
    assert len(bundle["text/plain"].splitlines()) == 1 + len(CONTENTS) + 1, "a line a namespace, and what was not seen"


def test_a_difference_says_what_and_where() -> None:
    changes = (
        Change("appeared", "namespace", "net:[6]", "net", NET, after="1 member"),
        Change("changed", "host name", "", "uts", NET, "a", ODD),
        Change("vanished", "process", "7", before=ODD),
    )
    found = Difference(1.0, 2.0, changes)
    assert Difference.from_json(found.to_json()) == found
    assert str(found).splitlines()[0] == "+ namespace net:[6]: 1 member"
    assert found.of(how="changed") == changes[1:2] == found.of(kind="uts")
    assert len(str(found).splitlines()) == len(found) == 3
    assert "<&>" not in found._repr_mimebundle_()["text/html"]
    assert not Difference(1.0, 2.0, ())
