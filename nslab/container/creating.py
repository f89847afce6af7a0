"""Namespaces without a process: descriptors hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from nslab.container.plans import Request
from nslab.errors import SpecError
from nslab.namespaces import Namespace, privilege
from nslab.namespaces.entering import Enterable
from nslab.namespaces.privilege import MapRequest
from nslab.namespaces.view import NamespacesOf, no_such_kind
from nslab.ops import Plan, spec
from nslab.spawner import ensure
from nslab.trace import Trace, emit_script, record


class Namespaces(Enterable, Mapping[str, Namespace]):
    """Namespaces by kind, each held by a descriptor of this process and by nothing else: ``made["uts"]``.

    ``run``, ``popen`` and ``call`` join them all, together. They are gone with close(), at the end of a ``with``, when this
    object is dropped, and with this process, as far as nothing else is in them or holds them. ``trace`` has every system
    call that was made for them.
    """

    def __init__(self, held: Mapping[str, Namespace], trace: Trace):
        self._held = dict(held)
        self.trace = trace

    def __getitem__(self, kind: str) -> Namespace:
        if kind not in self._held:
            raise no_such_kind(kind, self._held)
        return self._held[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def joins(self) -> Mapping[str, Any]:
        return self._held

    @property
    def alive(self) -> bool:
        return all(namespace.alive for namespace in self._held.values())

    def close(self) -> None:
        """Let go of all of them."""
        for namespace in self._held.values():
            namespace.close()

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<Namespaces {', '.join(map(str, self._held.values()))}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = "".join(namespace.row() for namespace in self._held.values())
        return {"text/plain": repr(self), "text/html": f"<div>{escape(repr(self))}</div><table>{rows}</table>"}


def create(
    kinds: str | Iterable[str], *, hostname: str | None = None, domainname: str | None = None, uid_map: MapRequest = "single",
    gid_map: MapRequest | None = None, setgroups: str | None = None, clock: Mapping[str, float | str] | None = None,
    loopback: bool = False, sysctls: Mapping[str, int | str] | None = None, join: Mapping[str, Any] | None = None,
) -> Namespaces:  # fmt: skip
    """New namespaces that are held by descriptors only: the process that makes them ends at once. namespaces(7)

    ``kinds`` names them ("uts time net"); pid cannot be among them, since a PID namespace lives as long as its first process.
    The options say what they hold, as for Container. SpecError before anything is made; SyscallError when a step fails.
    """
    asked = spec.kinds(kinds, "kinds")
    if not asked:
        raise SpecError("kinds", "must name at least one kind of namespace")
    if "pid" in asked:
        raise SpecError(
            "kinds",
            "pid needs a process: a PID namespace takes no new one once its first, its init, has ended: use Container",
        )
    request = Request.checked(
        isolate=asked, hostname=hostname, domainname=domainname, uid_map=uid_map, gid_map=gid_map, setgroups=setgroups,
        clock=clock, loopback=loopback, sysctls=sysctls, join=join,
    )  # fmt: skip
    spawner = ensure()
    trace = Trace()
    held: dict[str, Namespace] = {}
    with record(trace):
        way = request.way(spawner)
        plan = Plan(request.ops(way))
        trace.add_script(plan)
        emit_script(plan)
        child = spawner.start(plan, fds=way.fds, title="nslab-maker", borrowed=privilege.is_borrowed(plan), stay=True)
        try:
            child.settle()
            view = NamespacesOf(child.pid, lambda: child.pidfd)
            for kind in asked:
                held[kind] = view[kind]
        finally:
            child.end()
    return Namespaces(held, trace)
