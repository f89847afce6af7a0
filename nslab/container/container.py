"""run, Container and Stepper."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from nslab import procfs, syscalls
from nslab.container import copying, members, plans, waiting
from nslab.container import limits as limiting
from nslab.container.members import Members, Stats
from nslab.container.mounts import MountRequest
from nslab.container.pausing import Frozen, Stopped
from nslab.container.plans import Request
from nslab.container.waiting import Condition
from nslab.errors import CommandTimeout, DeadNamespace, NslabError, SpecError, SyscallError, Unavailable
from nslab.model import KINDS, Membership
from nslab.namespaces import handle, joining, privilege, running, steered
from nslab.namespaces.entering import call_inside
from nslab.namespaces.privilege import MapRequest
from nslab.namespaces.running import Result, Running, Sink
from nslab.namespaces.view import Viewed, machine_ids
from nslab.ops import Execute, InCgroup, NewNamespaces, Op, Plan, RemoveObjects, Setns, WriteFile, spec
from nslab.ops.base import SHELL
from nslab.spawner import Call, Child, Descriptor, Spawner, ensure
from nslab.spawner.messages import LITTERED
from nslab.trace import Trace, emit_script, record

if TYPE_CHECKING:
    from nslab.namespaces.forwarding import Forward


def run(
    command: spec.Command, *, isolate: str | Iterable[str] = "", hostname: str | None = None, domainname: str | None = None,
    uid_map: MapRequest = "single", gid_map: MapRequest | None = None, setgroups: str | None = None,
    clock: Mapping[str, float | str] | None = None, proc: str = "new", loopback: bool = False,
    mqueue: spec.Folder | None = None, sysctls: Mapping[str, int | str] | None = None, rootfs: spec.Folder | None = None,
    mounts: Iterable[MountRequest] = (), propagation: str = "private", input: str | bytes | None = None,
    timeout: float | None = None, check: bool = False, env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None,
    user: str | int | None = None, text: bool = True, stream: bool | Sink = False, tty: bool = False, attach: bool = False,
    max_output: int = running.MAX_OUTPUT, hardened: bool = False, join: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
) -> Result:  # fmt: skip
    """Run one command in new namespaces and return its Result; when it ends, so does everything that it started.

    ``command`` is text for sh, or a list. ``isolate`` names the kinds of namespace that are new ("uts pid", a list, "all");
    ``hostname``, ``domainname``, ``uid_map``, ``gid_map``, ``setgroups``, ``clock``, ``proc``, ``loopback``, ``mqueue``,
    ``sysctls``, ``rootfs``, ``mounts`` and ``propagation`` say what they hold, ``join`` which are shared with somebody, and
    ``limits`` what all of it may use, as for Container.

    ``input`` is given to standard input (else /dev/null), ``timeout`` is in seconds (then CommandTimeout), ``check`` raises
    CommandError on failure, ``env`` replaces the environment, ``cwd`` and ``user`` say where and as whom; ``stream`` shows
    output as it comes (True, or a function of text and "stdout" or "stderr"), ``tty`` gives it a terminal, ``text=False`` keeps
    bytes, ``max_output`` is how many bytes of each stream are kept; ``stream=True`` shows no more than that, and at most 1 MiB
    of each, while a function gets all. ``attach`` gives it the standard streams and the signals of this process, and keeps no
    output: for a program in a terminal, where ``tty`` makes it interactive. ``hardened`` runs it in a container with all that
    Container(hardened=True) adds.

    SpecError before anything is made; SyscallError when a step fails, with nothing left.
    """
    request = Request.checked(
        isolate=isolate, hostname=hostname, domainname=domainname, uid_map=uid_map, gid_map=gid_map, setgroups=setgroups,
        clock=clock, proc=proc, loopback=loopback, mqueue=mqueue, sysctls=sysctls, hardened=hardened, join=join,
        rootfs=rootfs, mounts=mounts, propagation=propagation, limits=limits,
    )  # fmt: skip
    options: dict[str, Any] = {
        "input": input, "timeout": timeout, "check": check, "text": text, "stream": stream, "tty": tty, "attach": attach,
        "max_output": max_output,
    }  # fmt: skip
    if hardened:
        running.checked(input, timeout, stream, max_output)
        plans.work(command, env=env, cwd=cwd, user=user, rootfs=request.rootfs, mounted=True)
        with Container._of(request) as container:
            return container._run(container._work(command, env=env, cwd=cwd, user=user, tty=tty), options)
    spawner = ensure()
    cgroup = request.cgroup(spawner)
    elsewhere = request.rootfs or "mnt" in request.join
    folder = _folder(cwd, "/", "/") if elsewhere else _folder(cwd, os.getcwd(), spawner.cwd)
    work = plans.work(
        command, env=env, cwd=folder, user=user, tty=tty, rootfs=request.rootfs, joined=request.join,
        mounted=bool(request.mounts),
    )  # fmt: skip
    way = request.way(spawner)
    ops = request.ops(way, cgroup)
    work = privilege.fit(work, ops)
    plan = Plan(ops, work)

    def start(fds: Mapping[str, Any]) -> Child:
        emit_script(plan)
        return spawner.start(plan, work=work, fds={**fds, **way.fds}, borrowed=privilege.is_borrowed(plan), lone=True)

    return running.complete(start, work.argv, lone=True, **options)


# The containers that have a name and live in this process; the last one of a name counts.
live: weakref.WeakValueDictionary[str, Container] = weakref.WeakValueDictionary()
_everyone: weakref.WeakSet[Container] = weakref.WeakSet()


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
        _everyone.add(self)
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
        collector: running.Collector | None = None, deadline: float | None = None, carry: copying.Carry | None = None,
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
        heard = running.Collector(2000, None)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with record(self.trace):
                return self._call(function, args, collector=heard, deadline=deadline)
        except CommandTimeout:
            raise CommandTimeout(waiting.in_vain(words, timeout, heard.output("stderr", True))) from None

    def _work(self, command: spec.Command, *, cwd: spec.Folder | None, **options: Any) -> Execute:
        """A command begins where this process is, or at the root of the container's own mount table."""
        places: dict[str, Any] = {"cwd": self._begins(cwd), "rootfs": self._request.rootfs, "joined": self.joined}
        places["mounted"] = "mnt" in self._members
        work = privilege.fit(plans.work(command, **places, **options), self._plan.ops)
        return replace(work, before=self._request.confinement(work.before)) if self._request.hardened else work

    def _begins(self, cwd: spec.Folder | None) -> spec.Folder | None:
        return _folder(cwd, "/", "/") if "mnt" in self._members else _folder(cwd, os.getcwd(), self._spawner.cwd)

    def _enter(self, work: Execute | Call, fds: Mapping[str, Any]) -> Child:
        if self.paused:
            raise SpecError("run", "the container is paused; resume() lets it go on, and others enter")
        pidfd = self._child.pidfd
        if pidfd is None or pidfd.readable():
            raise self._dead()
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

        self._must_live()
        with record(self.trace):
            inside = forwarding.LOOPBACK if address is None else (forwarding.checked(address),)
            made = forwarding.Forward(self, port, local=local, inside=inside, pidfd=self._child.pidfd)
        return forwarding.keep(self._forwards, made, self.name)

    def inside(self) -> tuple[Op, ...]:
        """What else each process that enters does first."""
        return ()

    def perform(self, ops: tuple[Op, ...]) -> None:
        """Have a process enter, with all rights that there are inside, and do this."""
        pidfd = self._child.pidfd
        if pidfd is None or pidfd.readable():
            raise self._dead()
        enter = plans.entering(self._members, self.pid, privilege.maps_of(self._plan.ops))
        if "pid" in self._members:  # whose /proc shows members only, which is what a new process is
            enter += (NewNamespaces(()),)
        plan = Plan((*enter, *ops))
        with self._recorded():
            child = self._spawner.start(plan, fds={"init": pidfd}, borrowed=self._borrowed, stay=True)
            try:
                child.settle()
            finally:
                child.end()

    def joinable(self) -> joining.Target:
        """What others join of it."""
        self._must_live()
        return joining.of_process(self.pid, self._child.pidfd, self._members)

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

    def _must_live(self) -> None:
        if not self.alive:
            raise self._dead()

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

    def _ends(self, *, still: bool = False) -> None:
        """See to its end, whoever forgets it; an init that stands ``still`` can say nothing before."""
        if self._finalizer:
            self._finalizer.detach()
        tidy = "ipc" in self.kinds and not self._request.hardened and not still
        spawner = self._spawner if tidy else None
        self._finalizer = weakref.finalize(self, _end_all, self._child, self._kept, spawner, self._borrowed)

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
                self._held = self._freeze() or Stopped(lambda: members.pids(self._child, self._kept))

    def _freeze(self) -> Frozen | None:
        try:
            cgroup = self._cgroup or limiting.cgroup(self._spawner.group, {})
            held = Frozen(self._spawner, cgroup, self.pid, self._everybody, self._borrowed)
        except (Unavailable, SyscallError):
            return None
        self._cgroup = cgroup
        return held

    def _everybody(self) -> list[int]:
        supervisors = [child.pid for child in self._kept if child.pid and child.gone is None]
        return [self.pid, *supervisors, *members.pids(self._child, self._kept)]

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

    def stop(self, timeout: float = 10) -> None:
        """Ask what runs inside to end (SIGTERM), wait up to ``timeout`` seconds, then end the rest."""
        self.resume()
        deadline = time.monotonic() + timeout
        busy = [child for child in self._kept if child.gone is None and child.ready]
        for child in busy:
            if pidfd := child.work_pidfd():
                with pidfd, contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd.fileno(), signal.SIGTERM)
        for child in busy:
            child.wait_for(lambda child=child: child.status is not None, max(0.0, deadline - time.monotonic()))  # type: ignore[misc]
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
        cells = "".join(f"<tr>{''.join(f'<td style=text-align:left>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return {"text/plain": repr(self), "text/html": f"<div>{escape(repr(self))}</div><table>{cells}</table>"}


def _folder(asked: spec.Folder | None, here: str, initial: str) -> spec.Folder | None:
    """Where a command begins: as asked, seen from ``here``; None for where its process is anyway, ``initial``."""
    if isinstance(asked, str | os.PathLike):
        return os.path.join(here, asked)
    return here if asked is None and here != initial else asked


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


def _end_all(init: Child, entered: list[Child], spawner: Spawner | None, borrowed: bool) -> None:
    """By a ``spawner`` what is left in its IPC namespace is removed, unless somebody else of ours is in that or holds it."""
    for child in entered:
        child.end()
    if not spawner or _is_shared(init.pid):
        init.end()
        return
    path = f"/proc/{init.pid}/ns/ipc"
    with contextlib.suppress(OSError), Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as ipc:
        init.end(politely=True)
        if init.gone == LITTERED << 8 and spawner.alive:
            _tidy(spawner, ipc, path, borrowed)
    init.end()


def _tidy(spawner: Spawner, ipc: Descriptor, path: str, borrowed: bool) -> None:
    """Remove the System V objects of an IPC namespace, of which ``path`` was the file."""
    with contextlib.suppress(NslabError):
        plan = Plan((Setns("ipc", "ipc", path), RemoveObjects()))
        child = spawner.start(plan, fds={"ipc": ipc}, borrowed=borrowed, lone=True)
        try:
            child.settle()
        finally:
            child.end()


def _is_shared(pid: int) -> bool:
    """Whether the IPC namespace of this init lives on, or cannot be tidied up since all stands still."""
    try:
        identity = procfs.namespace(pid, "ipc")
        others = [other.pid for other in list(_everyone) if other.pid != pid and "ipc" in other._members and other.alive]
        others += [process.pid for process in steered.everyone() if process.alive]
        return (
            handle.is_held("ipc", identity)
            or any(procfs.namespace(other, "ipc") == identity for other in others)
            or procfs.stat(pid).state not in "RS"
        )
    except OSError:  # it has ended, or cannot be looked at
        return True


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
