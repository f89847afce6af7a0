"""A child of the spawner that was made ahead of time, for the next process that is asked for.

A fork of Python costs more after it than in it: each page that the new process writes to is copied then. A standby has that
behind it. When a request comes, it either does it itself, or, for one in new namespaces, lends its memory to the new process
(syscalls.in_place). That gives it back when it ends soon, and the standby waits for the next request; or it keeps it, then the
standby ends, and the spawner makes another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

from nslab import syscalls
from nslab.errors import SyscallError
from nslab.model import IdRange
from nslab.ops import Adopt, BecomeRoot, Borrow, Context, Execute, IdMaps, NewNamespaces, Op
from nslab.spawner import channel, child
from nslab.spawner.launch import programs, spawn_options
from nslab.spawner.messages import RETURNS, Start
from nslab.spawner.report import Report, tell
from nslab.syscalls import guard
from nslab.syscalls.in_place import EXECUTES, Chain, Lender

WHY_CLONE = "a process of its own does it, since there is no way back"
REQUESTS = 500  # that one standby does; then whatever has gathered in its memory goes with it
_F_SETSIG = 10


_MAPS = IdMaps((IdRange(0, 0, 1),), (IdRange(0, 0, 1),), "deny")
_PLAN = (NewNamespaces(("mnt", "user"), _MAPS), BecomeRoot(), Adopt())
_REQUEST = channel.encoded(Start(_PLAN, Execute(("/",), None), ("reply",), "nslab-standby"))  # to rehearse with


@dataclass(frozen=True)
class Standby:
    """The spawner's handle: requests go to ``sock``, and from there comes the PID of the process that does one, 0 when that
    is over and the next may come.
    """

    pid: int
    sock: socket.socket
    fresh: bool = True  # it had none yet

    @staticmethod
    def live(sock: socket.socket, context: Context, watchdog: int, signals: int, files: tuple[int, int]) -> NoReturn:
        """The life of a standby: waits on ``sock`` for requests. The rest is as for child.live."""
        try:
            guard.name_process("nslab-standby")
            child.close_others((sock.fileno(), watchdog, signals, *programs.values()))
            end, context.let_go = _switch()
            context.predecessor = os.pidfd_open(os.getpid())
            lender, lend = Lender(), None
            if not _awaited(sock):
                _rehearse(signals)
            for _ in range(REQUESTS):
                guard.name_process("nslab-standby")
                try:
                    request, fds = channel.receive(sock)
                except EOFError:
                    os._exit(0)
                here = replace(context, fds=dict(zip(request.fds, fds, strict=True)))
                if EXECUTES and programs and (request.bare or request.joins_time):
                    here.lend = lend = lend or (Lender(children=True), Chain())
                chain = here.lend[1] if request.bare and here.lend else None
                report = Report(here.fds["reply"])
                ops = tuple(op for op in request.ops if not isinstance(op, Borrow))  # it was born in what was borrowed
                new = ops[0] if ops and isinstance(ops[0], NewNamespaces) else None
                returns = bool(ord(request.mark) & RETURNS)
                if not new and not returns:
                    os.close(end)  # and with it the switch: it is nobody's memory but its own
                    here.let_go = -1
                    tell(sock.fileno(), os.getpid())
                    report.pid = os.getpid()
                    child.live(request, ops, here, report, signals, files)
                life = partial(_begin, request, new, ops, here, report, sock, signals, files, returns)
                finders = [*sys.meta_path]
                guard.implied("" if new else WHY_CLONE)
                try:
                    if not lender.clone(new.flags if new else 0, life, chain):
                        os._exit(1)
                    if chain and chain.errno:
                        raise guard.failure("execve", (request.title.split()[0], (request.title,)), chain.errno)
                except SyscallError as error:
                    report.failed(error)
                    os._exit(1)
                guard.set_dumpable(True)
                sys.meta_path[:] = finders  # see child.load_no_more()
                for fd in fds:
                    os.close(fd)
                tell(sock.fileno(), 0)
        finally:
            os._exit(1)


def _begin(
    request: Start, new: NewNamespaces | None, ops: tuple[Op, ...], context: Context, report: Report, sock: socket.socket,
    signals: int, files: tuple[int, int], returns: bool, pid: int,
) -> int:  # fmt: skip
    """The life of a new process, which knows its PID outside; its exit status."""
    guard.implied("")
    report.pid = pid
    tell(sock.fileno(), pid)
    first = None
    if new:
        ops, context.made = ops[1:], new.kinds
        if new.maps:
            first, context.root = partial(new.maps.write, "self"), True
    if not returns or (request.bare and not context.lend):
        context.own_memory()
    return child.spend(request, ops, context, report, signals, files, first)


def _switch() -> tuple[int, int]:
    """Two descriptors: while the first is open, a byte written to the second ends this process.

    A signal could not be sent from a PID namespace in which this process has no number.
    """
    end, let_go = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(end, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    return end, let_go


def _awaited(sock: socket.socket) -> bool:
    """Whether a request is there already."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _rehearse(signals: int) -> None:
    """Go through the motions of a request, so that its pages are this process's own before there is one."""
    mine, theirs = channel.pair()
    with mine, theirs:
        channel.pass_on(mine, _REQUEST, (theirs.fileno(),))
        request, fds = channel.receive(theirs)
        maps = request.ops[0].maps
        context = Context({}, dict(zip(request.fds, fds, strict=True)), made=("mnt", "user"), root=True)
        report = Report(context.fds["reply"])
        maps.text(maps.uid)
        syscalls.write_file("/proc/self/comm", request.title)
        for op in request.ops[1:]:
            op.execute(context)
        with contextlib.suppress(OSError):
            os.posix_spawn("/", ("/",), {}, **spawn_options((0, 1, 2)))
        report.send("ready", (0, report.pid))
        guard.name_process(request.title)
        child.poller(report, signals).poll(0)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        os.close(report.fd)
