"""A process on the way: what has to be joined before another process is made is joined by one of its own.

There is no way back out of a user namespace, and the spawner enters none.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from typing import Any

from nslab import procfs, syscalls
from nslab.errors import SpawnerError
from nslab.ops import BecomeRoot, Context, Join, Op, Setns
from nslab.spawner.report import portable
from nslab.syscalls import guard
from nslab.syscalls.processes import CLONE_PARENT

WHY_FORK = "a process of its own does it, since there is no way back"


def aside(
    ops: tuple[Op, ...], action: Callable[[Context], int | None], context: Context, member: bool = False
) -> int:  # fmt: skip
    """Do ``ops`` and then ``action`` in a process of its own, since there is no way back; what the action returned.

    It returns 0 in a process that the action made, and that is then a child of this one. ``member``: only a member of the
    PID namespace that was joined can do it, which is another process, and has its own numbers for what it makes.
    """
    out, into = os.pipe()
    pid = fork(context)
    if pid == 0:
        os.close(out)
        context.fds.pop("cgroup", None)  # this process is in it, and so will be what it makes
        value = _be_aside(ops, action, context, into, member)
        if value == 0:
            os.close(into)
            return 0
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        said = io.BytesIO(pipe.read())
    os.waitpid(pid, 0)
    for _ in range(2 if member else 1):
        try:
            calls, value, error = pickle.load(said)
        except EOFError:
            raise SpawnerError("the process on the way to a joined namespace ended before it was through.") from None
        guard.add(calls)
        if error:
            raise error
    return int(value or 0)


def _be_aside(
    ops: tuple[Op, ...], action: Callable[[Context], int | None], context: Context, into: int, member: bool
) -> int | None:  # fmt: skip
    """The life of that process: -1 when it failed."""
    calls = guard.collect()
    value: int | None = -1
    failed: BaseException | None = None
    try:
        if joins(ops, "mnt"):  # there this process may not be seen
            context.proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
        for op in ops:
            op.execute(context)
        if joins(ops, "user"):
            guard.implied("joining a user namespace makes /proc/PID of this process root's, who may be nobody inside")
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        if member:
            _become_member(calls, into)
        value = action(replace(context, aside=True))
    except BaseException as error:
        failed = portable(error)
    if value != 0:
        os.write(into, pickle.dumps((calls, value, failed)))
    return value


def _become_member(calls: list[Any], into: int) -> None:
    """Go on as a child in the PID namespace that was joined, when the process so far has told what it did."""
    told, telling = os.pipe()
    guard.implied("only a member of a PID namespace can make one inside it")
    if pid := syscalls.clone3(CLONE_PARENT):
        os.write(telling, str(pid).encode())
        os.write(into, pickle.dumps((calls, None, None)))
        os._exit(0)
    guard.implied("")
    os.close(telling)
    with os.fdopen(told) as pipe:
        guard.known_as(int(pipe.read()))  # its own number is another one here
    calls.clear()


def child_known_as(number: int, known: Container[int]) -> int:
    """The PID of the new child that is an init and has this number in the PID namespace around its own."""
    for pid in procfs.children():
        if pid not in known and procfs.numbers(pid)[-2:] == (number, 1):
            return pid
    raise SpawnerError("the new process ended before it was known.")


def joins(ops: Iterable[Op], kind: str) -> bool:
    return any((isinstance(op, Join) and kind in op.kinds) or (isinstance(op, Setns) and op.kind == kind) for op in ops)


def user_part(ops: Iterable[Op]) -> tuple[Op, ...]:
    """Of these ops those that lead into a user namespace."""
    part = tuple(replace(op, kinds=("user",)) if isinstance(op, Join) else op for op in ops if joins((op,), "user"))
    return (*part, BecomeRoot(implied=WHY_FORK)) if part else ()


def fork(context: Context) -> int:
    guard.implied(WHY_FORK)
    try:
        return syscalls.clone3(0, cgroup=context.fds["cgroup"]) if "cgroup" in context.fds else syscalls.fork()
    finally:
        guard.implied("")
