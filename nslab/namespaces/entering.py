"""Commands and functions in namespaces that are there already, whoever made them and whatever holds them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from nslab import procfs
from nslab.errors import CommandTimeout
from nslab.namespaces import joining, privilege, running
from nslab.namespaces.result import Result
from nslab.namespaces.running import Running
from nslab.namespaces.streams import Collector, Sink, Streams, pump, to_notebook
from nslab.ops import Adopt, Execute, Op, Plan, spec
from nslab.spawner import Call, Child, channel, ensure, functions
from nslab.trace import emit_script

WHY_ADOPT = "what a command leaves behind ends with it"


class Enterable:
    """run, popen and call for whatever can say what is to be joined: each is a process of its own, which joins, and ends."""

    def joins(self) -> Mapping[str, Any]:
        """What is joined, as for ``nslab.run(join=...)``."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether it was not closed."""
        raise NotImplementedError

    def inside(self) -> tuple[Op, ...]:
        """What else is done in there, by each process, before it does its work."""
        return ()

    def run(
        self, command: spec.Command, *, input: str | bytes | None = None, timeout: float | None = None, check: bool = False,
        env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None, user: str | int | None = None, text: bool = True,
        stream: bool | Sink = False, tty: bool = False, attach: bool = False, max_output: int = running.MAX_OUTPUT,
    ) -> Result:  # fmt: skip
        """Run a command in it and wait; when it ends, so does everything that it started. Options as for nslab.run.

        In a PID namespace what a command leaves in the background belongs to the init there, and ends with that.
        DeadNamespace when the handle is closed, or the PID namespace has no init any more.
        """
        targets, inside = joining.checked(self.joins(), ()), self.inside()
        work = _work(targets, command, env=env, cwd=cwd, user=user, tty=tty)
        return running.complete(
            lambda fds: _enter(targets, work, fds, inside, lone=True), work.argv, lone=True, input=input, timeout=timeout,
            check=check, text=text, stream=stream, tty=tty, attach=attach, max_output=max_output,
        )  # fmt: skip

    def popen(
        self, command: spec.Command, *, env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None,
        user: str | int | None = None, stdin: bool = False,
    ) -> Running:  # fmt: skip
        """Start a command in it and return at once: a handle with pid, wait(), kill(), stdout. Dropping that ends it."""
        targets, inside = joining.checked(self.joins(), ()), self.inside()
        work = _work(targets, command, env=env, cwd=cwd, user=user)
        return Running(lambda fds: _enter(targets, work, fds, inside), work.argv, stdin=stdin)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a Python function in it, in a process of its own, and return its value; its exception is raised here.

        In a mount namespace that is not the caller's it has the modules that pickle loads with it, and can load no other.
        """
        targets, inside = joining.checked(self.joins(), ()), self.inside()
        owner = None if "ipc" in targets else 0
        foreign = _is_foreign(targets)
        return call_inside(lambda work, fds: _enter(targets, work, fds, inside), function, args, kwargs, owner, foreign=foreign)


def _is_foreign(targets: joining.Targets) -> bool:
    """Whether the files there may be others than the machine's."""
    if "mnt" not in targets:
        return False
    with targets["mnt"].namespace("mnt") as there:
        return there.id != procfs.namespace("self", "mnt")


def call_inside(
    enter: Callable[[Call, Mapping[str, Any]], Child], function: Callable[..., Any], args: tuple[Any, ...],
    kwargs: Mapping[str, Any], owner: int | None, *, collector: Collector | None = None, deadline: float | None = None,
    carry: Callable[[Streams], None] | None = None, foreign: bool = False,
) -> Any:  # fmt: skip
    """Call a function in the process that ``enter`` starts, and return its value; what it prints is printed here.

    ``owner`` is the PID of the process with which ends what it makes in the machine's own IPC namespace (0: this one), None
    when it is in another. ``collector`` takes what it prints; CommandTimeout at ``deadline``, a time of time.monotonic().
    ``carry`` moves bytes to and from the streams of that process before its end is awaited; ``foreign``: no module is to be
    loaded from the files there.
    """
    with (
        contextlib.closing(Streams(stdin=carry is not None)) as streams,
        channel.sealed(functions.dump(function, args, dict(kwargs))) as payload,
        os.fdopen(os.memfd_create("nslab-result", os.MFD_CLOEXEC), "r+b") as outcome,
    ):
        fds = {**streams.theirs, "function": payload, "result": outcome}
        if owner is not None:
            fds["registry"] = ensure().registry
        child = enter(Call(tuple(sys.path), owner or 0, foreign), fds)
        try:
            streams.handed_over()
            if carry:
                carry(streams)
            collector = collector or Collector(running.MAX_OUTPUT, to_notebook)
            if not pump(child, streams, collector, None, deadline, False):
                raise CommandTimeout("it was still running at the end of its time, and was ended")
        except BaseException:
            child.end()
            raise
        child.raise_error()
        outcome.seek(0)
        return functions.told(outcome.read(), child.worker)


def _work(
    targets: joining.Targets, command: spec.Command, *, env: Mapping[str, str] | None, cwd: spec.Folder | None,
    user: str | int | None, tty: bool = False,
) -> Execute:  # fmt: skip
    """A command begins where this process is, or at the root of the mount table that it joins."""
    words, environment = spec.argv(command), spec.environment(env)
    here = "/" if "mnt" in targets else os.getcwd()
    begins: str | None = None if here == ensure().cwd else here
    if cwd is not None:
        begins = os.path.join(here, spec.working_directory("cwd", cwd))
    if "mnt" not in targets:
        if cwd is not None and begins is not None:
            spec.folder_there("cwd", begins)
        spec.program(words, environment, begins)
    return Execute(words, environment, begins, (privilege.identity(user),) if user is not None else (), tty)


def _enter(
    targets: joining.Targets, work: Execute | Call, fds: Mapping[str, Any], inside: tuple[Op, ...], *, lone: bool = False
) -> Child:
    spawner = ensure()
    way = joining.way(targets, spawner)
    ops: tuple[Op, ...] = way.ops
    if "pid" not in way.kinds:
        ops += (Adopt(implied=WHY_ADOPT),)
    ops += inside
    if isinstance(work, Execute):
        work = privilege.fit(work, ops)
    plan = Plan(ops, work if isinstance(work, Execute) else None)
    emit_script(plan)
    return spawner.start(plan, work=work, fds={**fds, **way.fds}, borrowed=privilege.is_borrowed(plan), lone=lone)
