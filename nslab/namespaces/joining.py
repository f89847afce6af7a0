"""Joining namespaces that are there: what may stand for them, in which order they are entered, and from where.

Whoever has CAP_SYS_ADMIN joins from where he is, the user namespace last, since it may take that away. An ordinary user has
it only inside user namespaces of his own. If all that is joined belongs to the borrowed one, he joins from there, as he
makes things there; else he enters, from outside, the user namespace to which all of it belongs, and that comes first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MethodType
from typing import TYPE_CHECKING, Any

from nslab import procfs
from nslab.errors import DeadNamespace, SpecError
from nslab.model import KINDS, IdRange, NamespaceId
from nslab.namespaces import privilege
from nslab.ops import BecomeRoot, Borrow, IdMaps, Join, Op, Setns, spec
from nslab.spawner import Descriptor, Spawner

if TYPE_CHECKING:
    from nslab.namespaces.handle import Namespace

WHY_ENTER = "an ordinary user may join what belongs to another user namespace only from inside that"
WHY_ROOT = "whoever joins a user namespace has its capabilities, and becomes its root where it has one"


@dataclass(frozen=True)
class Target:
    """What is joined: a process (``pid``) by its pidfd, or a namespace of this ``kind`` by its own descriptor.

    ``namespace`` opens a namespace of it; ``own`` are the kinds that are not just those of the place where it was made (None:
    to be looked at), ``path`` is where a script finds it.
    """

    descriptor: Descriptor | Namespace
    namespace: Callable[[str], Namespace]
    pid: int = 0
    kind: str = ""
    own: tuple[str, ...] | None = None
    path: Callable[[], str] = str

    def op(self, fd: str, kinds: tuple[str, ...]) -> Op:
        if self.pid:
            return Join(fd, self.pid, kinds)
        return Setns(fd, self.kind, self.path())

    def owners(self, kind: str) -> list[NamespaceId]:
        """The user namespace that owns it (a user namespace: itself) and those above, as far up as can be seen."""
        found: list[NamespaceId] = []
        with contextlib.ExitStack() as stack, contextlib.suppress(PermissionError):
            here: Namespace | None = stack.enter_context(self.namespace(kind))
            if kind != "user" and here:
                here = here.owner
            while here:
                stack.enter_context(here)
                found.append(here.id)
                here = here.parent
        return found


Targets = Mapping[str, Target]


def checked(join: Any, isolated: tuple[str, ...]) -> dict[str, Target]:
    """{"net": web} -> what is to be joined, by kind; SpecError for what cannot be, DeadNamespace for what has ended."""
    if not join:
        return {}
    if not isinstance(join, Mapping):
        raise SpecError("join", f"must be a dict of kinds and who is in them, as {{'net': web}}, not {type(join).__name__}")
    found: dict[str, Target] = {}
    known: dict[tuple[type, Any], Target] = {}  # whoever is named for several kinds is joined once
    for key, value in join.items():
        if not isinstance(key, str):
            raise SpecError("join", f"{key!r} is no kind of namespace ({', '.join(KINDS)})")
        for kind in spec.kinds(key, "join"):
            if kind in isolated and not KINDS[kind].hierarchical:  # those can be new inside of what is joined
                raise SpecError("join", f"{kind} can be new (isolate) or joined, not both")
            if kind in found:
                raise SpecError("join", f"{kind} is named twice")
            one = value[kind] if isinstance(value, Mapping) and kind in value else value
            if isinstance(joins := getattr(value, "joins", None), MethodType):  # whose namespaces are known by their kinds
                one = joins().get(kind, value)
            key_of = (type(one), one if isinstance(one, int) else id(one))
            known[key_of] = found[kind] = known.get(key_of) or target(one, kind)
            if found[kind].kind not in ("", kind):
                raise SpecError("join", f"{kind}: {one} is a namespace of another kind")
    return {kind: found[kind] for kind in KINDS if kind in found}


def target(value: Any, kind: str) -> Target:
    """A Container, Process, Namespace or PID as something to join."""
    if isinstance(value, int) and not isinstance(value, bool):
        return of_pid(spec.number("join", value, 1, spec.MAX_PID))
    if isinstance(joinable := getattr(value, "joinable", None), MethodType):
        made: Target = joinable()
        return made
    raise SpecError("join", f"{kind}: must be a Container, Process, Node, Namespace or a PID, not {type(value).__name__}")


def of_pid(pid: int) -> Target:
    """Any process of the machine, whoever made it; held by a pidfd, so that its number cannot come to mean another."""
    try:
        return of_process(pid, Descriptor(os.pidfd_open(pid)))
    except ProcessLookupError:
        raise DeadNamespace(f"there is no process {pid} (any more).") from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        raise SpecError("join", f"{pid} is a thread; the PID of its process is wanted") from None


def of_namespace(namespace: Namespace) -> Target:
    """A namespace by a handle; DeadNamespace when that was closed."""
    try:
        held = namespace.hold()
    except ValueError:
        raise DeadNamespace(f"this handle on {namespace} was closed.") from None
    return Target(held, lambda _: held.hold(), kind=held.kind, path=namespace.path)


def of_process(pid: int, pidfd: Descriptor | None, own: tuple[str, ...] | None = None) -> Target:
    """A process by its pidfd; DeadNamespace when it has ended."""
    from nslab.namespaces.handle import Namespace  # which is built on this

    def namespace(kind: str) -> Namespace:
        opened = Namespace.of(pid, kind)
        if pidfd is None or pidfd.readable():
            opened.close()
            raise DeadNamespace(f"process {pid} has ended, and its namespaces cannot be joined by its PID any more.")
        return opened

    if pidfd is None or pidfd.readable():
        raise DeadNamespace(f"process {pid} has ended, and its namespaces cannot be joined by its PID any more.")
    return Target(pidfd, namespace, pid, own=own)


@dataclass(frozen=True)
class Way:
    """How a process comes to where it is to be: ``ops``, with the descriptors ``fds`` that they name; ``kinds`` are those that
    it joins. ``around`` are the maps of the user namespace that it is then in, None for that of the machine.
    """

    ops: tuple[Op, ...] = ()
    fds: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    around: IdMaps | None = None


def way(targets: Targets, spawner: Spawner) -> Way:
    """The way into all that is to be joined: for an ordinary user from the borrowed user namespace, or through another one."""
    borrow = privilege.borrow(spawner)
    start = Way((borrow,) if borrow else (), {}, (), spawner.borrowed if borrow else None)
    if not targets:
        return start
    joined = {kind: one for kind, one in targets.items() if not _shared(kind, one, spawner)}
    shared = tuple(kind for kind in targets if kind not in joined)
    ops: list[Op] = [Join("", 0, (), shared)] if shared else []
    if not joined:
        return replace(start, ops=(*start.ops, *ops))
    fds: dict[str, Any] = {}
    kinds = tuple(joined)
    enter = None
    if borrow:
        enter = _to_enter(joined, spawner)
        if enter:
            fds["user"] = enter
            ops.append(Setns("user", "user", enter.path(), implied=WHY_ENTER))
            kinds = tuple(kind for kind in KINDS if kind in kinds or kind == "user")
        else:
            assert isinstance(borrow, Borrow) and spawner.borrowed_pid
            ops.insert(0, replace(borrow, path=f"/proc/{spawner.borrowed_pid}/ns/user"))
    for number, (one, its_kinds) in enumerate(_grouped(joined, enter)):
        if its_kinds:
            fds[f"join{number}"] = one.descriptor
            ops.append(one.op(f"join{number}", its_kinds))
    around = None if enter else start.around
    if "user" in kinds:
        around = _maps(joined.get("user"), enter)
        blind = "pid" in kinds or "mnt" in kinds  # it may not find itself in the /proc that it then sees
        ops.append(BecomeRoot(around if blind else None, implied=WHY_ROOT))
    return Way(tuple(ops), fds, kinds, around)


def _shared(kind: str, one: Target, spawner: Spawner) -> bool:
    """Whether whatever nslab makes is in it anyway."""
    if one.own is not None:
        return kind not in one.own
    try:
        with one.namespace(kind) as namespace:
            borrowed = spawner.borrowed_user if kind == "user" else None
            return namespace.id in (spawner.machine.get(kind), borrowed)
    except PermissionError:  # not ours to look at: the kernel will say whether it may be joined
        return False


def _to_enter(joined: Targets, spawner: Spawner) -> Namespace | None:
    """The user namespace that an ordinary user must enter first; None when all can be joined from the borrowed one."""
    machine = spawner.machine.get("user")
    lines = [[owner for owner in one.owners(kind) if owner != machine] for kind, one in joined.items()]
    if any(not line or spawner.borrowed_user in line for line in lines):
        if all(not line or spawner.borrowed_user in line for line in lines):
            return None
    else:
        for owner in lines[0]:
            if all(owner in line for line in lines):
                return _opened(owner, joined)
    raise SpecError(
        "join",
        f"{', '.join(joined)}: they belong to different user namespaces, none of which is inside another, and an ordinary user "
        "has no privilege in two of those at once. user_namespaces(7)",
    )


def _opened(owner: NamespaceId, joined: Targets) -> Namespace:
    """The user namespace of this id, one of those that what is joined belongs to."""
    kind, one = next(iter(joined.items()))
    here: Namespace | None = one.namespace(kind)
    if kind != "user" and here:
        with here:
            here = here.owner
    while here and here.id != owner:
        with here:
            here = here.parent
    assert here
    return here


def _grouped(joined: Targets, enter: Namespace | None) -> Sequence[tuple[Target, tuple[str, ...]]]:
    """What is joined of each, together; the user namespace last, since it may take away what the others need."""
    groups: list[tuple[Target, tuple[str, ...]]] = []
    for kind, one in joined.items():
        if enter and kind == "user":
            with one.namespace(kind) as namespace:
                if namespace == enter:
                    continue  # entered already
        for index, (other, kinds) in enumerate(groups):
            if one.pid and other.descriptor is one.descriptor:
                groups[index] = (other, (*kinds, kind))
                break
        else:
            groups.append((one, (kind,)))
    return sorted(groups, key=lambda group: "user" in group[1])


def _maps(one: Target | None, enter: Namespace | None) -> IdMaps:
    """The id maps of the user namespace that was joined, as a member tells them; where there is none, only root is sure."""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        pid = one.pid if one else 0
        if not pid:
            user = stack.enter_context(one.namespace("user")) if one else enter
            pid = next(iter(user.members()), 0) if user else 0
        if pid:
            return IdMaps(procfs.id_map(pid, "uid"), procfs.id_map(pid, "gid"), procfs.setgroups(pid), caller=(0, 0))
    return IdMaps((IdRange(0, os.geteuid(), 1),), (IdRange(0, os.getegid(), 1),), "deny", caller=(0, 0))
