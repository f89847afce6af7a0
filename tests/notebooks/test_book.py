"""make book: one unit as pages that need no network, with pictures where widgets were, a search and the glossary."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = [pytest.mark.timeout(300), pytest.mark.requires("userns")]

COMMAND = [sys.executable, "-m", "nslab.cli", "course", "book"]
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"(https?:)?//")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("book") / "pages"
    done = subprocess.run([*COMMAND, "03", "--to", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Can two programs share memory" in done.stdout
    assert "WARNING" not in done.stderr
    return {path.name: path.read_text() for path in folder.glob("*") if path.suffix in (".html", ".js")}


def test_the_unit_is_there_with_what_its_cells_showed(pages) -> None:
    page = pages["03-ipc.html"]
    source = json.loads((ROOT / "notebooks" / "03-ipc.ipynb").read_text())
    code = [cell for cell in source["cells"] if cell["cell_type"] == "code"]
    assert page.count('class="cell_input ') == len(code)
    assert page.count('class="cell_output ') > len(code) // 2
    assert re.search(r'<svg [^>]*role="img"', page), "a picture, inline"
    assert "widget-view" not in page and "Traceback" not in page


def test_nothing_is_fetched_from_elsewhere(pages) -> None:
    for name, text in pages.items():
        if name.endswith(".html"):
            assert not FETCHED.search(text), name


def test_it_can_be_searched_and_read_in_the_dark(pages) -> None:
    index = pages["searchindex.js"]
    assert '"03-ipc"' in index and "semaphor" in index
    assert 'class="theme-toggle"' in pages["03-ipc.html"]


def test_links_lead_to_what_is_there(pages) -> None:
    for name, text in pages.items():
        for link in re.findall(r'href="([^"#:?]+\.html)', text) if name.endswith(".html") else ():
            assert link in pages, f"{name} links to {link}"


def test_the_map_the_glossary_and_the_facts_are_pages(pages) -> None:
    assert 'href="03-ipc.html"' in pages["index.html"]
    assert "semaphore" in pages["glossary.html"]
    assert re.search(r'href="03-ipc.html"[^<]*>(<[^>]+>)?03', pages["facts.html"])


def test_a_folder_with_other_things_is_left_alone(tmp_path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = subprocess.run([*COMMAND, "03", "--to", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "is no book" in done.stderr
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine"]
