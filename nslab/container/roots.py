"""Root filesystems: what rootfs= may be, and the ops that put one together and enter it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from nslab import procfs
from nslab.container import mounts
from nslab.container.mounts import Bind, Overlay, Stage, Tmpfs
from nslab.errors import SpecError, Unavailable
from nslab.ops import BindInside, EnterRoot, FillBusybox, MakeDev, MakeFolders, MakeLinks, Mount, MountInside, Op, Unpack, spec
from nslab.ops.fill import is_zstd

WHY_STAGE = "a root is put together where only this container sees it, and what it writes must go somewhere"
WHY_REST = "a root filesystem is complete only with /proc, /sys, /dev, /tmp and /run"
WHY_ENTER = "the machine's own files must be out of reach"

NEW_IN_ALL = ("/proc", "/sys", "/dev", "/run", "/tmp")  # every root gets its own of these
# Types that can be the lower layer of an overlay; what is on another one is shown read-only.
STACKABLE = (
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "f2fs",
    "tmpfs",
    "ramfs",
    "overlay",
    "erofs",
    "squashfs",
    "nfs",
    "nfs4",
    "zfs",
)
SAFE = ("MS_NOSUID", "MS_NODEV", "MS_NOEXEC")
_PT_INTERP = 3


@dataclass(frozen=True)
class Root:
    """A root filesystem that was found: ``kind`` is tree, busybox, tar or image, ``path`` where it is.

    An image has the archives of its ``layers`` with their digests, the lowest first.
    """

    kind: str
    path: str
    layers: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What a message calls it."""
        return self.kind if self.kind == "busybox" else self.path

    @property
    def is_machine(self) -> bool:
        """Whether programs are where they are on the machine."""
        return self.path == "/"


def checked(rootfs: spec.Folder | None, kinds: tuple[str, ...]) -> Root | None:
    """What ``rootfs`` names, or SpecError; Unavailable where there is no static busybox."""
    if rootfs is None:
        return None
    name = spec.text("rootfs", os.fspath(rootfs) if isinstance(rootfs, os.PathLike) else rootfs)
    if "mnt" not in kinds:
        raise SpecError("rootfs", "needs a mount namespace of its own (isolate='mnt ...'), in which it is the root")
    if name == "machine":
        return Root("tree", "/")
    if name == "busybox":
        return Root("busybox", _static_busybox())
    path = os.path.abspath(name)
    if not os.path.exists(path):
        raise SpecError(
            "rootfs",
            f"there is no {path}; it is 'machine', 'busybox', a folder, a tar file, or an OCI image layout"
            f"{spec.guess(name, ('machine', 'busybox'))}",
        )
    if os.path.isdir(path):
        if os.path.isfile(f"{path}/oci-layout"):
            from nslab.container import image

            root = Root("image", path, image.layers(path))
            for layer, _ in root.layers:
                _check_zstd(layer)
            return root
        return Root("tree", path)
    import tarfile

    is_tar = os.path.isfile(path) and (_check_zstd(path) or tarfile.is_tarfile(path))
    if not is_tar:
        raise SpecError("rootfs", f"{path} is neither a folder nor a tar archive (.tar, .tar.gz, .tar.bz2, .tar.xz, .tar.zst)")
    return Root("tar", path)


def _check_zstd(path: str) -> bool:
    """Whether an archive is compressed by zstd; Unavailable where it is, and nothing can undo that."""
    try:
        found = is_zstd(path)
    except OSError as error:
        raise SpecError("rootfs", f"{path} cannot be read: {error.strerror}") from None
    if found and not shutil.which("zstd"):
        raise Unavailable(f"{path} is compressed by zstd, and the program zstd is missing", "apt-get install zstd")
    return found


def _static_busybox() -> str:
    how = "apt-get install busybox-static (elsewhere: a busybox that is statically linked)"
    path = shutil.which("busybox")
    if not path:
        raise Unavailable("rootfs='busybox' needs the program busybox", how)
    if not _is_static(path):
        raise Unavailable(f"rootfs='busybox' needs a static busybox, and {path} needs libraries", how)
    return os.path.realpath(path)


def _is_static(path: str) -> bool:
    """Whether an ELF program of 64 bits names no interpreter; elf(5)."""
    with open(path, "rb") as file:
        head = file.read(64)
        offset, size, count = struct.unpack("<Q", head[32:40])[0], *struct.unpack("<HH", head[54:58])
        file.seek(offset)
        table = file.read(size * count)
    return all(struct.unpack_from("<I", table, size * index)[0] != _PT_INTERP for index in range(count))


