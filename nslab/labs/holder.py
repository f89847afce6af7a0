"""The holder: the process that deploys a lab in the background, holds it, changes it, and hands out its descriptors.

It ends, and the lab with it, when it is asked to, at SIGTERM, when its spawner dies, and when whoever brought it up is gone
before the lab is up. If it is killed, its watchdog ends what is below it, and the next command removes its socket.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from nslab import spawner
from nslab.container.listing import HOLDER
from nslab.errors import NslabError
from nslab.labs import messages, places
from nslab.labs.ending import end_members
from nslab.namespaces import Namespace
from nslab.spawner import Descriptor
from nslab.syscalls import guard
from nslab.topology import Topology, files
from nslab.topology.lab import Lab
from nslab.trace import record

MODULE = __name__
EVERY = 0.1  # seconds between two words about how much is done


class _End(BaseException):
    """The end of the holder; no error, and not to be taken for one."""


class Holder:
    """A lab, from its deployment on, and its clients."""

    def __init__(self, asked: dict[str, Any], report: socket.socket, listening: socket.socket):
        self.topology = files.construct(Topology, asked["topology"])
        self.file = asked["file"]
        self.started = time.time()
        self.lab: Lab | None = None
        self._report = report
        self._next_word = 0.0  # when to tell how far it is, as of time.monotonic()
        self._listening = listening
        self._poller = select.poll()
        self._clients: dict[int, socket.socket] = {}
        self._jobs: queue.SimpleQueue[tuple[socket.socket, Any]] = queue.SimpleQueue()  # what is asked of the lab itself
        self._woken = Descriptor(os.eventfd(0, os.EFD_CLOEXEC))
        self._version = 0  # how often the lab was changed

    def run(self) -> NoReturn:
        """Deploy, say so, do what is asked of the lab, one thing after the other, and wait for an end."""
        signal.signal(signal.SIGTERM, _end)
        threading.Thread(target=self._serve, daemon=True).start()
        with (
            self.topology.deploy(progress=self._tell_progress) as lab,
            Descriptor(os.pidfd_open(spawner.ensure().watchdog.pid)) as watchdog,
        ):
            self.lab = lab
            messages.send(self._report, {"up": self._about()})
            os.dup2(0, 2)  # from here on nobody reads what goes wrong
            poller = select.poll()
            for each in (watchdog, self._woken):
                poller.register(each, select.POLLIN)
            try:
                while all(fd != watchdog.fileno() for fd, _ in poller.poll()):
                    os.eventfd_read(self._woken.fileno())
                    while not self._jobs.empty():
                        self._do(lab, *self._jobs.get())
            finally:
                end_members({network.namespace.id for network in lab.networks.values()})
        raise _End

    def _tell_progress(self, done: float) -> None:
        now = time.monotonic()
        if now >= self._next_word:
            self._next_word = now + EVERY
            with contextlib.suppress(OSError):  # who brought it up does not listen
                messages.send(self._report, {"done": done})

    # -- what is asked of the lab ---------------------------------------------------------------------------------------

    def _do(self, lab: Lab, sock: socket.socket, asked: Any) -> None:
        """Do it and answer; a client that is gone, or sent what is none, is for the other thread to see."""
        with contextlib.suppress(OSError):
            try:
                messages.send(sock, *self._done(lab, asked))
            except NslabError as error:
                messages.send(sock, {"refused": str(error)})
            except (ValueError, LookupError, TypeError, AttributeError):
                sock.shutdown(socket.SHUT_RDWR)

    def _done(self, lab: Lab, asked: Any) -> tuple[dict[str, Any], list[int]]:
        if asked["ask"] == "lab":
            return self._lab_in_full(lab), []
        if asked["version"] != self._version:
            raise NslabError(
                f"the lab {self.topology.name!r} was changed by somebody else meanwhile.\n"
                "  what to do: lab.refresh() shows what it is now; then change that."
            )
        if asked["ask"] == "apply":
            return self._apply(lab, asked), []
        first = int(asked["first"])
        return {}, [each.fileno() for each in _held(lab)[first : first + messages.AT_ONCE]]

    def _apply(self, lab: Lab, asked: Any) -> dict[str, Any]:
        """Change the lab to another topology; what ran in nodes that go, whoever started it there, ends."""
        wanted = files.construct(Topology, asked["topology"])
        before, steps = {each.id for each in _held(lab)}, len(lab.trace)
        with record() as trace:
            changes = self.topology.apply(wanted)
        self._version += bool(changes)
        end_members(before - {each.id for each in _held(lab)})
        return {
            "version": self._version, "done": changes.done, "requests": changes.requests,
            "steps": lab.trace[steps:], "script": trace.shell(),
        }  # fmt: skip

    # -- clients, in a thread of their own: no answer takes long, and none waits for a client ----------------------------

    def _serve(self) -> None:
        self._listening.setblocking(False)
        for each in (self._listening, self._report):
            self._poller.register(each, select.POLLIN)
        while True:
            for fd, _ in self._poller.poll():
                if fd == self._listening.fileno():
                    self._accept()
                elif fd == self._report.fileno():  # who brought it up is gone
                    self._poller.unregister(fd)
                    if self.lab is None:
                        os.kill(os.getpid(), signal.SIGTERM)
                else:
                    self._answer(self._clients[fd])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listening.accept()
            if messages.peer(sock)[1] != os.geteuid():
                sock.close()
                return
            sock.setblocking(False)
            self._clients[sock.fileno()] = sock
            self._poller.register(sock, select.POLLIN)

    def _answer(self, sock: socket.socket) -> None:
        """Answer one request; a client that is gone, sends what is none, or does not read is let go."""
        try:
            asked, fds = messages.receive(sock)
            for fd in fds:
                fd.close()
            if asked["ask"] in ("lab", "descriptors", "apply") and self.lab:
                self._jobs.put((sock, asked))
                os.eventfd_write(self._woken.fileno(), 1)
            else:
                messages.send(sock, self._reply(asked))
        except NslabError as error:
            with contextlib.suppress(OSError):
                messages.send(sock, {"refused": str(error)})
        except (OSError, EOFError, ValueError, LookupError, TypeError):
            self._poller.unregister(sock)
            del self._clients[sock.fileno()]
            sock.close()

    def _reply(self, asked: Any) -> dict[str, Any]:
        if asked["ask"] == "end":
            os.kill(os.getpid(), signal.SIGTERM)
            return {"ending": True}
        if asked["ask"] == "about":
            return self._about()
        if self.lab is None:
            raise NslabError(f"the lab {self.topology.name!r} is being deployed; try again in a moment.")
        raise ValueError(asked["ask"])

    def _about(self) -> dict[str, Any]:
        return {
            "name": self.topology.name, "file": self.file, "pid": os.getpid(), "started": self.started,
            "running": self.lab is not None, "nodes": {node.name: node.role for node in self.topology},
            "links": len(self.topology.links),
        }  # fmt: skip

    def _lab_in_full(self, lab: Lab) -> dict[str, Any]:
        """What a client needs to use and to change it, besides the descriptors."""
        interfaces = [[node, name, each.index] for (node, name), each in lab.interfaces.items()]
        return {
            "topology": files.describe(self.topology), "nodes": list(lab.networks), "fabric": lab.fabric is not None,
            "interfaces": interfaces, "bridges": {name: each.index for name, each in lab.bridges.items()},
            "descriptors": len(_held(lab)), "version": self._version,
        }  # fmt: skip


def _held(lab: Lab) -> list[Namespace]:
    """The namespaces of a lab, always in the same order: two a node, its network and its host name, and the fabric."""
    found = [each for name, network in lab.networks.items() for each in (network.namespace, lab.hostnames[name])]
    return found + ([lab.fabric.namespace] if lab.fabric else [])


def _end(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is not to be interrupted by another one
    raise _End


def main(number: int) -> NoReturn:
    """What the process runs; ``number`` is the descriptor of the socket over which it is told what to hold, and reports."""
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(each, signal.SIG_IGN)
    with socket.socket(fileno=number) as report:
        os.set_inheritable(number, False)
        asked, _ = messages.receive(report)
        guard.own_command_line()
        guard.name_process(f"{HOLDER} {asked['topology']['name']}")
        os.chdir("/")
        try:
            with places.listening(asked["topology"]["name"]) as listening:
                try:
                    Holder(asked, report, listening).run()
                finally:
                    spawner.shutdown()
        except _End:
            pass
        except NslabError as error:
            _tell(report, {"failed": str(error)})
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            _tell(report, {"failed": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _tell(report: socket.socket, message: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        messages.send(report, message)
