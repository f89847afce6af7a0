"""Stepper: a container that is made one op at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nslab.container.container import Container
from nslab.container.plans import Request
from nslab.errors import DeadNamespace, SpecError
from nslab.ops import Execute, spec
from nslab.spawner import Call, Child
from nslab.trace import Trace, record


class Stepper(Container):
    """A container that is made one op at a time, to look in between.

    ``ops`` are all of them; step() does the next and returns its steps; finish() does the rest. Commands can enter once
    every op is done. Options as for Container.
    """

    def __init__(self, name: str = "", **options: Any):
        self.name = spec.text("name", name)
        request = Request.checked(**options)
        self._begin(request)
        with record(self.trace):
            self._child = self._start(stepwise=True)
            self._child.wait_for(self._paused)
        self._running()

    def _enter(self, work: Execute | Call, fds: Mapping[str, Any]) -> Child:
        if self.alive and not self.finished:
            raise SpecError("run", "some ops are still to be done; finish() does them")
        return super()._enter(work, fds)

    def _paused(self) -> bool:
        child = self._child
        return child.waiting is not None or child.ready or child.gone is not None

    @property
    def ops(self) -> list[str]:
        """A sentence for each op of the plan."""
        return self._plan.describe()

    @property
    def finished(self) -> bool:
        """Whether every op is done."""
        return self._child.ready

    def step(self) -> Trace:
        """Do the next op; the steps that it made. The first ones, up to the new process, are done together."""
        if self.finished:
            raise SpecError("step", "every op is done; run() enters the container")
        with record(self.trace), record() as made:
            self._child.go_on()
            self._child.wait_for(self._paused)
            if self._child.error:
                self._child.end()
                self._child.raise_error()
            if self._child.gone is not None:
                raise DeadNamespace(f"{self!r}: its init (PID {self.pid}) has ended.")
        return made

    def finish(self) -> Stepper:
        """Do all that is left."""
        while not self.finished:
            self.step()
        return self