def ops(
    root: Root, wanted: Sequence[Bind | Tmpfs | Overlay], kinds: tuple[str, ...], *, new_proc: bool, userns: bool,
    owners: bool, mqueue: str | None,
) -> list[Op]:  # fmt: skip
    """Put the root together, mount what is wanted in it, and enter it.

    ``userns``: in a user namespace, where mounts that came with it are locked, and a new /sys needs a network namespace too.
    ``owners``: more than one id is mapped.
    """
    needed = [path for path in (root.path, *mounts.sources(wanted)) if path != "/"]
    stage = Stage(mounts.choose_stage(needed), userns)
    at = f"{stage.at}/root"
    stage.folders.append((at, 0o755))
    filled = _tree(root.path, at, stage, userns) if root.kind == "tree" else [_empty(at), *_filled(root, at, owners)]
    inner = [*_rest(at, kinds, new_proc, userns), *mounts.ops(wanted, at, stage)]
    if mqueue:
        inner.append(MountInside("mqueue", mqueue, at, SAFE))
    return [*stage.ops(WHY_STAGE), *filled, *inner, EnterRoot(at, implied=WHY_ENTER)]


def _empty(at: str) -> Op:
    return Mount("tmpfs", at, "tmpfs", (), "mode=755")


def _filled(root: Root, at: str, owners: bool) -> list[Op]:
    if root.kind == "busybox":
        return [FillBusybox(root.path, at)]
    if root.kind == "tar":
        return [Unpack(root.path, at, owners=owners)]
    return [Unpack(path, at, layer=True, owners=owners, digest=digest) for path, digest in root.layers]


def _rest(at: str, kinds: tuple[str, ...], new_proc: bool, userns: bool) -> list[Op]:
    proc: Op = BindInside("/proc", "/proc", at, follow=True, implied=WHY_REST)
    if new_proc:
        proc = MountInside("proc", "/proc", at, SAFE, follow=True, implied=WHY_REST)
    sys: Op = MountInside(
        "sysfs", "/sys", at, SAFE, follow=True, implied=WHY_REST
    )  # it shows the network namespace of whoever mounts it
    if userns and "net" not in kinds:
        sys = BindInside("/sys", "/sys", at, follow=True, implied=WHY_REST)
    held = ("MS_NOSUID", "MS_NODEV")
    return [
        proc,
        sys,
        MakeDev(at, implied=WHY_REST),
        MountInside("tmpfs", "/tmp", at, held, "mode=1777", follow=True, implied=WHY_REST),
        MountInside("tmpfs", "/run", at, held, "mode=755", follow=True, implied=WHY_REST),
    ]


def _tree(lower: str, at: str, stage: Stage, userns: bool) -> list[Op]:
    """A writable view of a folder. One overlay shows one filesystem: what is mounted below gets one of its own.

    In a user namespace an overlay of a folder with mounts below is refused, since it would uncover what they cover: there
    the tree is put together from overlays of the folders that have none.
    """
    below = {mount.target: mount.fstype for mount in procfs.mountinfo() if _is_below(mount.target, lower)}
    below = {target: fstype for target, fstype in below.items() if not _is_new(target, lower)}
    if userns and (below or lower == "/"):
        return _split(lower, at, stage, {mount.target for mount in procfs.mountinfo()})
    found = [stage.overlay((lower,), "/", at)]
    for target in sorted(below, key=lambda path: path.count("/")):
        inner = "/" + os.path.relpath(target, lower)
        if os.path.isdir(target) and below[target] in STACKABLE:
            found.append(stage.overlay((target,), inner, at))
        elif os.path.exists(target) and not any(_is_below(target, other) for other in below):
            found.append(BindInside(target, inner, at, read_only=True, folder=os.path.isdir(target)))
    return found


def _split(lower: str, at: str, stage: Stage, targets: set[str]) -> list[Op]:
    """The same without an overlay of any folder that has mounts below."""
    folders: list[tuple[str, int]] = []
    links: list[tuple[str, str]] = []
    mounted: list[Op] = []

    def show(path: str, inner: str) -> None:
        if inner:
            folders.append((f"{at}{inner}", stat.S_IMODE(os.stat(path).st_mode)))
        if not any(_is_below(target, path) for target in targets):
            mounted.append(stage.overlay((path,), inner, at))
            return
        with contextlib.suppress(PermissionError), os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{inner}/{entry.name}"
                if entry.is_symlink():
                    links.append((f"{at}{name}", os.readlink(entry.path)))
                elif name in NEW_IN_ALL:
                    folders.append((f"{at}{name}", 0o755))
                elif entry.is_dir():
                    show(entry.path, name)
                elif entry.is_file():
                    mounted.append(BindInside(entry.path, name, at, read_only=True, folder=False))

    show(lower, "")
    return [_empty(at), MakeFolders(tuple(folders)), MakeLinks(tuple(links)), *mounted]


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/") and path != folder


def _is_new(target: str, lower: str) -> bool:
    inner = "/" + os.path.relpath(target, lower)
    return any(inner == folder or _is_below(inner, folder) for folder in NEW_IN_ALL)
