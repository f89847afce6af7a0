"""A prediction: asked before, remembered in the notebook, and compared with what the kernel then did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from nslab.errors import SpecError

if TYPE_CHECKING:
    from nslab.widgets import Question

MIME = "application/vnd.nslab.prediction+json"
GREEN, ORANGE, GREY = "#009E73", "#D55E00", "#888888"  # of the palette of Okabe and Ito


def predict(
    question: str, *, choices: Sequence[str] | None = None, number: bool | str = False, text: bool = False
) -> Prediction:
    """Ask what will happen, as the last line of a cell. It waits for nobody: a run from top to bottom goes on unanswered.

    Exactly one of: ``choices``, two to eight answers to choose from; ``number``, True or the unit that stands behind it;
    ``text``, a short answer in words. What it returns is compared with the facts later, by compare().
    """
    if not isinstance(question, str) or not question.strip():
        raise SpecError("question", "must be a sentence")
    if sum((choices is not None, bool(number), bool(text))) != 1:
        raise SpecError("choices", "exactly one of choices=, number= and text= says what an answer looks like")
    offered: tuple[str, ...] = ()
    if choices is not None:
        offered = tuple(choices)
        if isinstance(choices, str) or not all(isinstance(each, str) and each.strip() for each in offered):
            raise SpecError("choices", "must be a sequence of sentences")
        if not 2 <= len(offered) <= 8 or len(set(offered)) < len(offered):
            raise SpecError("choices", "must be two to eight different ones")
    return Prediction(question, offered, "choices" if offered else "number" if number else "text", number)


@dataclass(frozen=True)
class Comparison:
    """What was predicted and what is. ``right`` is None when nothing was predicted, ``within`` how near counts as that."""

    question: str
    predicted: str
    actual: str
    right: bool | None
    within: float = 0

    def __str__(self) -> str:
        if self.right is None:
            return f"You did not predict. The kernel: {self.actual}"
        word = "As you predicted" if self.right else "Not as you predicted"
        return f"{word}. You: {self.predicted}. The kernel: {self.actual}"

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        colour, mark = (GREY, "?") if self.right is None else (GREEN, "✓") if self.right else (ORANGE, "✗")
        head, rest = str(self).split(". ", 1)
        html = (
            f'<div style="border-left:4px solid {colour};padding:2px 10px"><b>{mark} {escape(head)}.</b> {escape(rest)}</div>'
        )
        return {"text/plain": str(self), "text/html": html, MIME: asdict(self)}


class Prediction:
    """A question and, once given, its ``answer``: the text of a choice, a number, or words; None before."""

    def __init__(self, question: str, choices: tuple[str, ...], kind: str, number: bool | str):
        self.question = question
        self.choices = choices
        self.kind = kind
        self.unit = number if isinstance(number, str) else ""
        self.answer: str | float | None = None
        self.comparison: Comparison | None = None
        self._widget: Question | None = None

    def say(self, answer: str | float) -> None:
        """Answer it: by the letter or the text of a choice, a number, or words. SpecError for what is no answer to it."""
        self._say(answer)
        if self._widget:
            self._widget.refresh()

    def compare(self, actual: object, *, within: float = 0) -> Comparison:
        """Compare it with what is: the letter or text of a choice, a number (``within`` so much of it is right), or words.

        Words are right when they are the same but for case and blanks. From then on the answer stands.
        """
        found = self._understood(actual if isinstance(actual, str | int | float) else str(actual))
        right: bool | None = None
        if self.answer is not None:
            right = self._same(self.answer, found, within)
        said = "" if self.answer is None else self._shown(self.answer)
        self.comparison = Comparison(self.question, said, self._shown(found), right, within)
        if self._widget:
            self._widget.close()
        return self.comparison

    # -- answers --------------------------------------------------------------------------------------------------------

    def _say(self, answer: str | float) -> None:
        if self.comparison:
            raise SpecError("answer", "comes too late: the kernel has spoken; run the cell with the question again")
        self.answer = self._understood(answer)

    def _understood(self, answer: str | float) -> str | float:
        if self.kind == "number":
            try:
                value = float(str(answer).replace("_", "").removesuffix(self.unit).strip())
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise SpecError("answer", f"must be a number, not {answer!r}")
            return int(value) if value.is_integer() else value
        words = " ".join(str(answer).split())
        if not words:
            raise SpecError("answer", "must not be empty")
        if self.kind == "text":
            return words
        for letter, choice in self._lettered():
            if words in (choice, letter, f"{letter})", f"{letter}) {choice}"):
                return choice
        raise SpecError("answer", f"must be one of {', '.join(letter for letter, _ in self._lettered())}, not {answer!r}")

    def _same(self, one: str | float, other: str | float, within: float) -> bool:
        if isinstance(one, str) or isinstance(other, str):
            return str(one).casefold() == str(other).casefold()
        return abs(one - other) <= within

    def _lettered(self) -> list[tuple[str, str]]:
        return list(zip("abcdefgh", self.choices, strict=False))

    def _shown(self, answer: str | float) -> str:
        letter = next((letter for letter, choice in self._lettered() if choice == answer), "")
        return f"{letter}) {answer}" if letter else f"{answer} {self.unit}".strip()

    # -- what a cell shows ----------------------------------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        from nslab.widgets import Question

        lettered = [f"{letter}) {choice}" for letter, choice in self._lettered()]
        title = f"<b>{escape(self.question)}</b>"
        self._widget = Question(self._repr_mimebundle_, self._say, title=title, choices=lettered, unit=self.unit)
        if self.comparison:
            self._widget.close()
        self._widget.show()

    def __repr__(self) -> str:
        lines = [f"Predict: {self.question}"]
        for letter, choice in self._lettered():
            lines.append(f"  {'*' if choice == self.answer else ' '} {letter}) {choice}")
        if self.comparison:
            lines.append(str(self.comparison))
        elif self.answer is not None:
            lines.append(f"You: {self._shown(self.answer)}")
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        rows = ""
        for letter, choice in self._lettered():
            line = escape(f"{letter}) {choice}")
            rows += f"<div>{f'<b>{line}</b> ← you' if choice == self.answer else line}</div>"
        if self.answer is not None and not self.choices:
            rows = f"<div>You: {escape(self._shown(self.answer))}</div>"
        html = f"<div><b>{escape(self.question)}</b>{rows}</div>"
        state = {
            "question": self.question, "kind": self.kind, "choices": list(self.choices), "unit": self.unit,
            "answer": self.answer, "comparison": asdict(self.comparison) if self.comparison else None,
        }  # fmt: skip
        return {"text/plain": repr(self), "text/html": html, MIME: state}
