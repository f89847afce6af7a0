"""A question with a place for its answer, in the output of a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from IPython.display import DisplayHandle, display

VIEW = "application/vnd.jupyter.widget-view+json"
WIDE = ipywidgets.Layout(width="max-content")


class Question:
    """Shows what ``bundle()`` gives, by MIME type, and controls for an answer until it is closed.

    ``choices`` are what can be chosen, none for an answer that is typed; ``unit`` stands behind that. ``answered`` is called
    with the answer as text; when it raises a ValueError, that is shown beside. Each answer is kept in the output of the cell.
    """

    def __init__(
        self, bundle: Callable[[], dict[str, Any]], answered: Callable[[str], object], *, title: str,
        choices: Sequence[str] = (), unit: str = "",
    ):  # fmt: skip
        self._bundle = bundle
        self._answered = answered
        self._open = True
        self._said = ipywidgets.Label()
        self._handle: DisplayHandle | None = None
        control: Any
        if choices:
            control = ipywidgets.RadioButtons(options=choices, index=None, layout=WIDE)
            control.observe(lambda change: self._take(change["new"]), "value")
            row = control
        else:
            control = ipywidgets.Text(placeholder="your prediction", continuous_update=False)
            control.observe(lambda change: self._take(change["new"]), "value")
            row = ipywidgets.HBox([control, ipywidgets.Label(unit)])
        self._box = ipywidgets.VBox([ipywidgets.HTML(title), row, self._said])

    def show(self) -> None:
        self._handle = display(self._data(), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """From here on the static twin stands there, as it is then."""
        if self._open:
            self._open = False
            self.refresh()
            self._box.close()

    def refresh(self) -> None:
        if self._handle:
            self._handle.update(self._data(), raw=True)  # type: ignore[no-untyped-call]

    def _take(self, answer: str) -> None:
        try:
            self._answered(answer)
        except ValueError as error:
            self._said.value = str(error)
        else:
            self._said.value = "Noted. Go on: the kernel will tell."
            self.refresh()

    def _data(self) -> dict[str, Any]:
        data = self._bundle()
        if self._open:
            data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        return data
