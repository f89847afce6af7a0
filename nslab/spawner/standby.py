"""A child of the spawner that was made ahead of time, and becomes the next process that is asked for.

A fork of Python costs more after it than in it: each page that the new process writes to is copied then. A standby has that
behind it. When a request comes, it either becomes the new process itself or, for one in new namespaces, hands its memory
on to that (syscalls.clone3_in_place) and ends; meanwhile the spawner makes the next standby.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from dataclasses import dataclass
from typing import NoReturn

from nslab import syscalls
from nslab.errors import NslabError
from nslab.model import IdRange
from nslab.ops import Adopt, BecomeRoot, Borrow, Context, Execute, IdMaps, NewNamespaces, Op
from nslab.spawner import channel, child
from nslab.spawner.launch import spawn_options
from nslab.spawner.messages import Start
from nslab.spawner.report import Report, tell
from nslab.syscalls import guard

_F_SETSIG = 10


@dataclass(frozen=True)
class Standby:
    """The spawner's handle: requests go to ``sock``, and from there comes the PID of the process that does them."""

    pid: int
    sock: socket.socket

    @staticmethod
    def live(sock: socket.socket, context: Context, watchdog: int, signals: int, files: tuple[int, int]) -> NoReturn:
        """The life of a standby: waits on ``sock`` for the one request that it is for. The rest is as for child.live."""
        try:
            guard.name_process("nslab-standby")
            child.close_others((sock.fileno(), watchdog, signals))
            end, context.let_go = _switch()
            context.predecessor = os.pidfd_open(os.getpid())
            _rehearse(signals)
            try:
                request, fds = channel.receive(sock)
            except EOFError:
                os._exit(0)
            context.fds = dict(zip(request.fds, fds, strict=True))
            report = Report(context.fds["reply"])
            try:
                ops = _become(request.ops, context, report, end)
                tell(sock.fileno(), report.pid)
                sock.close()
            except (NslabError, OSError) as error:
                report.failed(error)
            else:
                child.live(request, ops, context, report, signals, files)
        finally:
            os._exit(1)


def _switch() -> tuple[int, int]:
    """Two descriptors: while the first is open, a byte written to the second ends this process.

    A signal could not be sent from a PID namespace in which this process has no number.
    """
    end, let_go = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(end, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    return end, let_go


def _become(ops: tuple[Op, ...], context: Context, report: Report, end: int) -> tuple[Op, ...]:
    """Let the new process begin; from here on it is the one that runs. The ops that are left for it to do."""
    ops = tuple(op for op in ops if not isinstance(op, Borrow))  # this process was born in what was borrowed
    new = ops[0] if ops and isinstance(ops[0], NewNamespaces) else None
    if new and new.kinds:
        report.pid = new.execute(context)
        context.made = new.kinds
        if new.maps:
            new.maps.write("self")
            context.root = True
    else:
        os.close(end)  # and with it the switch: nobody takes its place
        report.pid = os.getpid()
    return ops[1:] if new else ops


def _rehearse(signals: int) -> None:
    """Go through the motions of a request, so that its pages are this process's own before there is one."""
    maps = IdMaps((IdRange(0, 0, 1),), (IdRange(0, 0, 1),), "deny")
    plan = (NewNamespaces(("mnt", "user"), maps), BecomeRoot(), Adopt())
    mine, theirs = channel.pair()
    with mine, theirs:
        channel.send(mine, Start(plan, Execute(("/",), None), ("reply",), "nslab-standby"), (theirs.fileno(),))
        request, fds = channel.receive(theirs)
        context = Context({}, dict(zip(request.fds, fds, strict=True)), made=("mnt", "user"), root=True)
        report = Report(context.fds["reply"])
        syscalls.write_file("/dev/null", maps.text(maps.uid))
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
