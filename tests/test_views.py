"""The pictures of snapshots, differences, traces and walks: what they show is what was seen, whatever it is called."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import nslab
from nslab.model import KINDS, Counters, IdMap, IdRange, InterfaceState, Mount, NamespaceId
from nslab.model.difference import Change, Difference
from nslab.model.packets import Hop, Packet, Walk
from nslab.model.snapshot import (
    CgroupContent,
    Holder,
    MountContent,
    NetContent,
    SeenInterface,
    SeenNamespace,
    SeenProcess,
    Snapshot,
    UserContent,
    UtsContent,
)  # fmt: skip
from nslab.render import VIEWS, Picture
from nslab.render.folding import fold
from nslab.render.owners_folding import Shown
from nslab.render.sequence import sequence
from nslab.trace import Step, Trace

NASTY = "<b>&amp;\"'\\N\n[1]{|}\udcff"
SHOWN = "<b>&amp;\"'\\N\\n[1]{|}\\xff"
MACHINE = {kind: NamespaceId(4, 100 + number) for number, kind in enumerate(KINDS)}


def ids(*lines: tuple[int, int, int]) -> UserContent:
    found = IdMap(tuple(IdRange(*line) for line in lines))
    return UserContent(found, found, "deny")


def mount(number: int, parent: int, target: str, fstype: str = "tmpfs", **peers: int) -> Mount:
    return Mount(number, parent, "0:1", "/", target, ("rw",), peers, fstype, fstype, ())


def snapshot(containers: int = 1, name: str = "web") -> Snapshot:
    """The machine with a shell; containers with user, uts, mnt and pid namespaces; "log" in the network of the first."""
    namespaces = [SeenNamespace(kind, each, 0, "", MACHINE["user"], 0, None, (1, 2), 1) for kind, each in MACHINE.items()]
    namespaces[list(KINDS).index("user")] = SeenNamespace(
        "user", MACHINE["user"], 0, "", None, 0, None, (1, 2), 1, content=ids((0, 0, 2**32 - 1)))  # fmt: skip
    machine_mounts = MountContent((mount(1, 0, "/", "ext4", shared=7), mount(2, 1, "/proc", "proc")), 1)
    namespaces[list(KINDS).index("mnt")] = replace(namespaces[list(KINDS).index("mnt")], content=machine_mounts)
    processes = [SeenProcess(pid, 0, title, "S", pid, 0, (title,), "", False, False, MACHINE, (pid,))
                 for pid, title in ((1, "init"), (2, "bash"))]  # fmt: skip
    net = NamespaceId(4, 999)
    for number in range(containers):
        title = f"container {name}{number or ''}"
        pid = 1000 + number
        mine = {kind: NamespaceId(4, 1000 + 10 * number + i) for i, kind in enumerate(("user", "uts", "mnt", "pid"))}
        inside = (mount(11, 0, "/", "overlay", master=7), mount(12, 11, "/proc", "proc"))
        content = {"user": ids((0, 100_000 + 10 * number, 10)), "uts": UtsContent(f"host{number}", "(none)"),
                   "mnt": MountContent(inside, pid)}  # fmt: skip
        above = {"user": MACHINE["user"], "pid": MACHINE["pid"]}
        for kind, identity in mine.items():
            owner = MACHINE["user"] if kind == "user" else mine["user"]
            namespaces.append(
                SeenNamespace(kind, identity, 0, "", owner, 0, above.get(kind), (pid,), pid, (), title, content.get(kind))
            )
        kinds = MACHINE | mine | ({"net": net} if number == 0 else {})
        processes.append(
            SeenProcess(
                pid, 2, "nslab-init", "S", pid, 0, ("nslab-init", name), "", False, False, kinds, (pid, 1), f"/{name}", title
            )
        )
    if containers:
        lo = InterfaceState("lo", 1, "loopback", "", 65536, False, False, 0, 0, (), Counters())
        lone = NetContent((SeenInterface(lo),), (), ())
        namespaces.append(
            SeenNamespace("net", net, 0, "", NamespaceId(4, 1000), 0, None, (1000, 900), 1000, (), f"container {name}", lone)
        )
        log = SeenProcess(
            900, 2, "log", "S", 3, 0, ("log",), "", False, False, MACHINE | {"net": net}, (900,), "", "container log"
        )
        processes.append(log)
        held = (Holder("descriptor", 2, "5"),)
        namespaces.append(SeenNamespace("uts", NamespaceId(4, 998), 0, "", MACHINE["user"], 0, None, (), 0, held))
    return Snapshot(0.0, "the machine", 2, MACHINE, tuple(namespaces), tuple(processes))


def shown(picture: Picture, tag: str = "text") -> list[str]:
    """The texts of its SVG; a space that does not break is a space here."""
    found = [element.text or "" for element in ElementTree.fromstring(picture.svg).iter() if element.tag.endswith(f"}}{tag}")]
    return [" ".join(text.split()) for text in found]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_whole_in_every_form(view: str) -> None:
    """Title, description, table, text, SVG: and nothing but ink, kinds and signs in it."""
    picture = nslab.draw(snapshot(3), view=view, title="T & t")
    root = ElementTree.fromstring(picture.svg)
    assert (root[0].text, root[1].text) == ("T & t", picture.about)
    assert len(picture.rows) > 1
    assert len({len(row) for row in picture.rows}) == 1
    html = picture._repr_mimebundle_()["text/html"]
    assert html.count("<table>") == 1
    assert "<details>" in html
    assert "web" in picture.text or view == "anatomy", "which is of one, and says so in its title"
    inks = {"currentColor", "#000000", "#ffffff", "black", "white", "none", "transparent", None}
    allowed = inks | {kind.colour.lower() for kind in KINDS.values()}
    assert {element.get(paint) for element in root.iter() for paint in ("fill", "stroke")} <= allowed


@pytest.mark.parametrize("view", VIEWS)
def test_case_e_a_view_shows_any_name_and_none_is_markup(view: str) -> None:
    picture = nslab.draw(snapshot(1, NASTY), view=view)
    assert [text for text in shown(picture) + shown(picture, "title") if SHOWN in text]
    assert "<b>" not in picture._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_snapshot_is_a_picture(view: str) -> None:
    machine = snapshot(0)
    if view == "anatomy":
        with pytest.raises(nslab.SpecError, match="nobody has a namespace but the machine's"):
            nslab.draw(machine, view=view)
    else:
        assert "<svg" in nslab.draw(machine, view=view).svg


def test_owners_shows_each_namespace_below_its_owner() -> None:
    picture = nslab.draw(snapshot(1), view="owners")
    assert "n_4_1000 -> n_4_1001" in picture.dot
    assert "n_4_101 ->" not in picture.dot
    assert f"n_4_{MACHINE['user'].ino} -> n_4_1000" in picture.dot
    assert "descriptor 5 of process 2" in picture.text, "what nobody is in is there too, with what holds it"
    lines = picture.text.splitlines()
    depth = {line.split(":")[0].strip(): len(line) - len(line.lstrip()) for line in lines if "container web" in line}
    assert depth["user"] < depth["uts"] == depth["pid"]


def test_sharing_joins_those_who_share_and_nobody_else() -> None:
    picture = nslab.draw(snapshot(3), view="sharing")
    assert picture.dot.count("net_999 -- ") == 2
    assert picture.dot.count(" -- ") == 2
    assert "shared by 2" in shown(picture)
    rows = {row[0]: row for row in picture.rows}
    assert "999 (shared)" in rows["900 container log"]
    assert "1010" in rows["1001 container web1"]


def test_processes_have_a_column_a_kind() -> None:
    picture = nslab.draw(snapshot(1), view="processes")
    rows = {row[0].split()[-2 if "web" in row[0] else -1]: row for row in picture.rows}
    assert rows["nslab-init"][3 + list(KINDS).index("uts")] == "1001"
    assert rows["bash"][3:] == ("",) * 8
    assert "1001" in shown(picture)


def test_pids_are_joined_to_what_they_are_above() -> None:
    picture = nslab.draw(snapshot(1), view="pids")
    assert "1000 nslab-init" in shown(picture)
    assert "1 nslab-init" in shown(picture)
    assert f"n_4_{MACHINE['pid'].ino}:p0:e -> n_4_1003:p0:w" in picture.dot.replace('"', "")


def test_ids_are_said_one_level_up() -> None:
    nested = snapshot(1)
    inner = SeenNamespace("user", NamespaceId(4, 50), 0, "", NamespaceId(4, 1000), 0, NamespaceId(4, 1000), (), 0,
                          content=ids((0, 100_003, 2)))  # fmt: skip
    picture = nslab.draw(replace(nested, namespaces=(*nested.namespaces, inner)), view="ids")
    assert "0 to 9 is 100000 to 100009 outside" in shown(picture)
    assert "0 to 1 is 3 to 4 outside" in shown(picture), "in the container above it is 3, here 100003"
    assert ("user:[50]", "", "0", "3", "100003", "2", "deny") in list(map(tuple, picture.rows))


def test_mounts_show_propagation_between_namespaces() -> None:
    picture = nslab.draw(snapshot(1), view="mounts")
    assert "ext4, shared 7" in shown(picture)
    assert "overlay, slave of 7" in shown(picture)
    assert [line for line in picture.dot.splitlines() if "m0_0 -> m1_0" in line], "from the master to its slave"


def test_between_the_frames_of_two_mount_namespaces_is_room() -> None:
    picture = nslab.draw(snapshot(4), view="mounts", most=None)
    clusters = [each for each in ElementTree.fromstring(picture.svg).iter() if each.get("class") == "cluster"]
    paths = [path.get("d", "") for each in clusters for path in each.iter() if path.tag.endswith("}path")]
    heights = [[float(pair.split(",")[1]) for pair in re.findall(r"[-.0-9]+,[-.0-9]+", path)] for path in paths]
    frames = sorted((min(each), max(each)) for each in heights)
    assert len(frames) == len(snapshot(4).of_kind("mnt")) > 3
    assert all(above[1] + 8 < below[0] for above, below in itertools.pairwise(frames))


def test_cgroups_are_a_tree_with_the_root_of_each_namespace() -> None:
    """Also where the reader sees some of it only from below ("/.."); of whom it is not known where he is is not shown."""
    two = snapshot(2)
    root = SeenNamespace(
        "cgroup", NamespaceId(4, 77), 0, "", MACHINE["user"], 0, None, (), 0, (), "", CgroupContent({"": "/a"})
    )
    places = ["", "/../x", "/a/b", "/a/c", "/a/c"]
    processes = tuple(replace(each, cgroup=place) for each, place in zip(two.processes, places, strict=True))
    picture = nslab.draw(replace(two, processes=processes, namespaces=(*two.namespaces, root)), view="cgroups")
    assert [row[0] for row in picture.rows[1:]] == ["/", "├─ ..", "│  └─ x", "└─ a", "   ├─ b", "   └─ c"]
    assert [row[1] for row in picture.rows[1:]] == [
        "",
        "",
        "bash 2",
        "",
        "container web 1000",
        "container web1 1001, container log 900",
    ]
    assert [row[0] for row in picture.rows if row[2] == "cgroup:[77]"] == ["└─ a"]
    assert "cgroup 77" in shown(picture)


def test_many_cgroups_are_folded() -> None:
    many = snapshot(100)
    places = {each.pid: f"/pod{each.pid}" for each in many.processes}
    machine = replace(many, processes=tuple(replace(each, cgroup=places[each.pid]) for each in many.processes))
    picture = nslab.draw(machine, view="cgroups")
    assert len(picture.rows) == 105
    assert "├─ 101 more" in shown(picture)
    assert "most=None" in picture.about


def test_anatomy_tells_its_own_from_the_machine_s() -> None:
    picture = nslab.draw(snapshot(2), view="anatomy", of="web1")
    whose = {row[0]: row[1] for row in picture.rows}
    assert {kind for kind, word in whose.items() if word == "its own"} == {"user", "uts", "mnt", "pid"}
    assert "host name host1" in shown(picture)
    with pytest.raises(nslab.SpecError, match="there are: container web, container web1"):
        nslab.draw(snapshot(2), view="anatomy", of="nobody")


def test_a_picture_of_one_container_leaves_the_others_out() -> None:
    picture = nslab.draw(snapshot(3), view="owners", of="web1")
    assert "1010" in picture.text
    assert "1020" not in picture.text
    with pytest.raises(nslab.SpecError, match="nothing of 'db'"):
        nslab.draw(snapshot(3), of="db")
    with pytest.raises(nslab.SpecError, match="none of owners, sharing"):
        nslab.draw(snapshot(1), view="nothing")
    with pytest.raises(nslab.SpecError, match="only a snapshot has views"):
        nslab.draw(Trace(), view="pids")


# -- large ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["owners", "sharing", "processes", "pids", "ids", "mounts"])
def test_a_large_picture_is_folded_and_can_be_unfolded(view: str) -> None:
    large = snapshot(40)
    folded, whole = (nslab.draw(large, view=view, most=most) for most in (20, None))
    assert [text for text in shown(folded) + shown(folded, "title") if " more" in text]
    assert len(shown(folded)) < len(shown(whole)) / 2
    assert not [text for text in shown(whole) if " more" in text]
    assert "most=None draws each" in folded.about
    assert "folded" not in whole.about
    assert "web39" in folded.text, "the table has them all"
    assert folded.rows == whole.rows


def test_owners_folds_whole_branches_and_counts_each_namespace() -> None:
    """What is drawn, what is folded and what is in the rest are all there are, whatever there is most of."""
    large = snapshot(40)
    strangers = [SeenNamespace(kind, NamespaceId(4, 5000 + i), 0, "", MACHINE["user"], 0, None, (), 0)
                 for i, kind in enumerate(("net", "uts", "mnt", "ipc") * 30)]  # fmt: skip
    crowded = replace(large, namespaces=(*strangers, *large.namespaces))
    for most in (150, 60, 30, 20):
        drawn = Shown(crowded, most)
        inside = {one.id for group in drawn.more.values() for head in group for one in drawn._branch(head)}
        counted = [*drawn.left, *inside, *(each.id for each in drawn.rest)]
        assert sorted(counted) == sorted(each.id for each in crowded.namespaces), most
        assert len(drawn.left) + len(drawn.more) <= most
        picture = nslab.draw(crowded, view="owners", most=most)
        assert picture.dot.count(" [label=") == len(drawn.left) + len(drawn.more) + bool(drawn.rest)
        assert ("-> rest" in picture.dot) == bool(drawn.rest), "which hangs on its owners"
        assert f"user  {MACHINE['user'].ino}" in " ".join(shown(picture)).replace("user ", "user  ")


def test_owners_folds_more_of_what_is_alike_before_it_leaves_a_branch_out() -> None:
    """Of five sorts of containers one each is drawn where two do not fit."""
    large = snapshot(40)
    users = [each for each in large.of_kind("user") if each.id not in MACHINE.values()]
    more = [SeenNamespace(kind, NamespaceId(4, 5000 + 10 * i + j), 0, "", user.id, 0, None, (), 0)
            for i, user in enumerate(users) for j, kind in enumerate(("ipc", "net", "cgroup", "time")[: i % 5])]  # fmt: skip
    drawn = Shown(replace(large, namespaces=(*large.namespaces, *more)), 60)
    assert drawn.rest == []
    sorts = [tuple(each.kind for each in drawn._branch(user)) for user in users if user.id in drawn.left]
    assert set(map(len, sorts)) == {4, 5, 6, 7, 8}
    fewer = Shown(replace(large, namespaces=(*large.namespaces, *more)), 30)
    assert fewer.rest, "what comes last, not what came first"
    assert users[0].id in fewer.left
    assert users[0].id not in {each.id for each in fewer.rest}


def test_fold_keeps_the_order_and_loses_nothing() -> None:
    items = [f"a{i}" for i in range(50)] + ["b", "c"] + [f"d{i}" for i in range(30)]
    for most in (None, 100, 60, 40, 8, 4, 1):
        groups = fold(items, lambda item: item[0], most)
        assert sorted(item for group in groups for item in group) == sorted(items)
        assert most is None or len(groups) <= most
        assert [group[0] for group in groups] == sorted((group[0] for group in groups), key=items.index)
    assert fold(items, lambda item: item[0], 60)[2] == items[2:50], "the largest first, and no more than is needed"
    assert ["b"] in fold(items, lambda item: item[0], 60)


def test_the_sequence_of_a_trace() -> None:
    steps = [Step("clone", ("CLONE_NEWUTS|CLONE_NEWPID",), 8, 0, 1.0, 0.001, 7),
             Step("write", ("'/proc/self/uid_map'", "'0 0 1\\n'"), None, 1, 1.002, 0.001, 8),
             *(Step("mount", (str(i),), 0, 0, 1.003, 0.001, 8, "why not") for i in range(100))]  # fmt: skip
    trace = Trace(steps)
    picture = nslab.draw(trace)
    assert {"uts", "pid", "user", "mnt", "✗ EPERM", "◷ mount × 100"} <= set(shown(picture))
    assert picture.rows[3][-1] == "why not"
    assert "◷ mount(99)" in shown(sequence(trace, most=None))
    assert "<svg" in nslab.draw(Trace()).svg


def test_a_difference_is_drawn_with_signs() -> None:
    uts = NamespaceId(4, 77)
    found = Difference(0.0, 1.0, (Change("appeared", "namespace", "uts:[77]", "uts", uts, after="1 member"),
                                  Change("changed", "host name", "", "uts", uts, before="a", after=NASTY),
                                  Change("vanished", "process", "12", before="sleep")))  # fmt: skip
    picture = nslab.draw(found)
    assert {"+", "~", "−", f"a → {SHOWN}", "uts:[77]"} <= set(shown(picture))
    assert picture.title == "What changed: 1 appeared, 1 vanished, 1 changed"
    many = Difference(0.0, 1.0, tuple(Change("appeared", "process", str(i), after="sleep") for i in range(100)))
    assert [text for text in shown(nslab.draw(many)) if text.endswith(" more")]
    assert "nothing changed" in shown(nslab.draw(Difference(0.0, 1.0, ())))


def test_the_walk_of_a_packet() -> None:
    def hop(time: float, node: str, direction: str, source: str, ttl: int, *changes: str) -> Hop:
        packet = Packet(
            time, node, "eth0", direction, source, "10.0.2.1", 0, 0, "ICMP", "echo request", ttl, "a", "b", "good", 98, b""
        )
        return Hop(1, time, node, "eth0", direction, packet, changes)

    natted = hop(0.002, "r", "out", "10.9.9.9", 63, "source 10.0.1.1 → 10.9.9.9")
    seen = (hop(0, "a", "out", "10.0.1.1", 64), hop(0.001, "r", "in", "10.0.1.1", 64), natted)
    walk = Walk(seen, {"a": "host", "r": "router"})
    picture = nslab.draw(walk)
    texts = shown(picture)
    assert {"a", "r", "→ eth0", "eth0 →"} <= set(texts)
    assert [text for text in texts if "10.9.9.9 → 10.0.2.1" in text and "⚑" in text]


def test_a_picture_needs_neither_kernel_nor_path() -> None:
    """The same picture from a snapshot that was saved, with an empty PATH, to the byte."""
    text = snapshot(2).to_json()
    saved = Snapshot.from_json(text)
    assert nslab.draw(saved, view="owners").dot == nslab.draw(snapshot(2), view="owners").dot
