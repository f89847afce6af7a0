"""A mount on which files belong to others than on its filesystem, made before the process that will have it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nslab import procfs, syscalls
from nslab.errors import SyscallError, Unavailable
from nslab.model import IdRange
from nslab.ops.base import Context, Op
from nslab.ops.places import opened
from nslab.ops.spaces import IdMaps, NewNamespaces

_AT_FDCWD = -100


@dataclass(frozen=True)
class Idmapped(Op):
    """Copy the mount at ``source``, and all below it, with its owners mapped, as the descriptor named ``tree``.

    A file of uid ``inside`` on disk is one of ``outside`` there, and what is made there the other way round. The kernel asks
    for CAP_SYS_ADMIN in the user namespace of the filesystem, which nobody in a container's own has: the spawner does it, and
    BindInside puts the copy in its place. No mount travels into the copy or out of it. Unavailable where kernel or filesystem
    cannot. Source: mount_setattr(2).
    """

    source: str
    tree: str
    uid: tuple[IdRange, ...]
    gid: tuple[IdRange, ...]

    def perform(self, context: Context) -> None:
        with opened(self._namespace(context)) as userns:
            flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
            mount = syscalls.open_tree(_AT_FDCWD, self.source, flags)
            try:
                syscalls.mount_setattr(
                    mount, syscalls.AT_RECURSIVE, syscalls.MOUNT_ATTR_IDMAP, userns, syscalls.mount_flags("MS_PRIVATE")
                )
            except SyscallError as error:
                os.close(mount)
                if error.name not in ("EINVAL", "EPERM", "ENOSYS"):
                    raise
                raise self._unavailable(error.name) from None
        context.fds[self.tree] = mount

    def _namespace(self, context: Context) -> int:
        """A descriptor of a user namespace with the map; nobody stays in it."""
        waits, lives = os.pipe()
        with opened(waits), opened(lives):
            pid = NewNamespaces(("user",)).perform(Context(context.machine, {}))
            if pid == 0:
                os.close(lives)
                os.read(waits, 1)
                os._exit(0)
            try:
                IdMaps(self.uid, self.gid, "allow").write(pid)
                return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.write(lives, b"!")
                os.waitpid(pid, 0)

    def _unavailable(self, error: str) -> Unavailable:
        wanted = f"to map the owners of {self.source} (mount_setattr: {error})"
        if error == "ENOSYS":
            return Unavailable(f"{wanted} needs Linux 5.12", "a newer kernel, or a copy of the files with other owners")
        if error == "EPERM":
            return Unavailable(
                f"{wanted} needs CAP_SYS_ADMIN in the user namespace in which its filesystem was mounted",
                "start it as root outside any container",
            )
        return Unavailable(
            f"{wanted} is not possible on each of the filesystems there: {', '.join(self._filesystems())}",
            "a folder on one whose owners this kernel can map (ext4, xfs and btrfs can; tmpfs since Linux 6.3), with no other "
            "mounted below it, and not mapped already",
        )

    def _filesystems(self) -> list[str]:
        """The types of what is mounted at and below the source, and of what the source lies on."""
        mounts = procfs.mountinfo()
        source = os.path.realpath(self.source)
        below = {mount.fstype for mount in mounts if f"{mount.target}/".startswith(f"{source.rstrip('/')}/")}
        around = [mount for mount in mounts if f"{source}/".startswith(f"{mount.target.rstrip('/')}/")]
        return sorted(below | {max(around, key=lambda mount: len(mount.target)).fstype})

    def describe(self) -> str:
        lines = ", ".join(f"{line.inside} as {line.outside} ({line.count})" for line in dict.fromkeys((*self.uid, *self.gid)))
        return f"copy the mount at {self.source}, with the owners on it shown as others: {lines}"

    def shell(self) -> str:
        maps = " ".join(
            f"{which}:{line.inside}:{line.outside}:{line.count}"
            for which, ranges in (("u", self.uid), ("g", self.gid))
            for line in ranges
        )
        return (
            f"# no standard tool: {self.source} with other owners for a mount table that is still to be made;\n"
            f"# without a user namespace mount(8) of util-linux 2.39 can, in there: -o X-mount.idmap='{maps}'"
        )
