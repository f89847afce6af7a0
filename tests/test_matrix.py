"""The matrix of ping_all, in every form."""

from __future__ import annotations

import re
from itertools import permutations
from xml.etree import ElementTree

import pytest

from nslab.topology.matrix import Matrix

pytestmark = pytest.mark.unit


def matrix(count: int, *lost: tuple[str, str]) -> Matrix:
    names = [f"h{number}" for number in range(1, count + 1)]
    return Matrix({pair: None if pair in lost else 0.1 * int(pair[0][1:]) for pair in permutations(names, 2)})


def test_a_row_for_each_sender_and_a_word_for_what_is_lost() -> None:
    assert str(matrix(3, ("h1", "h3"))).splitlines() == [
        "ms    h1    h2    h3",
        "h1     -  0.10  lost",
        "h2  0.20     -  0.20",
        "h3  0.30  0.30     -",
        "5 of 6 pings answered, in 0.10 to 0.30 ms, half of them below 0.20; 16.7% lost",
    ]


def test_as_html_a_table_with_heads_in_which_what_is_lost_stands_out() -> None:
    html = matrix(3, ("h1", "h3"))._repr_mimebundle_()["text/html"]
    table = ElementTree.fromstring(html[: html.index("</table>") + 8])
    assert [head.text for head in table.iter("th") if head.get("scope") == "row"] == ["h1", "h2", "h3"]
    cells = {cell.text: cell.get("style", "") for cell in table.iter("td")}
    assert "box-shadow" in cells["lost"]
    shades = [float(re.findall(r",([\d.]+)\)", cells[text])[0]) for text in ("0.10", "0.20", "0.30")]
    assert shades == sorted(set(shades)), "the slower, the darker"


def test_of_many_only_what_failed_and_a_grid() -> None:
    shown = matrix(100)._repr_mimebundle_()
    assert shown["text/plain"] == "9,900 of 9,900 pings answered, in 0.10 to 10.00 ms, half of them below 5.10"
    assert "<rect" in shown["text/html"]
    assert "#D55E00" not in shown["text/html"]
    cut = matrix(100, *((f"h{number}", "h7") for number in range(1, 101)), *(("h7", f"h{number}") for number in range(1, 101)))
    text, html = cut._repr_mimebundle_().values()
    assert [line.split() for line in text.splitlines()[:2]] == [["from", "to"], ["h1", "h7"]]
    assert text.splitlines()[-2].split() == ["and", "more"]
    root = ElementTree.fromstring(html[: html.index("</svg>") + 6])
    titles = [element.text for element in root.iter() if element.tag.endswith("title")]
    assert titles[0].startswith("Who reaches whom: 9,702 of 9,900")
    assert {"h7 to h1 … h6: lost", "h7 to h8 … h100: lost", "h9 to h7: lost"} <= set(titles)
    assert len(titles) == 1 + 99 + 2, "neighbours are one piece"


def test_of_none_and_names_are_data() -> None:
    assert str(Matrix({})) == "ms\n0 of 0 pings answered"
    assert "<b>" not in Matrix({("<b>", "a"): None})._repr_mimebundle_()["text/html"]
