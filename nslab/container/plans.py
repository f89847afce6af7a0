"""From what was asked for to a plan: which ops, in which order, and why those that nobody asked for."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nslab.container import limits as limiting
from nslab.errors import SpecError
from nslab.namespaces import joining, privilege
from nslab.namespaces.privilege import MapRequest
from nslab.ops import (
    Adopt,
    BecomeRoot,
    Execute,
    IdMaps,
    InCgroup,
    Join,
    Mount,
    MountProc,
    NewNamespaces,
    NewTime,
    Op,
    SetDomainname,
    SetHostname,
    SetPropagation,
    SetUp,
    Unshare,
    WriteFile,
    spec,
)  # fmt: skip
from nslab.spawner import Spawner

if TYPE_CHECKING:
    from nslab.container.mounts import Bind, MountRequest, Overlay, Tmpfs
    from nslab.container.roots import Root

WHY_PRIVATE = "else a mount made here would show up outside, where a mount is shared"
WHY_PROC = "a new PID namespace with an own mount table needs its own /proc, or ps shows the machine"
WHY_ROOT = "the first line of the id map makes this process root inside"
WHY_APART = "first apart from the machine's mounts, then among themselves"
WHY_UPPER = "what is written to an overlay must go somewhere"
WHY_ADOPT = "without a PID namespace nobody else would end what is left over"


@dataclass(frozen=True)
class Request:
    """What a container is to be, checked."""

    kinds: tuple[str, ...]
    hostname: str | None
    domainname: str | None
    uid_map: MapRequest
    gid_map: MapRequest
    setgroups: str | None
    clock: Mapping[str, int]
    proc: str
    loopback: bool
    mqueue: str | None
    sysctls: Mapping[str, str]
    hardened: bool
    join: joining.Targets
    rootfs: Root | None
    mounts: tuple[Bind | Tmpfs | Overlay, ...]
    propagation: str
    limits: Mapping[str, tuple[str, str]]

    @classmethod
    def checked(
        cls, *, isolate: str | Iterable[str] = "", hostname: str | None = None, domainname: str | None = None,
        uid_map: MapRequest = "single", gid_map: MapRequest | None = None, setgroups: str | None = None,
        clock: Mapping[str, float | str] | None = None, proc: str = "new", loopback: bool = False,
        mqueue: spec.Folder | None = None, sysctls: Mapping[str, int | str] | None = None, hardened: bool = False,
        join: Mapping[str, Any] | None = None, rootfs: spec.Folder | None = None, mounts: Iterable[MountRequest] = (),
        propagation: str = "private", limits: Mapping[str, Any] | None = None,
    ) -> Request:  # fmt: skip
        """The same, or SpecError: nothing has been made yet."""
        kinds = spec.kinds(isolate)
        joined = joining.checked(join, kinds)
        if hardened:
            from nslab.container import hardening  # few ask for it

            kinds = tuple(kind for kind in hardening.check(kinds, uid_map, gid_map, proc) if kind not in joined)
            for kind in ("user", "mnt", "pid"):
                if kind in joined:
                    raise SpecError("join", f"a hardened container has a {kind} namespace of its own")
        gid = gid_map if gid_map is not None else uid_map if isinstance(uid_map, str) else "single"
        for argument, value, default in (
            ("uid_map", uid_map, "single"),
            ("gid_map", gid, "single"),
            ("setgroups", setgroups, None),
        ):
            if value != default and "user" not in kinds:
                raise SpecError(argument, "needs a user namespace of its own (isolate='user ...')")
        for argument, value in (("uid_map", uid_map), ("gid_map", gid)):
            if not isinstance(value, str):
                spec.id_ranges(argument, value)
        if proc not in ("new", "old"):
            raise SpecError("proc", f"{proc!r} is neither 'new' nor 'old'")
        if propagation not in ("private", "slave", "shared"):
            raise SpecError("propagation", f"{propagation!r} is neither 'private', 'slave' nor 'shared'")
        if propagation != "private" and "mnt" not in kinds:
            raise SpecError("propagation", "needs a mount namespace of its own (isolate='mnt ...')")
        root, wanted = _files(rootfs, mounts, kinds) if rootfs is not None or mounts != () else (None, ())
        queues = spec.folder("mqueue", mqueue, kinds, ("ipc", "mnt"))
        if queues and (root is None or root.kind == "tree"):
            from nslab.container import mounts as places

            places.refuse_symlinks("mqueue", queues, root.path if root else "/")
        if loopback and "net" not in kinds:
            raise SpecError("loopback", "needs a network namespace of its own (isolate='net ...')")
        return cls(
            kinds, spec.hostname(hostname, kinds), spec.hostname(domainname, kinds, "domainname"), uid_map, gid, setgroups,
            spec.clock(clock, kinds), proc, bool(loopback), queues,
            spec.sysctls(sysctls, kinds), bool(hardened), joined, root, wanted, propagation, limiting.checked(limits),
        )  # fmt: skip

    def way(self, spawner: Spawner) -> joining.Way:
        """Where the plan begins: in what is to be joined, if anything is."""
        return joining.way(self.join, spawner)

    def cgroup(self, spawner: Spawner) -> InCgroup | None:
        """The cgroup that holds the limits; Unavailable where there cannot be one."""
        return limiting.cgroup(spawner.group, self.limits) if self.limits else None

    def ops(self, way: joining.Way, cgroup: InCgroup | None = None, *, stay: bool = False) -> tuple[Op, ...]:
        """The plan: what is joined, then new namespaces, the mount table, /proc, clock and names.

        With ``stay`` the process is to be a member of a PID namespace that it joins, which only a new process can be.
        """
        ops: list[Op] = [*way.ops]
        maps = self.maps(way.around) if "user" in self.kinds else None
        kinds = self.kinds
        if cgroup:
            ops.append(cgroup)
            kinds = tuple(kind for kind in kinds if kind != "cgroup")
        if self.mounts:
            from nslab.container import mounts

            ops += mounts.prepared(self.mounts, maps)
        if self.kinds or not way.kinds or (stay and "pid" in way.kinds):
            ops.append(NewNamespaces(kinds, maps))
        if maps:
            ops.append(BecomeRoot(implied=WHY_ROOT))
        if kinds != self.kinds:
            ops.append(Unshare(("cgroup",)))  # once it is there: clone3 would make the spawner's cgroup the root of the view
        if "pid" not in self.kinds:
            ops.append(Adopt(implied=WHY_ADOPT))
        if "mnt" in self.kinds:
            ops += self._propagation()
            if "pid" in self._owned(way) and self.proc == "new" and not self.rootfs:
                ops.append(MountProc(implied=WHY_PROC))
        if "time" in self.kinds:
            ops.append(NewTime(self.clock))
        if self.hostname is not None:
            ops.append(SetHostname(self.hostname))
        if self.domainname is not None:
            ops.append(SetDomainname(self.domainname))
        if self.loopback:
            ops.append(SetUp("lo"))
        if self.mqueue and not self.rootfs:
            ops.append(Mount("mqueue", self.mqueue, "mqueue", ("MS_NOSUID", "MS_NODEV", "MS_NOEXEC")))
        ops += [WriteFile(path, text) for path, text in self.sysctls.items()]
        if self.rootfs or self.mounts:
            ops += self._mounts(self._owned(way), maps or way.around)
        if self.hardened:
            from nslab.container import hardening

            return hardening.added(ops)
        return tuple(ops)

    def _owned(self, way: joining.Way) -> tuple[str, ...]:
        """The kinds whose new or joined namespaces may have a /proc or /sys of their own mounted."""
        return self.kinds if "user" in self.kinds else (*self.kinds, *way.kinds)

    def _propagation(self) -> list[Op]:
        if self.propagation == "private":
            return [SetPropagation("private", implied=WHY_PRIVATE)]
        if self.propagation == "slave":
            return [SetPropagation("slave")]
        return [SetPropagation("private", implied=WHY_APART), SetPropagation("shared")]

    def _mounts(self, owned: tuple[str, ...], maps: IdMaps | None) -> list[Op]:
        """What is mounted, and the root that is entered: the last of all, since the tools of a script stay behind."""
        from nslab.container import mounts, roots

        if not self.rootfs:
            return mounts.without_root(self.mounts, maps is not None, WHY_UPPER)
        return roots.ops(
            self.rootfs, self.mounts, owned, new_proc="pid" in owned and self.proc == "new", userns=maps is not None,
            owners=not maps or sum(line.count for line in maps.uid) > 1, mqueue=self.mqueue,
        )  # fmt: skip

    def confinement(self, before: tuple[Op, ...] = ()) -> tuple[Op, ...]:
        """What init, and each command that enters, gives up at last; ``before`` may have the user that it becomes then."""
        if not self.hardened:
            return before
        from nslab.container import hardening

        return hardening.confinement(before)

    def maps(self, around: IdMaps | None) -> IdMaps:
        if self.hardened:
            from nslab.container import hardening

            return hardening.id_maps(self.uid_map, self.gid_map, self.setgroups, around)
        return privilege.id_maps(self.uid_map, self.gid_map, self.setgroups, around)


def _files(
    rootfs: spec.Folder | None, mounts: Iterable[MountRequest], kinds: tuple[str, ...]
) -> tuple[Root | None, tuple[Bind | Tmpfs | Overlay, ...]]:  # fmt: skip
    from nslab.container import mounts as wanted
    from nslab.container import roots

    root = roots.checked(rootfs, kinds)
    found = wanted.checked(mounts, kinds, root is not None)
    if root is None or root.kind == "tree":  # what is unpacked is not there yet
        for index, entry in enumerate(found):
            wanted.refuse_symlinks(f"mounts[{index}]", str(entry.target), root.path if root else "/")
    return root, found


def entering(kinds: tuple[str, ...], pid: int, maps: IdMaps | None, cgroup: InCgroup | None = None) -> tuple[Op, ...]:
    """The ops of a process that joins a container of these kinds, whose init has this PID and the pidfd named "init"."""
    ops: list[Op] = [cgroup] if cgroup else []
    ops.append(Join("init", pid, kinds))
    if "user" in kinds:
        ops.append(BecomeRoot(maps, implied=WHY_ROOT))
    if "pid" not in kinds:
        ops.append(Adopt(implied=WHY_ADOPT))
    return tuple(ops)


def begins(asked: spec.Folder | None, initial: str, *, elsewhere: bool) -> spec.Folder | None:
    """Where a command begins: as asked, seen from here, or from the root where the files are others (``elsewhere``).

    None for where its process is anyway, which is ``initial`` where the files are the same.
    """
    here = "/" if elsewhere else os.getcwd()
    if isinstance(asked, str | os.PathLike):
        return os.path.join(here, asked)
    return here if asked is None and not elsewhere and here != initial else asked


def work(
    command: spec.Command, *, env: Mapping[str, str] | None, cwd: spec.Folder | None, user: str | int | None, tty: bool = False,
    rootfs: Root | None = None, joined: Collection[str] = (), mounted: bool = False,
) -> Execute:  # fmt: skip
    """A command, checked: who, where and with which environment it is to be run; that it exists, among the machine's files.

    ``mounted``: there may be other folders than the machine's, though no root filesystem.
    """
    words = spec.argv(command)
    environment = spec.environment(env)
    if cwd is not None:
        cwd = spec.working_directory("cwd", cwd)
    if rootfs is None and "mnt" not in joined:
        if cwd is not None and not mounted:
            spec.folder_there("cwd", cwd)
        spec.program(words, environment, cwd)
    elif rootfs and isinstance(user, str) and not rootfs.is_machine:
        raise SpecError("user", "must be a number where the root filesystem is not the machine's, whose names are others")
    before = (privilege.identity(user),) if user is not None else ()
    return Execute(words, environment, cwd, before, tty, root=rootfs.name if rootfs and not rootfs.is_machine else "")
