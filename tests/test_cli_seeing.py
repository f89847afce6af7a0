"""nslab ls, tree, diff and watch: lsns and the snapshots themselves are the oracles."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import nslab
from nslab.cli.diff import diff
from nslab.cli.draw import draw
from nslab.cli.ls import ls
from nslab.cli.tree import tree
from nslab.cli.watch import watch
from nslab.model.difference import Difference
from nslab.model.snapshot import Snapshot
from tests.helpers import ROOT

COMMAND = [sys.executable, "-m", "nslab.cli"]
ENV = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)}


@pytest.fixture(autouse=True)
def wide(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_ls_json_has_all_namespaces_of_containers_and_a_lab() -> None:
    with nslab.Container("web", isolate="all") as web, nslab.Topology.single(2).deploy() as lab:
        found = json.loads(subprocess.run([*COMMAND, "ls", "--json"], capture_output=True, text=True, env=ENV).stdout)
        namespaces = {tuple(each["id"]): each for each in found["namespaces"]}
        for kind, identity in web.namespaces.ids().items():
            assert namespaces[identity]["kind"] == kind
            assert namespaces[identity]["belongs"] == "container web"
        for identity in lab.held():
            assert namespaces[identity]["holders"][0]["sort"] == "descriptor"
        assert web.pid in {each["pid"] for each in found["containers"]}
        assert "unseen" in found


def test_ls_filters_and_columns(capsys) -> None:
    with nslab.Container("shop-7", isolate="uts net") as shop, nslab.Container("other", isolate="uts"):
        with shop.namespaces["uts"] as uts:
            ls(kind=["uts"], of="shop-7", columns="inode,belongs")
            head, *rows = capsys.readouterr().out.splitlines()
            assert head.split() == ["inode", "belongs"]
            assert rows[0].split() == [str(uts.id.ino), "container", "shop-7"]
            assert all("not seen" in row for row in rows[1:])
        ls(of="shop-7", as_json=True)
        assert {each["kind"] for each in json.loads(capsys.readouterr().out)["namespaces"]} >= {"uts", "net"}


def test_a_table_of_ls_loses_nothing(capsys, monkeypatch) -> None:
    """A narrow terminal folds what is text, and no number; without a terminal a line stays one."""
    name = "a-container-with-a-name-that-is-wider-than-all-of-a-narrow-terminal-and-than-the-eighty-columns-too"
    with nslab.Container(name, isolate="uts") as web, web.namespaces["uts"] as uts:
        monkeypatch.setenv("COLUMNS", "40")
        ls(of=name, columns="kind, inode, owner, members, belongs")
        said = capsys.readouterr().out
        assert {"belongs", "uts", str(uts.id.ino), str(uts.owner.id.ino)} <= set(said.split())
        assert f"container{name}" in "".join(line[36:].strip() for line in said.splitlines()[1:])
        monkeypatch.delenv("COLUMNS")
        ls(of=name)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if str(uts.id.ino) in line]
        assert f"container {name} " in line


def test_a_file_that_cannot_be_written_is_no_traceback(tmp_path) -> None:
    with pytest.raises(nslab.SpecError, match=r"--save: .* cannot be written: No such file"):
        ls(save=tmp_path / "nowhere" / "all.json")
    with pytest.raises(nslab.SpecError, match=r"--output: .* cannot be written: No such file"):
        draw(output=tmp_path / "nowhere" / "map.svg")
    with pytest.raises(nslab.SpecError, match=r"draws no \.odd: use \.svg"):
        draw(output=tmp_path / "map.odd")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"namespaces"', "[" * 100_000, "\udcff"])
def test_draw_says_of_a_file_that_nothing_can_be_drawn_of_it(tmp_path, text) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(nslab.SpecError, match="no snapshot and no difference"):
        draw(str(file))


def test_draw_names_what_is_neither_a_file_nor_a_lab(tmp_path) -> None:
    with pytest.raises(nslab.SpecError, match="WHAT: nolab is neither a file nor a lab that is up"):
        draw("nolab")
    file = tmp_path / "two.yaml"
    file.write_text(nslab.Topology.single(2).to_yaml())
    for options in ({"view": "sharing"}, {"of": "h1"}):
        with pytest.raises(nslab.SpecError, match=r"a lab has one picture.*nslab draw --of"):
            draw(str(file), **options)


def test_a_terminal_without_the_signs_is_no_traceback() -> None:
    env = ENV | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "draw", "--view", "processes"], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2514\\u2500 " in done.stdout


def test_ls_saves_a_snapshot_of_all(tmp_path) -> None:
    ls(save=tmp_path / "all.json")
    saved = Snapshot.from_json((tmp_path / "all.json").read_text())
    assert (saved.scope, os.getpid() in saved.by_pid) == ("the machine", True)


@pytest.mark.parametrize("options", [{"kind": ["host"]}, {"columns": "colour"}])
def test_ls_refuses_what_it_does_not_have(options) -> None:
    with pytest.raises(nslab.SpecError, match="none of"):
        ls(**options)


def test_trees_of_owners_and_of_processes(capsys) -> None:
    def nodes(tree: dict) -> list[dict]:
        return [tree, *(node for child in tree["children"] for node in nodes(child))]

    with nslab.Container("web", isolate="user uts pid") as web, web.namespaces["user"] as user, web.namespaces["uts"] as uts:
        tree(as_json=True)
        tops = json.loads(capsys.readouterr().out)
        (made,) = [node for top in tops for node in nodes(top) if node["namespace"] == str(user)]
        assert made["belongs"] == "container web"
        assert any(text.startswith(str(uts)) for text in made["holds"])
        tree("user")
        assert f"{uts}  1 member, container web" in capsys.readouterr().out
        tree("pid")
        assert f"{web.pid}/1 nslab-init web" in capsys.readouterr().out
    with pytest.raises(nslab.SpecError, match="neither user nor pid"):
        tree("net")


def test_diff_of_two_snapshots_in_files(tmp_path, capsys) -> None:
    one, two = tmp_path / "a.json", tmp_path / "b.json"
    one.write_text(nslab.discover(os.getpid()).to_json())
    with nslab.Container("web", isolate="uts", hostname="web") as web, web.namespaces["uts"] as uts:
        two.write_text(nslab.discover(os.getpid()).to_json())
        assert uts.id in Snapshot.from_json(two.read_text()).by_id
    diff(one, two)
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"+ namespace {uts}: ") and "host name web" in line for line in said)
    diff(one, two, as_json=True)
    found = Difference.from_json(capsys.readouterr().out)
    assert uts.id in {each.namespace for each in found.of(how="appeared", sort="namespace", kind="uts")}
    diff(one, one)
    assert capsys.readouterr().out == "nothing changed\n"
    two.write_text("[]")
    with pytest.raises(nslab.SpecError, match="no snapshot"):
        diff(two)


def test_watch_prints_what_changes_until_it_is_interrupted(capsys, monkeypatch) -> None:
    with nslab.process() as steered:
        steered.unshare("uts")
        names = iter(("one", "two"))

        def pause(seconds: float) -> None:
            assert seconds == 0.5
            if (name := next(names, "")) == "":
                raise KeyboardInterrupt
            steered.sethostname(name)

        monkeypatch.setattr("nslab.cli.watch.time.sleep", pause)
        watch(interval=0.5, of=steered.pid)
        said = capsys.readouterr().out
        assert "→ one" in said
        assert "one → two" in said
        names = iter(("three",))
        watch(interval=0.5, count=1, of=steered.pid, as_json=True)
        (change,) = Difference.from_json(capsys.readouterr().out).of(sort="host name")
        assert (change.before, change.after) == ("two", "three")
