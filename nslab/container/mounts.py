"""What is to be mounted in a container: Bind, Tmpfs and Overlay, their short forms, and the ops that do it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nslab.errors import SpecError, Unavailable
from nslab.model import IdRange
from nslab.namespaces import privilege
from nslab.ops import BindInside, Idmapped, IdMaps, MakeFolders, MountInside, Op, Umount, spec
from nslab.ops import Mount as MountOp

SHORT = "'/source:/target', '/source:/target:ro', 'tmpfs:/target', 'overlay:/lower:/target'"


@dataclass(frozen=True)
class Bind:
    """Show a file or folder of the machine at ``target`` too (None: under the same path), with all mounted below it.

    What is written there is written on the machine, but for ``read_only``. Short: "/source:/target" or "/source:/target:ro".
    A symlink as the target of a mount, or on the way to it, is refused.

    ``idmap`` (root only, where kernel and filesystem can) shows its files with other owners, and leaves them as they are: lines
    of (id on disk, id on the machine, count), for uids and gids alike. "container" takes the id map of the container's own
    user namespace: what is root's on disk belongs to root inside, and what that makes is root's on disk, setuid files too:
    take a folder that no user of the machine can enter. Who is in no line is nobody there. mount_setattr(2)
    """

    source: str
    target: str | None = None
    read_only: bool = False
    idmap: str | Iterable[Sequence[int]] | None = None


@dataclass(frozen=True)
class Tmpfs:
    """An empty filesystem in memory at ``target``, of at most ``size`` ("64m", "1g", "50%": the kernel's words).

    Short: "tmpfs:/target".
    """

    target: str
    size: str = ""
    mode: int = 0o755


@dataclass(frozen=True)
class Overlay:
    """Show a folder of the machine, or several on top of each other (the first is the topmost), at ``target``.

    What is written there stays in memory and is gone with the container. Short: "overlay:/lower:/target".
    """

    lower: str | Sequence[str]
    target: str


MountRequest = Bind | Tmpfs | Overlay | str


def checked(mounts: Iterable[MountRequest], kinds: tuple[str, ...], has_root: bool) -> tuple[Bind | Tmpfs | Overlay, ...]:
    """Each with whole paths; SpecError says which entry breaks which rule."""
    if isinstance(mounts, str | bytes) or not isinstance(mounts, Iterable):
        raise SpecError("mounts", f"must be a list of Bind, Tmpfs, Overlay or text such as {SHORT}")
    wanted = tuple(_checked(f"mounts[{index}]", entry, has_root) for index, entry in enumerate(mounts))
    if wanted and "mnt" not in kinds:
        raise SpecError("mounts", "needs a mount namespace of its own (isolate='mnt ...'); else the machine had them too")
    seen: dict[str, int] = {}
    for index, entry in enumerate(wanted):
        assert entry.target
        if entry.target in seen:
            raise SpecError(f"mounts[{index}]", f"{entry.target} is the target of mounts[{seen[entry.target]}] already")
        seen[entry.target] = index
        if isinstance(entry, Bind) and entry.idmap is not None:
            _check_idmap(f"mounts[{index}]", entry, kinds)
    return wanted


def _check_idmap(argument: str, entry: Bind, kinds: tuple[str, ...]) -> None:
    if entry.idmap == "container" and "user" not in kinds:
        raise SpecError(argument, "idmap='container' needs a user namespace of its own (isolate='user ...'), with an id map")
    if not privilege.is_privileged():
        raise Unavailable(
            f"idmap of {entry.source} needs CAP_SYS_ADMIN in the user namespace in which its filesystem was mounted",
            "start it as root, or copy the files: copy_in() gives them to root inside",
        )


def _checked(argument: str, entry: MountRequest, has_root: bool) -> Bind | Tmpfs | Overlay:
    if isinstance(entry, str):
        entry = _parsed(argument, entry)
    if isinstance(entry, Bind):
        source = _there(argument, entry.source)
        target = _target(argument, source if entry.target is None else entry.target, has_root, os.path.isdir(source))
        return Bind(source, target, bool(entry.read_only), _idmap(argument, entry.idmap))
    if isinstance(entry, Tmpfs):
        if not re.fullmatch(r"(\d+[kmgKMG%]?)?", spec.text(argument, entry.size)):
            raise SpecError(argument, f"size {entry.size!r} is not a number with k, m, g or % behind it. tmpfs(5)")
        spec.number(argument, entry.mode, 0, 0o1777)
        return Tmpfs(_target(argument, entry.target, has_root, True), entry.size, entry.mode)
    if isinstance(entry, Overlay):
        lowers = (entry.lower,) if isinstance(entry.lower, str) else tuple(entry.lower)
        found = tuple(_there(argument, lower) for lower in lowers)
        for lower in found:
            if not os.path.isdir(lower):
                raise SpecError(argument, f"{lower} is not a folder, and only folders can lie on top of each other")
        if not found:
            raise SpecError(argument, "has no lower folder")
        return Overlay(found, _target(argument, entry.target, has_root, True))
    raise SpecError(argument, f"{entry!r} is neither Bind, Tmpfs, Overlay nor text such as {SHORT}")


def _idmap(argument: str, asked: str | Iterable[Sequence[int]] | None) -> str | tuple[IdRange, ...] | None:
    if asked is None or asked == "container":
        return asked
    if isinstance(asked, str) or not isinstance(asked, Iterable):
        raise SpecError(argument, f"idmap {asked!r} is neither 'container' nor lines of (id on disk, id on the machine, count)")
    return spec.id_ranges(argument, asked)


def _parsed(argument: str, text: str) -> Bind | Tmpfs | Overlay:
    match text.split(":"):
        case ["tmpfs", target]:
            return Tmpfs(target)
        case ["overlay", lower, target]:
            return Overlay(lower, target)
        case [source, target] if source.startswith("/"):
            return Bind(source, target)
        case [source, target, "ro" | "rw" as how] if source.startswith("/"):
            return Bind(source, target, how == "ro")
    raise SpecError(argument, f"{text!r} is none of {SHORT}")


def _there(argument: str, path: str) -> str:
    path = os.path.abspath(spec.text(argument, os.fspath(path) if isinstance(path, os.PathLike) else path))
    if not os.path.exists(path):
        raise SpecError(argument, f"there is no {path} on this machine")
    return path


def _target(argument: str, path: str, has_root: bool, folder: bool) -> str:
    """A whole path without ".."; where the container has no root of its own, one that is there."""
    spec.text(argument, path)
    if not path.startswith("/") or ".." in path.split("/") or not path.strip("/"):
        raise SpecError(argument, f"the target {path!r} must be a whole path below /, without '..'")
    path = os.path.normpath(path)
    if has_root:
        return path
    if not os.path.exists(path):
        raise SpecError(
            argument, f"there is no {path} on this machine to mount on, and nslab makes none; with a rootfs it would be made"
        )
    if os.path.isdir(path) != folder:
        raise SpecError(argument, f"a folder can be mounted on a folder only and a file on a file, which {path} is not")
    return path


def refuse_symlinks(argument: str, target: str, root: str) -> None:
    """Refuse a target that leads through a symlink of the files at ``root``, as they are now; the kernel refuses later ones."""
    parts = target.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        place = "/".join(parts[:count])
        with contextlib.suppress(OSError):  # it is none, or not there
            leads = os.readlink(os.path.join(root, place))
            where = f"; {os.path.realpath(target)} is where it leads" if root == "/" else ""
            raise SpecError(argument, f"{target} leads through the symlink /{place} -> {leads}{where}. Name the place itself")


def sources(wanted: Iterable[Bind | Tmpfs | Overlay]) -> Iterator[str]:
    """The paths of the machine that these need."""
    for entry in wanted:
        if isinstance(entry, Bind):
            yield entry.source
        elif isinstance(entry, Overlay):
            yield from entry.lower


class Stage:
    """A tmpfs of the machine's mount table that only this container has, at ``at``, where it is put together.

    The upper and work folders of overlays lie there; an overlay holds them when the stage itself is gone.
    """

    def __init__(self, at: str, userns: bool):
        self.at = at
        self.folders: list[tuple[str, int]] = []
        self._userns = userns
        self._count = 0

    def ops(self, implied: str) -> list[Op]:
        """The tmpfs, and the folders that were asked for by now."""
        return [
            MountOp("tmpfs", self.at, "tmpfs", (), "mode=755", implied=implied),
            MakeFolders(tuple(self.folders), implied=implied),
        ]

    def overlay(self, lowers: Sequence[str], target: str, root: str) -> Op:
        """What mounts a writable view of folders; its own root has the mode of the topmost."""
        self._count += 1
        upper, work = f"{self.at}/upper{self._count}", f"{self.at}/work{self._count}"
        self.folders += [(upper, stat.S_IMODE(os.stat(lowers[0]).st_mode)), (work, 0o755)]
        data = f"lowerdir={':'.join(map(_escaped, lowers))},upperdir={upper},workdir={work}"
        return MountInside("overlay", target, root, (), data + (",userxattr" if self._userns else ""))


def _escaped(path: str) -> str:
    return re.sub(r"([\\,:])", r"\\\1", path)


def choose_stage(needed: Iterable[str]) -> str:
    """A folder that every machine has and that nothing needed lies in or is; the container gets a tmpfs of its own there."""
    paths = [os.path.realpath(path) for path in needed]
    for folder in ("/run", "/tmp", "/mnt", "/srv", "/media", "/opt", "/boot", "/home"):
        inside = [path for path in paths if path == folder or path.startswith(f"{folder}/")]
        if os.path.isdir(folder) and not os.path.islink(folder) and not inside:
            return folder
    raise SpecError("mounts", "its sources lie in every folder in which the root of the container could be put together")


def prepared(wanted: Sequence[Bind | Tmpfs | Overlay], maps: IdMaps | None) -> list[Op]:
    """What is done for these before there is a process; ``maps`` are those of the container's user namespace."""
    made: list[Op] = []
    for index, entry in enumerate(wanted):
        if isinstance(entry, Bind) and entry.idmap == "container":
            assert maps
            made.append(Idmapped(entry.source, f"tree{index}", maps.uid, maps.gid))
        elif isinstance(entry, Bind) and entry.idmap is not None:
            lines = spec.id_ranges("idmap", entry.idmap)
            made.append(Idmapped(entry.source, f"tree{index}", lines, lines))
    return made


def ops(wanted: Iterable[Bind | Tmpfs | Overlay], root: str, stage: Stage) -> list[Op]:
    """What mounts these in the container whose root lies at ``root`` now."""
    made: list[Op] = []
    for index, entry in enumerate(wanted):
        assert entry.target
        if isinstance(entry, Bind):
            tree = "" if entry.idmap is None else f"tree{index}"
            made.append(BindInside(entry.source, entry.target, root, entry.read_only, os.path.isdir(entry.source), tree))
        elif isinstance(entry, Tmpfs):
            data = f"mode={entry.mode:o}" + (f",size={entry.size}" if entry.size else "")
            made.append(MountInside("tmpfs", entry.target, root, ("MS_NOSUID", "MS_NODEV"), data))
        else:
            made.append(stage.overlay(tuple(entry.lower), entry.target, root))
    return made


def without_root(wanted: Sequence[Bind | Tmpfs | Overlay], userns: bool, why: str) -> list[Op]:
    """The same in the machine's own tree of files, as only this container sees it."""
    if not any(isinstance(entry, Overlay) for entry in wanted):
        return ops(wanted, "/", Stage("", userns))
    targets = [entry.target for entry in wanted if entry.target]
    stage = Stage(choose_stage([*sources(wanted), *targets]), userns)
    mounted = ops(wanted, "/", stage)
    return [*stage.ops(why), *mounted, Umount(stage.at, detach=True, implied=why)]
