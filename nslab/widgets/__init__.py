"""Widgets: what answers a click. Each has a static twin, which is what a saved notebook shows."""

from nslab.widgets.question import Question

__all__ = ["Question"]
