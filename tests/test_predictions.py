"""Predictions: asked before, compared afterwards, and told to a person and to a program."""

from __future__ import annotations

import pytest

import nslab
from nslab.lessons.prediction import MIME

pytestmark = pytest.mark.unit


def test_a_choice_is_right_by_its_letter_or_its_text() -> None:
    for answer, actual in (("b", "yes"), ("yes", "b"), ("b) yes", "yes")):
        asked = nslab.predict("Does it?", choices=["no", "yes"])
        asked.say(answer)
        assert asked.compare(actual).right is True
    asked = nslab.predict("Does it?", choices=["no", "yes"])
    asked.say("a")
    found = asked.compare("yes")
    assert found.right is False
    assert str(found) == "Not as you predicted. You: a) no. The kernel: b) yes"


def test_a_number_is_right_within_what_is_allowed() -> None:
    asked = nslab.predict("How long?", number="ms")
    asked.say("1_000 ms")
    assert asked.answer == 1000
    assert asked.compare(1004.5, within=5).right is True
    assert "1004.5 ms" in str(asked.comparison)
    asked = nslab.predict("How many?", number=True)
    asked.say(0)
    assert asked.compare(2).right is False


def test_words_are_right_whatever_their_case() -> None:
    asked = nslab.predict("Which name?", text=True)
    asked.say("  Web ")
    assert asked.compare("web").right is True


def test_who_says_nothing_goes_on_all_the_same() -> None:
    asked = nslab.predict("Which name?", text=True)
    found = asked.compare("web")
    assert found.right is None and str(found) == "You did not predict. The kernel: web"


def test_the_answer_stands_once_the_kernel_has_spoken() -> None:
    asked = nslab.predict("Which name?", text=True)
    asked.compare("web")
    with pytest.raises(nslab.SpecError, match="too late"):
        asked.say("web")


def test_a_program_reads_what_a_person_sees() -> None:
    asked = nslab.predict("Is 1 < 2?", choices=["no", "<yes>"])
    assert asked._repr_mimebundle_()[MIME]["answer"] is None
    asked.say("b")
    found = asked.compare("<yes>")
    bundle = asked._repr_mimebundle_()
    assert bundle[MIME]["answer"] == "<yes>" and bundle[MIME]["comparison"]["right"] is True
    assert "1 &lt; 2" in bundle["text/html"] and "<yes>" not in bundle["text/html"]
    assert bundle["text/plain"].splitlines()[2] == "  * b) <yes>"
    assert found._repr_mimebundle_()[MIME]["actual"] == "b) <yes>"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"question": ""}, "question"),
        ({}, "exactly one"),
        ({"number": True, "text": True}, "exactly one"),
        ({"choices": "yes"}, "choices"),
        ({"choices": ["yes"]}, "two to eight"),
        ({"choices": ["yes", "yes"]}, "different"),
        ({"choices": []}, "two to eight"),
    ],
)
def test_bad_questions_are_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(nslab.SpecError, match=match):
        nslab.predict(**{"question": "Which?", **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ["", "c", "z"])
def test_what_is_no_answer_is_refused(answer: str) -> None:
    with pytest.raises(nslab.SpecError, match="answer"):
        nslab.predict("Which?", choices=["one", "two"]).say(answer)
    with pytest.raises(nslab.SpecError, match="must be a number"):
        nslab.predict("How many?", number=True).say("many" + answer)
