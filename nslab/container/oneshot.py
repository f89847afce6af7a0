"""run: one command in new namespaces, which are gone when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nslab.container import plans
from nslab.container.container import Container
from nslab.container.mounts import MountRequest
from nslab.container.plans import Request
from nslab.namespaces import privilege, running
from nslab.namespaces.privilege import MapRequest
from nslab.namespaces.result import Result
from nslab.namespaces.streams import Sink
from nslab.ops import Plan, spec
from nslab.spawner import Child, ensure
from nslab.trace import emit_script


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
    folder = plans.begins(cwd, spawner.cwd, elsewhere=bool(request.rootfs or "mnt" in request.join))
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
