"""Container: namespaces with an init in them, which commands and functions enter."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from nslab import syscalls
from nslab.container import copying, ending, members, pausing, plans, waiting
from nslab.container import limits as limiting
from nslab.container.members import Members, Stats
from nslab.container.mounts import MountRequest
from nslab.container.pausing import Frozen, Stopped
from nslab.container.plans import Request
from nslab.container.waiting import Condition
from nslab.errors import CommandTimeout, DeadNamespace, NslabError, SpecError, SyscallError
from nslab.model import KINDS, Membership, tables
from nslab.namespaces import joining, privilege, running
from nslab.namespaces.entering import call_inside
from nslab.namespaces.privilege import MapRequest
from nslab.namespaces.result import Result
from nslab.namespaces.running import Running
from nslab.namespaces.streams import Collector, Sink
from nslab.namespaces.view import Viewed, machine_ids
from nslab.ops import Execute, InCgroup, Op, Plan, WriteFile, spec
from nslab.ops.base import SHELL
from nslab.spawner import Call, Child, Descriptor, ensure
from nslab.trace import Trace, emit_script, record

if TYPE_CHECKING:
    from nslab.namespaces.forwarding import Forward


# The containers that have a name and live in this process; the last one of a name counts.
live: weakref.WeakValueDictionary[str, Container] = weakref.WeakValueDictionary()


class Container(Viewed):
    """Namespaces of one's own with an init in them, which commands and functions enter.

    ``isolate`` names the kinds that are new; what is not named is the machine's. ``hostname`` and ``domainname`` need uts.
    ``uid_map`` and ``gid_map`` need user: "single" (root inside is oneself outside), "subordinate" (and the ids above are the
    subordinate ones), or lines of (inside, outside, count). ``setgroups`` is "allow" or "deny". ``clock`` needs time:
    {"monotonic": "+1d", "boottime": 3600}, in seconds. ``proc="old"`` leaves the machine's /proc in sight. ``loopback`` turns
    "lo" on (needs net). ``mqueue`` is the folder at which POSIX message queues show as files (needs ipc and mnt). ``sysctls``
    are settings of its own namespaces: {"kernel.shmmax": 65536, "net.ipv4.ip_forward": 1}. ``join`` shares namespaces that are
    there, by kind: {"net": web, "ipc": 4711}, with a Container, a Process, a Namespace, or the PID of any process, whoever made
    it; a pid or user namespace that is joined and also isolated is a new one inside the one that is there. ``hardened`` closes
    what namespaces leave open, for the container and for every command that enters it, and isolates every kind but time: see
    docs/hardened.md, also for what it does not promise. ``limits`` are held by a cgroup (v2) for all that is inside: {"pids":
    50, "memory": "256M", "cpu": 0.5}, the latter in processors; nslab's init and a supervisor for each command count.
    Unavailable where this user cannot have these controllers.

    ``rootfs`` needs mnt: "machine" (the machine's own files), "busybox", a folder, a tar file or an OCI image layout; whichever
    it is, it stays as it is: what is written goes to memory. ``mounts`` needs mnt: a list of Bind, Tmpfs and Overlay, or short
    "/source:/target:ro". ``propagation`` is "private", "slave" (mounts made outside later are seen inside) or "shared"
    (among those inside).

    It starts at once and ends with close(), at the end of a ``with``, when it is dropped, or with this process.
    ``trace`` has every system call that was made for it.
    """

    def __init__(
        self, name: str = "", *, isolate: str | Iterable[str] = "", hostname: str | None = None, domainname: str | None = None,
        uid_map: MapRequest = "single", gid_map: MapRequest | None = None, setgroups: str | None = None,
        clock: Mapping[str, float | str] | None = None, proc: str = "new", loopback: bool = False,
        mqueue: spec.Folder | None = None, sysctls: Mapping[str, int | str] | None = None, hardened: bool = False,
        join: Mapping[str, Any] | None = None, rootfs: spec.Folder | None = None, mounts: Iterable[MountRequest] = (),
        propagation: str = "private", limits: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self.name = spec.text("name", name)
        request = Request.checked(
            isolate=isolate, hostname=hostname, domainname=domainname, uid_map=uid_map, gid_map=gid_map, setgroups=setgroups,
            clock=clock, proc=proc, loopback=loopback, mqueue=mqueue, sysctls=sysctls, hardened=hardened, join=join,
            rootfs=rootfs, mounts=mounts, propagation=propagation, limits=limits,
        )  # fmt: skip
        self._make(request)

    @classmethod
    def _of(cls, request: Request) -> Container:
        """One without a name, from what was checked before."""
        container = cls.__new__(cls)
        container.name = ""
        container._make(request)
        return container

    def _make(self, request: Request) -> None:
        self._begin(request)
        with record(self.trace):
            self._child = self._start(stepwise=False)
            try:
                self._child.settle()
            except BaseException:
                self._child.end()
                raise
        self._running()

    def _begin(self, request: Request) -> None:
        self.trace = Trace()
        self.kinds = request.kinds
        self._request = request
        self._spawner = ensure()
        with record(self.trace):
            cgroup = request.cgroup(self._spawner)
            way = request.way(self._spawner)
            ops = request.ops(way, cgroup, stay=True)
        self._way = way.fds  # until it is ready
        self.joined = way.kinds
        self._members = tuple(kind for kind in KINDS if kind in self.kinds or kind in way.kinds)
        self._plan = Plan((*ops, *request.confinement()))
        self._borrowed = privilege.is_borrowed(self._plan)
        self._kept: list[Child] = []  # what entered, and may have left something behind
        shell = Plan(request.confinement()).script(SHELL) if request.hardened else f"exec {SHELL}"
        self._cgroup = next((op for op in ops if isinstance(op, InCgroup)), None)
        self._forwards: dict[Forward, str] = {}
        self._held: Stopped | Frozen | None = None  # as long as it is paused
        self._script = _Script(Plan(ops), "cd /\n" if "mnt" in self._members else "", shell)
        self.trace.add_script(self._script)
        emit_script(self._script)

    def _start(self, *, stepwise: bool) -> Child:
        return self._spawner.start(
            self._plan, fds=self._way, title=f"nslab-init {self.name}", borrowed=self._borrowed, stay=True, stepwise=stepwise,
            bare="hidden" if self._request.hardened else "init",
        )  # fmt: skip

    def _running(self) -> None:
        self._way = {}
        self.pid = self._child.pid
        if self.name:
            live[self.name] = self
        ending.everyone.add(self)
        self._finalizer: weakref.finalize[Any, Container] | None = None
        self._ends()

    # -- running things -------------------------------------------------------------------------------------------------

    def run(
        self, command: spec.Command, *, input: str | bytes | None = None, timeout: float | None = None, check: bool = False,
        env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None, user: str | int | None = None, text: bool = True,
        stream: bool | Sink = False, tty: bool = False, max_output: int = running.MAX_OUTPUT,
    ) -> Result:  # fmt: skip
        """Run a command inside and wait for it; what it leaves in the background goes on. Options as for nslab.run.

        DeadNamespace when the container has ended.
        """
        options = {
            "input": input, "timeout": timeout, "check": check, "text": text, "stream": stream, "tty": tty,
            "max_output": max_output,
        }  # fmt: skip
        return self._run(self._work(command, env=env, cwd=cwd, user=user, tty=tty), options)

    def _run(self, work: Execute, options: Mapping[str, Any]) -> Result:
        with self._recorded():
            result = running.complete(lambda fds: self._enter(work, fds), work.argv, lone=False, **options)
        self._script.commands.append(work)
        return result

    def popen(
        self, command: spec.Command, *, env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None,
        user: str | int | None = None, stdin: bool = False,
    ) -> Running:  # fmt: skip
        """Start a command inside and return at once: a handle with pid, pid_inside, wait(), kill(), stdout, ..."""
        work = self._work(command, env=env, cwd=cwd, user=user)
        with self._recorded():
            return Running(lambda fds: self._enter(work, fds), work.argv, stdin=stdin)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a Python function inside, in a process of its own, and return its value; its exception is raised here."""
        with self._recorded():
            return self._call(function, args, kwargs)

    def _call(
        self, function: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, *,
        collector: Collector | None = None, deadline: float | None = None, carry: copying.Carry | None = None,
    ) -> Any:  # fmt: skip
        return call_inside(
            self._enter,
            function,
            args,
            kwargs or {},
            None if "ipc" in self._members else self.pid,
            collector=collector,
            deadline=deadline,
            carry=carry,
            foreign=self._is_foreign(),
        )

    def copy_in(self, source: spec.Folder, target: spec.Folder) -> None:
        """Copy a file or folder of the machine in, as ``target`` or, where that is a folder inside, into it.

        All of it belongs to root inside. No symlink leads out, neither one that is inside nor one that is copied.
        """
        self._copy(*copying.giving(source, target))

    def copy_out(self, source: spec.Folder, target: spec.Folder) -> None:
        """Copy a file or folder from inside, as ``target`` of the machine or, where that is a folder, into it.

        All of it belongs to the caller, without the bits setuid and setgid. Symlinks are copied, not followed.
        """
        self._copy(*copying.taking(source, target))

    def _copy(self, function: Callable[..., Any], args: tuple[str, ...], carry: copying.Carry) -> None:
        if "mnt" not in self._members:
            raise SpecError("target", "the container has the machine's own files; to have others it needs isolate='mnt ...'")
        with record(self.trace):
            self._call(function, args, carry=carry)

    def _is_foreign(self) -> bool:
        """Whether modules that are loaded inside would not be the machine's."""
        root = self._request.rootfs
        return "mnt" in self.joined or (root is not None and not root.is_machine)

    def wait_for(
        self, condition: Condition | None = None, *, path: spec.Folder | None = None, port: int | None = None,
        timeout: float | None = 10,
    ) -> Any:  # fmt: skip
        """Wait until something is true inside, and return that; CommandTimeout after ``timeout`` seconds (None: never).

        One process inside waits. For ``path`` the kernel wakes it (inotify) when something appears there. ``port`` is a TCP
        port that is to be listened on, ``condition`` a command that is to end with status 0 or a Python function that is to
        return something true: it looks again after 1 ms, 2 ms, at most 50 ms, and when a file that the command names changes.
        """
        running.check_timeout(timeout)
        function, args, words = waiting.chosen(condition, path, port, partial(self._work, cwd=None, env=None, user=None))
        heard = Collector(2000, None)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with record(self.trace):
                return self._call(function, args, collector=heard, deadline=deadline)
        except CommandTimeout:
            raise CommandTimeout(waiting.in_vain(words, timeout, heard.output("stderr", True))) from None

    def _work(self, command: spec.Command, *, cwd: spec.Folder | None, **options: Any) -> Execute:
        """A command begins where this process is, or at the root of the container's own mount table."""
        mounted = "mnt" in self._members
        begins = plans.begins(cwd, self._spawner.cwd, elsewhere=mounted)
        places: dict[str, Any] = {"cwd": begins, "rootfs": self._request.rootfs, "joined": self.joined, "mounted": mounted}
        work = privilege.fit(plans.work(command, **places, **options), self._plan.ops)
        return replace(work, before=self._request.confinement(work.before)) if self._request.hardened else work

    def _enter(self, work: Execute | Call, fds: Mapping[str, Any]) -> Child:
        if self.paused:
            raise SpecError("run", "the container is paused; resume() lets it go on, and others enter")
        pidfd = self._must_live()
        ops = plans.entering(self._members, self.pid, privilege.maps_of(self._plan.ops), self._cgroup) + self.inside()
        if self._request.hardened:  # in the process that starts it, which is in sight of those inside
            ops += work.before if isinstance(work, Execute) else self._request.confinement()
            work = replace(work, before=(), launched=True) if isinstance(work, Execute) else work
        plan = Plan(ops, work if isinstance(work, Execute) else None)
        child = self._spawner.start(plan, work=work, fds={**fds, "init": pidfd}, borrowed=self._borrowed)
        self._kept[:] = [kept for kept in self._kept if not kept.is_over]
        self._kept.append(child)
        return child

    def forward(self, port: int, *, local: int = 0, address: str | None = None) -> Forward:
        """Bring a TCP service inside to 127.0.0.1 of the machine, at port ``local`` (0: one that is free).

        A Forward, with ``url`` and close(); it ends with the container too. What is connected to inside is 127.0.0.1, else ::1,
        or the ``address`` that is given. SpecError where the network is the machine's own.
        """
        from nslab.namespaces import forwarding

        pidfd = self._must_live()
        with record(self.trace):
            return forwarding.start(self, self.name, port, local, address, self._forwards, pidfd=pidfd)

    def inside(self) -> tuple[Op, ...]:
        """What else each process that enters does first."""
        return ()

    def joinable(self) -> joining.Target:
        """What others join of it."""
        return joining.of_process(self.pid, self._must_live(), self._members)

    # -- looking at it --------------------------------------------------------------------------------------------------

    _lone = True

    def _standing(self) -> Descriptor | None:
        return self._child.pidfd

    def processes(self) -> Members:
        """The processes inside now, with their PIDs outside and inside: nslab's init first, but none of its supervisors."""
        self._must_live()
        return members.look(self._child, self._kept)

    def stats(self) -> Stats:
        """What it uses now: processes, threads, processor time, memory, descriptors, bytes read from and written to disks."""
        self._must_live()
        return members.measure(self._child, self._kept, limiting.counted(self._cgroup.path) if self._cgroup else {})

    def _must_live(self) -> Descriptor:
        """The pidfd of its init; DeadNamespace when that has ended."""
        pidfd = self._child.pidfd
        if pidfd is None or pidfd.readable():
            raise self._dead()
        return pidfd

    def _dead(self) -> DeadNamespace:
        return DeadNamespace(f"{self!r}: its init (PID {self.pid}) has ended, and with it everything inside.")

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """What is done in it belongs to its trace; an end of its init meanwhile names it."""
        try:
            with record(self.trace):
                yield
        except NslabError as error:
            pidfd = self._child.pidfd
            refused = isinstance(error, SyscallError) and error.call == "setns"  # EPERM, while init is on its way out
            if not (refused or type(error) in (NslabError, DeadNamespace)) or (pidfd and not pidfd.readable(0.1)):
                raise
            raise self._dead() from None

    def membership(self) -> Membership:
        """What a picture shows of it."""
        facts = {}
        if "uts" in self._members and not self.paused:
            facts["host name"] = self._call(os.uname).nodename  # looking leaves no trace
        borrowed = ("user",) if self._borrowed and "user" not in self._members else ()
        return self.namespaces.membership(self.name or "container", borrowed, facts)

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """The value of a setting of its own namespaces ("kernel.shmmax"), after it was set to ``value`` where one is given.

        Refused for one of the machine's, SyscallError where the kernel does not take it. sysctl(8)
        """
        path = spec.sysctl(name, "name")
        if value is not None and self._request.hardened:
            raise SpecError("value", "/proc/sys is read-only in a hardened container; say sysctls= when it is made")
        if value is not None:
            ((path, words),) = spec.sysctls({name: value}, self.kinds).items()
            self.call(syscalls.write_file, path, words)
            self._script.commands.append(Execute(("/bin/sh", "-c", WriteFile(path, words).shell()), None))
        with record(self.trace):
            return str(self._call(syscalls.read_file, (path,), {})).rstrip("\n")

    # -- holding it still -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Hold every process inside still, until resume(); nothing can enter meanwhile.

        With cgroup v2 its freezer does it, all at once and unseen by those inside, in a cgroup that is made now if there is
        none. Where this user may make no cgroup each gets SIGSTOP, until no new one is found. That is seen, by parents that
        wait for stopped children as shells do; and whoever may signal a process can let it go on.
        """
        self._must_live()
        if not self.paused:
            self._ends(still=True)
            with record(self.trace):
                self._held = held = pausing.hold(self._spawner, self._child, self._kept, self._cgroup, self._borrowed)
            if isinstance(held, Frozen):
                self._cgroup = held.cgroup

    def resume(self) -> None:
        """Let all that pause() held still go on; what stood still before it does not."""
        held, self._held = self._held, None
        if held and self.alive:
            with record(self.trace):
                held.resume()
            self._ends()

    @property
    def paused(self) -> bool:
        return self._held is not None

    # -- ending it ------------------------------------------------------------------------------------------------------

    def _ends(self, *, still: bool = False) -> None:
        """See to its end, whoever forgets it; an init that stands ``still`` can say nothing before."""
        if self._finalizer:
            self._finalizer.detach()
        tidy = "ipc" in self.kinds and not self._request.hardened and not still
        spawner = self._spawner if tidy else None
        self._finalizer = weakref.finalize(self, ending.end_all, self._child, self._kept, spawner, self._borrowed)

    def stop(self, timeout: float = 10) -> None:
        """Ask what runs inside to end (SIGTERM), wait up to ``timeout`` seconds, then end the rest."""
        self.resume()
        ending.ask(self._kept, timeout)
        self.close()

    def close(self) -> None:
        """End it, and return when nothing of it is left."""
        if live.get(self.name) is self:
            del live[self.name]
        for forward in self._forwards:
            forward.close()
        with record(self.trace):
            if self._finalizer:
                self._finalizer()
        self._held = None

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        own = ", ".join(self.kinds) or "nothing"
        own += f", joined {', '.join(self.joined)}" if self.joined else ""
        state = "ended" if not self.alive else "paused" if self.paused else "running"
        return f"<Container{name}, PID {self.pid}, isolates {own}, {state}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = []
        if self.alive:
            machine = machine_ids()
            for kind, identity in self.namespaces.ids().items():
                own = identity != machine.get(kind)
                rows.append((kind, f"[{identity.ino}]", "its own" if own else "the machine's"))
        return {"text/plain": repr(self), "text/html": f"<div>{escape(repr(self))}</div>{tables.html(rows, head=False)}"}


class _Script:
    """How a container was made and what ran in it, as one shell script, which ends in a shell inside."""

    def __init__(self, plan: Plan, begin: str, end: str):
        self.plan = plan
        self.begin = begin
        self.end = end
        self.commands: list[Execute] = []

    def shell(self) -> str:
        inner = "\n".join([*(command.shell() for command in self.commands), self.end])
        return self.plan.script(self.begin + inner) + "\n"
