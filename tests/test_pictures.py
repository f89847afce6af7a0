"""Pictures: complete in every form, and never a traceback."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

import nslab
from nslab.model import KINDS, Membership, NamespaceId, NamespaceMap
from nslab.render import engine, style
from nslab.render.namespace_map import namespace_map
from nslab.render.picture import Picture
from tests.helpers import lsns

PAGES = {"light": ("#ffffff", "#212121"), "dark": ("#111111", "#ffffff")}  # JupyterLab's, and its ink on them
NASTY = "<b>&amp;]]>\"'\\N\\\\n\n[1]{|}\udcff\u202e\x00 é"
SHOWN = "<b>&amp;]]>\"'\\N\\\\n\\n[1]{|}\\xff\\u202e\\x00 é"

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


@pytest.fixture(params=["graphviz-pure", pytest.param("dot", marks=pytest.mark.requires("tool:dot"))])
def drawn_by(request, monkeypatch) -> str:
    """Each engine in turn; the one that pip brings draws with an empty PATH."""
    if request.param == "dot":
        monkeypatch.setattr(engine, "find", lambda: shutil.which("dot"))
    else:
        monkeypatch.setenv("PATH", "")
        assert engine.find().endswith("/graphviz-pure")
    return request.param


def texts(picture: Picture, tag: str = "text") -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture.svg).iter() if element.tag.endswith(f"}}{tag}")]


def test_case_e_names_are_data_in_every_form(drawn_by: str) -> None:
    """Markup, escapes of graphviz, control characters, bytes that are not UTF-8: shown, and nothing happens."""
    picture = namespace_map(example(**{"name": NASTY}), title=f"of {NASTY}")
    assert f"name: {SHOWN}" in texts(picture)
    assert [title for title in texts(picture, "title") if f"name: {SHOWN}" in title]
    assert texts(picture, "title")[0] == f"of {SHOWN}"
    bundle = picture._repr_mimebundle_()
    assert SHOWN in bundle["text/plain"]
    assert "<b>&amp;]]" not in bundle["text/html"]
    bundle["text/html"].encode()


def test_a_long_name_is_shortened_with_the_whole_in_a_tooltip(drawn_by: str) -> None:
    name = "a" * 50 + "b" * 50
    picture = namespace_map(example(name=name))
    assert name not in "".join(texts(picture))
    assert [text for text in texts(picture) if re.fullmatch("name: a+…b+", text) and len(text) < 60]
    assert [title for title in texts(picture, "title") if name in title]


def test_a_picture_says_what_it_is_and_leaks_no_names_of_the_engine(drawn_by: str) -> None:
    root = ElementTree.fromstring(namespace_map(example(), title="A <title> & more").svg)
    assert root.get("role") == "img"
    assert [element.tag.rpartition("}")[2] for element in root][:2] == ["title", "desc"]
    assert root[0].text == "A <title> & more"
    assert (root[1].text or "").startswith("Each coloured shape is a namespace")
    assert not [element for element in root.iter() if "id" in element.attrib], "two pictures in a page must not have the same"
    titles = [element.text or "" for element in root.iter() if element.tag.endswith("}title")]
    assert not [title for title in titles if "_4_" in title or "->" in title]


def test_what_touches_the_page_has_the_colour_of_the_page_s_text(drawn_by: str) -> None:
    """No colour but ink, and fills of kinds with a frame of ink: one SVG for a light and a dark page."""
    root = ElementTree.fromstring(namespace_map(example()).svg)
    strokes = {element.get("stroke") for element in root.iter()} - {None, "none"}
    assert strokes == {"currentColor"}
    kinds = {kind.colour.lower() for kind in KINDS.values()}
    names = {"black": "#000000", "white": "#ffffff"}
    fills = {names.get(fill, fill) for element in root.iter() if (fill := element.get("fill", "none")) != "none"}
    assert fills <= kinds | {"currentColor", "#000000", "#ffffff", "transparent"}
    background = [
        element for element in root.iter() if element.tag.endswith("polygon") and element.get("stroke") == "transparent"
    ]
    assert all(element.get("fill") in ("none", "transparent") for element in background)


def test_a_file_brings_its_own_paper_and_a_page_does_not_get_it() -> None:
    """An image cannot see what it lies on; an inline picture lies on the page."""
    style_sheet = texts(namespace_map(example()), "style")[0]
    rules = re.findall(r"([^{}]*)\{color:(#\w+);background:(#\w+)\}", style_sheet)
    assert len(rules) == 2
    for selector, ink, paper in rules:
        assert selector.endswith("svg:root")
        assert style.contrast(ink.ljust(7, ink[-1]), paper.ljust(7, paper[-1])) > 10


def over(page: str, ink: str, opacity: float) -> str:
    mixed = [round(int(ink[i : i + 2], 16) * opacity + int(page[i : i + 2], 16) * (1 - opacity)) for i in (1, 3, 5)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


@pytest.mark.parametrize("page", PAGES)
def test_contrast_is_enough_on_both_pages(page: str) -> None:
    """WCAG 2.2 AA: 4.5 for texts, 3 for lines and the outlines of shapes."""
    paper, ink = PAGES[page]
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21)
    faint = over(paper, ink, int(style.FAINT[7:], 16) / 255)
    assert min(style.contrast(ink, paper), style.contrast(ink, faint)) > 4.5
    assert style.contrast(over(paper, ink, int(style.LINE[7:], 16) / 255), paper) > 3
    for kind in KINDS.values():
        assert style.contrast(style.ink_on(kind.colour), kind.colour) > 4.5
        assert style.contrast(ink, paper) > 3, "each shape has an outline of ink, whatever its colour"


# Machado, Oliveira and Fernandes 2009, severity 1, on linear light.
BLIND = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    """As L*, a*, b*, after what a colour-blind eye leaves of it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    red, green, blue = (min(1, max(0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in matrix)
    xyz = ((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505, 0.2126 * red + 0.7152 * green + 0.0722 * blue,
           (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089)  # fmt: skip
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return (116 * y - 16, 500 * (x - y), 200 * (y - z))


@pytest.mark.parametrize("eye", BLIND)
def test_a_colour_blind_person_tells_the_kinds_apart(eye: str) -> None:
    """No two colours are closer than a difference that anybody sees (CIE 1976: 2.3); the shapes differ besides."""
    colours = [seen(kind.colour, BLIND[eye]) for kind in KINDS.values()]
    distances = [sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
                 for number, one in enumerate(colours) for other in colours[:number]]  # fmt: skip
    assert min(distances) > 10


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("dot", b"digraph"), ("txt", b"kind")])
def test_a_picture_is_saved_by_its_suffix(drawn_by, tmp_path, suffix, start) -> None:
    path = tmp_path / f"map.{suffix}"
    namespace_map(example()).save(path)
    assert path.read_bytes().startswith(start)


def test_case_c13_html_needs_no_kernel() -> None:
    bundle = namespace_map(example())._repr_mimebundle_()
    assert {"text/plain", "text/html"} <= set(bundle)
    assert "web" in bundle["text/html"]
    assert "77" in bundle["text/html"]


def test_case_c14_with_nothing_that_draws_a_table_and_a_hint_take_its_place(monkeypatch) -> None:
    monkeypatch.setattr(engine, "find", lambda: None)
    picture = namespace_map(example())
    html = picture._repr_mimebundle_()["text/html"]
    assert "<svg" not in html
    assert "77 (own)" in html
    assert "pip install graphviz-pure" in html
    with pytest.raises(nslab.Unavailable, match="graphviz"):
        _ = picture.svg
    assert "digraph" in picture.dot


def test_an_engine_that_fails_is_no_traceback(monkeypatch) -> None:
    monkeypatch.setattr(engine, "find", lambda: shutil.which("false"))
    assert "could not draw" in namespace_map(example())._repr_mimebundle_()["text/html"]
    monkeypatch.setattr(engine, "find", lambda: "/etc/passwd")
    assert "could not draw" in namespace_map(example())._repr_mimebundle_()["text/html"]
    monkeypatch.setattr(engine, "draw", lambda dot, form: b"<svg>")
    assert "no SVG" in namespace_map(example())._repr_mimebundle_()["text/html"]


def test_members_of_one_namespace_are_drawn_at_one_node() -> None:
    ids = dict(MACHINE) | {"net": NamespaceId(4, 99)}
    two = tuple(Membership(title, pid, ids, ("net",)) for title, pid in (("web", 10), ("log", 11)))
    picture = namespace_map(NamespaceMap(MACHINE, two))
    assert texts(picture).count("\xa0\xa099") == 1
    assert picture.text.count("99 (shared by 2)") == 2


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


@pytest.mark.requires("tool:lsns", "tool:bwrap", "userns")
def test_a_full_machine_is_drawn_completely() -> None:
    """Ten containers of ours, two of bubblewrap, a lab of six nodes: lsns sees nothing that the picture's table has not."""
    bwrap = ["bwrap", "--unshare-all", "--unshare-user", "--dev-bind", "/", "/", "sh", "-c", "echo; read end"]
    with contextlib.ExitStack() as stack:
        for number in range(10):
            stack.enter_context(nslab.Container(f"full{number}", isolate="uts user pid mnt"))
        for _ in range(2):  # each ends with its standard input
            other = stack.enter_context(subprocess.Popen(bwrap, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            other.stdout.readline()
        stack.enter_context(nslab.Topology.star(5).deploy())
        steady: set[str] = set()
        while len(steady) < 40:
            before = lsns()
            picture = nslab.draw(nslab.discover(contents=False), view="owners")
            steady = {str(number) for number, _ in before.items() & lsns().items()}
        assert steady <= set(re.findall(r"\[(\d+)\]", " ".join(row[0] for row in picture.rows)))
    assert "<svg" in picture.svg
    assert len(texts(picture)) < 4 * 60
    assert {row[2] for row in picture.rows} >= {f"container full{number}" for number in range(10)}


def test_render_needs_no_kernel_and_no_jupyter() -> None:
    code = "import sys, nslab.render; print([m for m in sys.modules if m.startswith(('IPython', 'nslab.'))])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "IPython" not in modules
    assert "nslab.spawner" not in modules
    assert "nslab.syscalls" not in modules
