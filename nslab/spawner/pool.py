"""The standbys of a server: so many as are likely to be wanted next, and those at work."""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import replace

from nslab import syscalls
from nslab.errors import NslabError
from nslab.spawner import channel
from nslab.spawner.standby import Standby
from nslab.syscalls import guard


class Pool:
    """Keeps standbys; ``live(sock)`` is the life of a new one, in a process of its own."""

    def __init__(self, live: Callable[..., None], poller: select.poll):
        self._live = live
        self._poller = poller
        self._idle: list[Standby] = []  # those that had no request yet first, the oldest in front
        self._wanted = 1  # so many of them
        self.making: dict[int, Standby] = {}  # by PID, those that took a request and have not said yet which process does it
        self._outdated: set[int] = set()  # by PID, those that shall not come back
        self._lending: dict[int, Standby] = {}  # those whose memory is in use, and may come back

    @property
    def there(self) -> int:
        """How many there are, or may come back."""
        return len(self._idle) + len(self.making) + len(self._lending)

    @property
    def short(self) -> bool:
        """Whether there are fewer than are likely to be wanted."""
        return self.there < self._wanted

    def pids(self) -> list[int]:
        return [*self._lending, *self.making, *(standby.pid for standby in self._idle)]

    def replenish(self) -> None:
        """Have one more, unless there may be no more processes or descriptors: then the next request is told so."""
        try:
            self._idle.insert(sum(standby.fresh for standby in self._idle), self._new())
        except OSError:
            self._wanted = 0

    def _new(self) -> Standby:
        mine, theirs = channel.pair()
        with theirs:
            guard.collect()
            pid = syscalls.fork()
            if pid == 0:
                self._live(theirs)
        return Standby(pid, mine)

    def dismiss(self) -> None:
        """End those that are idle, and the others later: they lack what was loaded since they were made."""
        self._outdated = {*self.making, *self._lending}
        while self._idle:
            self._idle.pop().sock.close()

    def give(self, data: bytes, fds: list[int], *, returns: bool) -> Standby:
        """The standby that took the request; another one, should somebody have killed it.

        What ``returns`` gets the one that came back last; what keeps its memory uses up a new one, and more may follow.
        """
        made = False
        while not made:
            made = not self._idle  # for this request: when even that one has ended, something is wrong
            standby = self._new() if made else self._idle.pop(-1 if returns else 0)
            try:
                channel.pass_on(standby.sock, data, fds)
            except (BrokenPipeError, ConnectionResetError):
                standby.sock.close()
                continue
            self.making[standby.pid] = standby
            self._poller.register(standby.sock, select.POLLIN)
            self._wanted = max(self._wanted, 1 if returns else 2)
            return standby
        raise NslabError("a new process of the spawner ends before it can take a request.")

    def forget(self, pid: int) -> None:
        """It was reaped, and gets no request: what it had started may keep its end of the channel open for a moment."""
        for standby in [standby for standby in self._idle if standby.pid == pid]:
            self._idle.remove(standby)
            standby.sock.close()
        if pid in self._lending:
            self._outdated.add(pid)

    def at_work(self) -> list[Standby]:
        return [*self.making.values(), *self._lending.values()]

    @staticmethod
    def has_word(standby: Standby, patience: int) -> bool:
        """Whether within so many ms there is something to hear from it."""
        poller = select.poll()
        poller.register(standby.sock, select.POLLIN)
        return bool(poller.poll(patience))

    def hear(self, standby: Standby) -> int:
        """The PID of the process that does the request, often its own, at first; later 0, when it is free again, or is gone."""
        asked = self.making.pop(standby.pid, None)
        try:
            (pid,), _ = channel.receive(standby.sock)
        except EOFError:  # it failed, and has said why; or it has lent its memory for good
            pid = -1
        if asked and pid > 0:
            self._lending[standby.pid] = standby
            return int(pid)
        self._poller.unregister(standby.sock)
        self._lending.pop(standby.pid, None)
        if pid == 0 and len(self._idle) < self._wanted and standby.pid not in self._outdated:
            self._idle.append(replace(standby, fresh=False))
        else:
            standby.sock.close()
        return 0
