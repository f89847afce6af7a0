"""A prediction, as a person makes it: a click, and the answer is in the notebook."""

import pytest

from tests.browser.processes import wait_until

pytestmark = pytest.mark.requires("tool:chromium")
MIME = "application/vnd.nslab.prediction+json"


def test_an_answer_is_kept_in_the_notebook_and_compared(server, open_notebook, tmp_path):
    question = "import nslab\nguess = nslab.predict('Which name?', choices=['none', 'web'])\nguess"
    typed = "number = nslab.predict('How many?', number='processes')\nnumber"
    notebook = open_notebook(server.write("predict.ipynb", question, "guess.compare('web')", typed, "number.compare(3)"))

    def state(cell: int) -> dict:
        outputs = notebook.cells()[cell]["outputs"]
        return outputs[0]["data"] if outputs else {}

    notebook.run(0)
    notebook.page.get_by_label("b) web").check(timeout=20_000)
    wait_until(lambda: state(0).get(MIME, {}).get("answer") == "web", 10, notebook.cells)
    notebook.run(2)
    notebook.page.get_by_placeholder("your prediction").fill("many")
    notebook.page.keyboard.press("Enter")
    notebook.page.get_by_text("must be a number").wait_for(timeout=10_000)
    notebook.page.get_by_placeholder("your prediction").fill("3")
    notebook.page.keyboard.press("Enter")
    wait_until(lambda: state(2).get(MIME, {}).get("answer") == 3, 10, notebook.cells)
    for cell in (1, 3):
        notebook.run(cell)
        wait_until(lambda cell=cell: state(cell), 10, notebook.cells)
        assert state(cell)[MIME]["right"] is True
        wait_until(lambda cell=cell: len(state(cell - 1)) == 3, 10, notebook.cells)  # the widget has gone, its twin stays
    assert notebook.errors() == []
    notebook.screenshots(tmp_path, "predict")
