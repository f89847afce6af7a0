"""The course in a real browser: notebooks run to the end, and are photographed for a person to look at."""

from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.requires("tool:chromium", "userns")

NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_jupyterlab(name, open_notebook, screenshots: Path):
    notebook = open_notebook(name)
    notebook.run_all()
    assert notebook.errors() == []
    ran = [cell for cell in notebook.cells() if cell["cell_type"] == "code"]
    assert ran
    assert all(cell["execution_count"] for cell in ran)
    stem = name.removesuffix(".ipynb")
    for theme in ("Light", "Dark"):
        notebook.theme(f"JupyterLab {theme}")
        notebook.screenshots(screenshots, f"{stem}-{theme.lower()}")


def test_jupyterlab_opens_without_a_news_toast(server, open_notebook):
    notebook = open_notebook(server.write("quiet.ipynb", "1 + 1"))
    notebook.run_all()
    settings = notebook.page.evaluate(
        """async () => {
            const response = await fetch('/lab/api/settings/@jupyterlab/apputils-extension:notification');
            return (await response.json()).schema.properties.fetchNews.default;
        }"""
    )
    assert settings == "false"
    assert notebook.page.locator(".Toastify__toast").count() == 0
