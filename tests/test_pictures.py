"""Pictures: complete in every form, and never a traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

import nslab
from nslab.model import KINDS, Membership, NamespaceId, NamespaceMap
from nslab.render.namespace_map import namespace_map

MACHINE = {kind: NamespaceId(4, 4026531830 + number) for number, kind in enumerate(KINDS)}


def example(**facts: str) -> NamespaceMap:
    ids = dict(MACHINE) | {"uts": NamespaceId(4, 77), "user": NamespaceId(4, 78)}
    return NamespaceMap(MACHINE, (Membership("web", 1234, ids, ("uts", "user"), ("user",), facts),))


def test_each_kind_has_a_colour_and_a_shape_of_its_own() -> None:
    assert len({kind.colour for kind in KINDS.values()}) == len({kind.shape for kind in KINDS.values()}) == len(KINDS) == 8


def test_the_text_twin_says_what_the_picture_says() -> None:
    lines = {line.split()[0]: line for line in namespace_map(example()).text.splitlines()}
    assert "77 (own)" in lines["uts"]
    assert "78 (borrowed)" in lines["user"]
    assert "the same" in lines["net"]


@pytest.mark.requires("tool:dot")
def test_the_svg_is_well_formed_and_has_a_title() -> None:
    picture = namespace_map(example(**{"host name": "<b>&]]>"}), title="A <title> & more")
    root = ElementTree.fromstring(picture.svg)
    assert root[0].tag.endswith("title")
    assert root[0].text == "A <title> & more"
    texts = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    for number in ("77", "78", "1234", "<b>&]]>"):
        assert number in texts


@pytest.mark.requires("tool:dot")
@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("dot", b"digraph"), ("txt", b"kind")])
def test_a_picture_is_saved_by_its_suffix(tmp_path, suffix, start) -> None:
    path = tmp_path / f"map.{suffix}"
    namespace_map(example()).save(path)
    assert path.read_bytes().startswith(start)


def test_case_c13_html_needs_no_kernel() -> None:
    bundle = namespace_map(example())._repr_mimebundle_()
    assert {"text/plain", "text/html"} <= set(bundle)
    assert "web" in bundle["text/html"]
    assert "77" in bundle["text/html"]


def test_case_c14_without_dot_text_and_a_hint_take_its_place(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    picture = namespace_map(example())
    html = picture._repr_mimebundle_()["text/html"]
    assert "<svg" not in html
    assert "77 (own)" in html
    assert "apt-get install graphviz" in html
    with pytest.raises(nslab.Unavailable, match="graphviz"):
        _ = picture.svg
    assert "digraph" in picture.dot


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(nslab.SpecError, match="int cannot be drawn"):
        nslab.draw(3)
    with pytest.raises(nslab.SpecError, match="things"):
        nslab.draw()


def test_draw_shows_a_live_container_as_the_kernel_sees_it() -> None:
    with nslab.Container("web", isolate="uts", hostname="pictured") as web:
        picture = nslab.draw(web)
        inode = re.search(r"\d+", web.run("readlink /proc/self/ns/uts").stdout)
        assert inode and inode[0] in picture.text
        assert "pictured" in picture.dot
        calls = len(web.trace)
        nslab.draw(web)
        assert len(web.trace) == calls, "looking at a container must leave no step in its trace"


def test_render_needs_no_kernel_and_no_jupyter() -> None:
    code = "import sys, nslab.render; print([m for m in sys.modules if m.startswith(('IPython', 'nslab.'))])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "IPython" not in modules
    assert "nslab.spawner" not in modules
    assert "nslab.syscalls" not in modules
