"""The spawner: one thread, which makes processes in new namespaces and itself enters none.

It stays in the machine's net, mnt, pid and ipc namespaces. What has to be entered is entered by a child, since there is no
way back out of a user namespace. For an ordinary user there is a second one of the same kind that was born inside the
user namespace that nslab borrows, and likewise never leaves it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from nslab import procfs, syscalls
from nslab.errors import DeadNamespace, NslabError, SyscallError
from nslab.model import NamespaceId
from nslab.ops import Borrow, Context, Idmapped, IdMaps, InCgroup, NewNamespaces
from nslab.spawner import aside, channel, child
from nslab.spawner.launch import find
from nslab.spawner.messages import ALONE, BARE, RETURNS, OpenBorrowed, Regroup, Start
from nslab.spawner.pool import Pool
from nslab.spawner.reaper import Reaper
from nslab.spawner.registry import Registry
from nslab.spawner.report import Report, portable, tell
from nslab.spawner.standby import Standby
from nslab.syscalls import guard

if TYPE_CHECKING:
    from nslab.spawner.cgroups import Groups

RESERVE = 64  # descriptors that no request gets: what ends needs some, and who takes none is not told of it
PATIENCE = 5  # ms that a request may wait for the news that its process was made
STANDSTILL = 100  # ms of silence after which a standby may have been stopped


class Server:
    """Serves the requests that come on ``control`` until it is closed or the watchdog dies; then ends all it made."""

    def __init__(
        self, control: socket.socket, watchdog: int, machine: Mapping[str, NamespaceId], journal: int, registry: Registry, *,
        inside: bool = False,
    ):  # fmt: skip
        self.control = control
        self.registry = registry
        self.inside = inside  # it is the second server, in the borrowed user namespace
        self.watchdog = watchdog  # a pidfd
        self.machine = machine
        self.journal = journal  # of the cgroups that are made
        self._groups: Groups | None = None
        self.children: dict[int, int] = {}  # PID -> the descriptor on which it is answered
        self.untold: dict[int, list[Any]] = {}  # PID -> the calls that made it, as long as nobody was told of it
        self.bare: dict[int, int] = {}  # the descriptor on which it is answered -> PID, of an init that cannot see it close
        self.poller = select.poll()
        self.pool = Pool(self._stand_by, self.poller)
        self.loaded = 0  # which needs of requests were met before
        self.borrowed = 0  # the PID of the second server
        self.reaper = Reaper()
        self.files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.files[1], self.files[1]))
        self.room = self.files[1] - min(RESERVE, self.files[1] // 4)
        self.signals = syscalls.signalfd(child.SIGNALS)
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)

    def serve(self) -> NoReturn:
        gc.collect()
        gc.freeze()  # what is here now is never looked at again, so that children share its pages
        gc.disable()
        for fd in (self.control, self.signals, self.watchdog):
            self.poller.register(fd, select.POLLIN)
        while True:
            short = self.pool.short
            patience = 0 if short else PATIENCE if self.untold else None
            ready = {fd for fd, _ in self.poller.poll(patience)}
            if not ready and short:
                self.pool.replenish()
            elif not ready:
                self.announce()
            if self.watchdog in ready:
                break
            for standby in self.pool.at_work():
                if standby.sock.fileno() in ready:
                    self.hear(standby)
            for fd in ready & self.bare.keys():
                self.poller.unregister(fd)
                os.kill(self.bare.pop(fd), signal.SIGKILL)
            if self.signals in ready:
                os.read(self.signals, 128 * 64)
                self.reap()
            if self.control.fileno() in ready:
                try:
                    data, fds = channel.take(self.control)
                except EOFError:
                    break
                if max(fds) >= self.room:  # each has the lowest number that is free
                    self.refuse(fds)
                elif data[0] & ALONE:
                    self.hand_over(data, fds)
                else:
                    message, fds = channel.decoded(data, fds)
                    self.handle(message, dict(zip(message.fds, fds, strict=True)))
        self.end()

    def refuse(self, fds: list[int]) -> None:
        """Turn a request down, some descriptors of which may be missing, since the table is full; the first one is there."""
        error = NslabError(
            f"the spawner may have {self.files[1]} descriptors, and each container and command takes some of them.\n"
            "  what to do: close what is not needed any more, or raise the limit before Jupyter starts (ulimit -Hn)."
        )
        tell(fds[0], [], "failed", portable(error))
        tell(fds[0], [], "gone", 0)
        for fd in fds:
            os.close(fd)

    # -- by a standby: what needs nothing of the spawner ----------------------------------------------------------------

    def _stand_by(self, sock: socket.socket) -> NoReturn:
        Standby.live(sock, Context(self.machine, {}), self.watchdog, self.signals, self.files)

    def hand_over(self, data: bytes, fds: list[int]) -> None:
        """Give a request, as it came, to a standby. Its first descriptor is the channel on which it is answered."""
        reply = fds[0]
        if missing := data[0] & ~(ALONE | RETURNS | BARE) & ~self.loaded:
            child.get_ready(missing)
            self.loaded |= missing
            self.pool.dismiss()
        try:
            standby = self.pool.give(data, fds, returns=bool(data[0] & RETURNS))
        except (NslabError, OSError) as error:
            tell(reply, [], "failed", portable(error))
            tell(reply, [], "gone", 0)
            os.close(reply)
        else:
            self.children[standby.pid] = reply
            if data[0] & BARE:
                self.bare[reply] = 0
        finally:
            for fd in fds[1:]:
                os.close(fd)

    def hear(self, standby: Standby) -> None:
        """Learn which process does a request."""
        if pid := self.pool.hear(standby):
            self.children[pid] = reply = self.children.pop(standby.pid)
            self.untold[pid] = []
            if reply in self.bare:
                self.watch(pid, reply)

    def hear_all(self) -> None:
        """Know every child that was asked for, which a standby says as soon as it can."""
        for standby in [*self.pool.making.values()]:
            while not self.pool.has_word(standby, STANDSTILL):
                while stopped := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG):
                    self.go_on(stopped.si_pid)
            self.hear(standby)

    def go_on(self, pid: int) -> None:
        """Let a child that somebody has stopped go on, if it is a standby or was just made by one: nobody knows of it yet."""
        with contextlib.suppress(OSError):
            if pid in self.pool.pids() or procfs.read(f"{pid}/comm") == b"nslab-standby\n":
                os.kill(pid, signal.SIGCONT)  # it was not reaped: the number is its own

    def end_orphans(self) -> None:
        """End the children that nobody asked for."""
        self.hear_all()
        self.reaper.end_orphans({*self.children, *self.pool.pids()})

    # -- by itself ------------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Tell who was made. What runs alone may wait for it: often its end can be told at once."""
        for pid, calls in self.untold.items():
            tell(self.children[pid], calls, "made", pid)
        self.untold.clear()

    def end(self) -> NoReturn:
        """End everything that it made, and itself."""
        self.reaper.end_orphans()
        for pid in (
            self.children if self.inside else (None,)
        ):  # the first server ends when all is over, and the watchdog may be gone
            self.registry.remove(pid)
        if self._groups:
            self._groups.end()
        os._exit(0)

    @property
    def groups(self) -> Groups:
        """The cgroups, for the few that ask for one."""
        if self._groups is None:
            from nslab.spawner.cgroups import Groups

            self._groups = Groups(self.journal)
        return self._groups

    def handle(self, message: Start | OpenBorrowed | Regroup, fds: dict[str, int]) -> None:
        """Answer one request; whatever goes wrong is told on its reply channel."""
        reply = fds["reply"]
        calls = guard.collect()
        try:
            if isinstance(message, Regroup):
                self.regroup(message)
                tell(reply, calls, "gone", 0)
                os.close(reply)
                return
            pid = self.open_borrowed(message, fds) if isinstance(message, OpenBorrowed) else self.start(message, fds)
        except (NslabError, OSError) as error:
            tell(reply, calls, "failed", portable(error))
            tell(reply, [], "gone", 0)
            os.close(reply)
        else:
            self.children[pid] = reply
            self.untold[pid] = calls
            if isinstance(message, Start) and message.bare:
                self.watch(pid, reply)
            if not (isinstance(message, Start) and message.lone):
                self.announce()
        finally:
            for name, fd in fds.items():
                if name != "reply":
                    os.close(fd)

    def start(self, request: Start, fds: dict[str, int]) -> int:
        """Make the process; what the plan says after NewNamespaces is done in it, what it says before on the way to it."""
        ops = request.ops
        at = next((index for index, op in enumerate(ops) if isinstance(op, NewNamespaces)), -1)
        new = ops[at] if at >= 0 else None
        kinds = new.kinds if isinstance(new, NewNamespaces) else ()
        child.get_ready(request.needs)
        maps = new.maps if isinstance(new, NewNamespaces) and "user" in kinds else None
        way = tuple(op for op in ops[: max(at, 0)] if not isinstance(op, Borrow | Idmapped | InCgroup))
        user = aside.user_part(way)
        # One wakeup less, and less work while the child needs the pages. A mount table that was joined may have another /proc.
        by_itself = maps is not None and maps.single and not aside.joins(way, "mnt")
        context = Context(self.machine, fds, root=by_itself, made=kinds)
        for op in ops[: max(at, 0)]:
            if isinstance(op, Idmapped):  # which what is made below cannot do for itself
                op.execute(context)
        cgroup = next((op for op in ops if isinstance(op, InCgroup)), None)
        fresh = cgroup is not None and self.open_cgroup(cgroup, fds)
        mapped, written = os.pipe() if maps and not by_itself else (-1, -1)
        try:
            make = new.execute if new and (kinds or way) else aside.fork
            nests = "pid" in kinds and aside.joins(way, "pid")
            pid = aside.aside(way, make, context, member=nests) if way else make(context)
            if pid and nests:
                pid = aside.child_known_as(pid, self.children)
            if pid == 0:
                self.control.close()  # else a child that waits before an op would keep up the look that somebody serves it
                first = partial(maps.write, "self") if maps and by_itself else partial(os.read, mapped, 1) if maps else None
                child.live(request, ops[at + 1 :], context, Report(fds["reply"]), self.signals, self.files, first)
            if maps and not by_itself:
                if user:  # only who is in the parent user namespace may write them
                    aside.aside(user, lambda _: self.write_maps(pid, maps), context)
                else:
                    self.write_maps(pid, maps)
                os.write(written, b"!")
        except BaseException:
            self.end_orphans()
            if cgroup and fresh:
                self.groups.remove(cgroup)
            raise
        finally:
            for fd in (mapped, written):
                if fd >= 0:
                    os.close(fd)
        if cgroup and fresh:
            self.groups.owned[pid] = cgroup
        return pid

    def watch(self, pid: int, reply: int) -> None:
        """End a minimal init when the notebook's end of its channel is closed: it holds nothing."""
        self.bare[reply] = pid
        self.poller.register(reply, 0)

    def open_cgroup(self, cgroup: InCgroup, fds: dict[str, int]) -> bool:
        """Open the cgroup that a process is to be born in as the descriptor "cgroup"; whether it was made for this one."""
        fresh = not cgroup.found and not self.groups.has(cgroup)
        if fresh:
            self.groups.make(cgroup)
        fds["cgroup"] = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return fresh

    def regroup(self, request: Regroup) -> None:
        """Freeze first: what is moved into a frozen cgroup stands still at once, and makes no child that would be missed."""
        if request.owner not in self.children:
            raise DeadNamespace("the container has just ended.")
        if not self.groups.has(request.cgroup):
            self.groups.make(request.cgroup)
            self.groups.owned[request.owner] = request.cgroup
        syscalls.write_file(f"{request.cgroup.path}/cgroup.freeze", "1" if request.freeze else "0")
        for pid in request.pids:
            with contextlib.suppress(SyscallError):  # it has ended
                syscalls.write_file(f"{request.cgroup.path}/cgroup.procs", str(pid))

    def write_maps(self, pid: int, maps: IdMaps) -> None:
        """Write the id maps of the new user namespace that process ``pid`` is in, from outside it."""
        if maps.helpers:
            self.write_by_helper("newuidmap", pid, maps.uid)
            self.write_by_helper("newgidmap", pid, maps.gid)
            return
        maps.write(pid)

    def write_by_helper(self, tool: str, pid: int, ranges: Any) -> None:
        """newuidmap(1) or newgidmap(1): setuid programs that check /etc/subuid or /etc/subgid."""
        path = find(tool, dict(os.environ))
        argv = [tool, str(pid), *(str(number) for line in ranges for number in line)]
        helper = syscalls.posix_spawn(path, argv, os.environ)
        if os.waitpid(helper, 0)[1] != 0:
            raise SyscallError(tool, tuple(argv[1:]), 1, "it refused the map: no_new_privs, or not in /etc/subuid or subgid.")

    def open_borrowed(self, request: OpenBorrowed, fds: dict[str, int]) -> int:
        """Start the second server inside a new user namespace."""
        mapped, written = os.pipe()
        pid = NewNamespaces(("user",)).perform(Context(self.machine, fds))
        if pid == 0:
            self._serve_inside(fds["control"], mapped)
        try:
            self.write_maps(pid, request.maps)
            os.write(written, b"!")
        except BaseException:
            self.end_orphans()
            raise
        finally:
            os.close(mapped)
            os.close(written)
        self.borrowed = pid
        return pid

    def _serve_inside(self, control: int, mapped: int) -> NoReturn:
        """The life of the second server, from its first instruction."""
        try:
            child.close_others([control, self.watchdog, self.journal, self.registry.fd, mapped])
            os.read(mapped, 1)
            os.close(mapped)
            resource.setrlimit(resource.RLIMIT_NOFILE, self.files)
            guard.name_process("nslab-borrowed")
            Server(socket.socket(fileno=control), self.watchdog, self.machine, self.journal, self.registry, inside=True).serve()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(1)

    def reap(self) -> None:
        """Bury the dead; whatever outlives the process that was to look after it is ended first."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self.go_on(pid)
                continue
            if pid not in self.children or pid in self.pool.making:
                self.hear_all()
            self.pool.forget(pid)
            if pid == self.borrowed and status != 0:  # killed: nothing of an ordinary user can go on, he gets a new pair
                self.end()  # (with 0 it ended by itself, since an interrupt made the notebook forget it)
            reply = self.children.pop(pid, None)
            if reply is not None:
                self.end_orphans()
                self.registry.remove(pid)
                calls = self.untold.pop(pid, [])
                tell(reply, calls + self._groups.left(pid) if self._groups else calls, "gone", status)
                if self.bare.pop(reply, 0):
                    self.poller.unregister(reply)
                os.close(reply)
