"""The watchdog: the parent of the spawner, which outlives it and the notebook just long enough to leave nothing behind.

It adopts orphans and watches two processes: the client (the notebook, its parent) and the spawner. When either is gone it
kills its children until there are none. It is a session of its own, since Jupyter signals the kernel's whole group.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
from typing import NoReturn

from nslab import procfs, syscalls
from nslab.spawner.reaper import Reaper
from nslab.spawner.registry import Registry
from nslab.spawner.server import Server
from nslab.syscalls import guard


def main(control: int, client: int, noted: int) -> NoReturn:
    """``control`` is the server's end of the channel, ``client`` the PID of the parent, ``noted`` the memfd of a Registry."""
    syscalls.allow()
    guard.own_command_line()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    client_fd = os.pidfd_open(client)
    if os.getppid() != client:  # it died while we started, and the number may be somebody else's
        os._exit(0)
    myself = os.pidfd_open(os.getpid())
    guard.name_process("nslab-watchdog")
    journal = os.memfd_create("nslab-journal", os.MFD_CLOEXEC)
    fcntl.fcntl(journal, fcntl.F_SETFL, os.O_APPEND)  # two servers write to it
    os.set_inheritable(noted, False)
    registry = Registry(noted)
    spawner = os.fork()
    if spawner == 0:
        os.close(client_fd)
        guard.name_process("nslab-spawner")
        try:
            Server(socket.socket(fileno=control), myself, procfs.namespaces(), journal, registry).serve()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(1)
    os.close(control)
    spawner_fd = os.pidfd_open(spawner)
    while not select.select([client_fd, spawner_fd], [], [])[0]:
        continue
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(spawner_fd, signal.SIGKILL)
    Reaper().end_orphans()
    if os.fstat(journal).st_size:
        from nslab.spawner.cgroups import sweep

        sweep(journal)
    registry.remove()
    os._exit(0)
