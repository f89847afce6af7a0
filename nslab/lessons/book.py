"""The course as a book: every unit executed, then set by Sphinx with MyST-NB, as static pages that need no network.

A widget cannot answer without a kernel, so what stands in its place is its static twin: the picture, the table, the question.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from nslab.errors import SpecError, Unavailable
from nslab.lessons.course import Course, Unit
from nslab.lessons.executing import Outcome

DEAD = re.compile(r"application/vnd\.(jupyter\.widget-|nslab)")  # what only a front end with a kernel can use
MADE_HERE = ".buildinfo"  # Sphinx leaves it in each folder that it has filled
STYLE = Path(__file__).with_name("book.css")
PAGES = {"glossary": "Glossary", "facts": "What the cells prove"}
SETTINGS: Mapping[str, Any] = {
    "project": "nslab", "html_title": "nslab: the course", "html_theme": "furo", "language": "en",
    "extensions": ["myst_nb", "sphinx_copybutton"], "nb_execution_mode": "off", "nb_merge_streams": True,
    "nb_mime_priority_overrides": [("html", "text/html", 0), ("html", "image/svg+xml", 10)],
    "myst_enable_extensions": ["deflist"], "myst_links_external_new_tab": True,
    "html_static_path": ["static"], "html_css_files": [STYLE.name], "html_copy_source": False, "html_show_sphinx": False,
    "copybutton_selector": "div.cell_input pre", "html_show_copyright": False,
    "html_theme_options": {"navigation_with_keys": True},
    "suppress_warnings": ["myst.header", "mystnb.unknown_mime_type"],
}  # fmt: skip


def build(course: Course, units: Sequence[Unit], run: Callable[[Unit], Outcome], target: Path) -> list[Outcome]:
    """Run units and set them, with the map of the course, the glossary and the facts, in the folder ``target``.

    What was there is replaced. When a unit fails nothing is set, and the outcomes say where.
    """
    try:
        import furo  # noqa: F401
        from sphinx.application import Sphinx
    except ImportError as error:
        raise Unavailable(f"the book is set by Sphinx, and {error.name} is not here", "pip install 'nslab[book]'") from None
    if target.exists() and not (target / MADE_HERE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise SpecError("to", f"{target} is there, and is no book: name a folder that is not, or is empty")
    outcomes = [run(unit) for unit in units]
    if any(outcome.failure for outcome in outcomes):
        return outcomes
    with tempfile.TemporaryDirectory(prefix="nslab-book-") as folder:
        source = Path(folder, "source")
        (source / "static").mkdir(parents=True)
        shutil.copy(STYLE, source / "static")
        for outcome in outcomes:
            page = _page(outcome.notebook, units)
            nbformat.write(page, source / outcome.unit.path.name)  # type: ignore[no-untyped-call]
        (source / "index.md").write_text(_index(course, units), encoding="utf-8")
        (source / "glossary.md").write_text(_beside(course.glossary, units), encoding="utf-8")
        (source / "facts.md").write_text(_facts(course, units), encoding="utf-8")
        if target.is_dir():
            shutil.rmtree(target)
        Sphinx(source, None, target, Path(folder, "doctrees"), "html", dict(SETTINGS), status=None).build()
    shutil.rmtree(target / ".doctrees", ignore_errors=True)
    return outcomes


def _page(notebook: Any, units: Sequence[Unit]) -> Any:
    """The notebook with the static twins of its widgets only, and links that lead to what there is."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _beside(cell.source, units)
        for output in cell.get("outputs", ()):
            for kind in [kind for kind in output.get("data", ()) if DEAD.match(kind)]:
                del output.data[kind]
    return notebook


def _index(course: Course, units: Sequence[Unit]) -> str:
    """The map, which is the README of the notebooks, and the contents."""
    readme = _beside((course.folder / "README.md").read_text(encoding="utf-8"), units)
    entries = [f"{_number(unit)}{unit.title} <{unit.name}>" for unit in units]
    contents = ["```{toctree}", ":hidden:", "", *entries, *(f"{title} <{name}>" for name, title in PAGES.items()), "```"]
    return readme + "\n\n" + "\n".join(contents) + "\n"


def _number(unit: Unit) -> str:
    number = unit.name.partition("-")[0]
    return f"{number} · " if number.isdigit() else ""


def _beside(text: str, units: Sequence[Unit]) -> str:
    """A document whose links lead to pages of this book; one to what is not in it is only its words."""
    pages = {*(unit.path.name for unit in units), *(f"{name}.md" for name in PAGES)}

    def link(found: re.Match[str]) -> str:
        name = found[2].rpartition("/")[2]
        return f"[{found[1]}]({name})" if name in pages else found[1]

    return re.sub(r"\[([^]\n]+)\]\((?!https?:)([^)\s]+)\)", link, text)


def _facts(course: Course, units: Sequence[Unit]) -> str:
    """Each fact that is shown, with the units whose cells do."""
    shown = {fact: [unit for unit in units if fact in unit.facts] for fact in course.facts}
    about = "Each sentence is shown on the kernel by a cell of the units beside it, which fails when that is not so."
    lines = [f"# {PAGES['facts']}", "", about]
    for kind in dict.fromkeys(fact.kind for fact in course.facts.values() if shown[fact.id]):
        lines += ["", f"## {kind}", "", "| fact | units |", "|---|---|"]
        for fact in course.facts.values():
            if fact.kind == kind and shown[fact.id]:
                where = " ".join(f"[{unit.name.partition('-')[0]}]({unit.path.name})" for unit in shown[fact.id])
                lines.append(f"| {_plain(fact.statement)} | {where} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing of its own."""
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", text)
