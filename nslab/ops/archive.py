"""Archives that are packed and unpacked below a directory, whatever symlinks they and the directory have.

Every name is looked up with the directory as the root, and the last part of it is never followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

from nslab import syscalls
from nslab.errors import SpecError
from nslab.ops.places import opened

BadArchive = tarfile.TarError
_FOLDER = os.O_PATH | os.O_DIRECTORY
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


def unpack(
    file: IO[bytes], root: int, *, whiteouts: bool = False, top: str = "", owners: bool = True, modes: int = 0o7777
) -> int:
    """Unpack a stream of tar below the directory behind the descriptor ``root``; how many members it had.

    ``top`` takes the place of the first part of each name. ``owners``: they are kept where that is allowed. ``modes`` are the
    bits of a mode that are. BadArchive for what is no tar, or leads out.
    """
    unpacker = _Unpacker(root, owners, modes)
    count = 0
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for count, member in enumerate(tar, 1):  # noqa: B007
            parts = _parts(member.name)
            if top:
                parts = [top, *parts[1:]]
            if not parts:
                continue
            if whiteouts and parts[-1].startswith(_WHITEOUT):
                unpacker.white_out(parts)
            else:
                unpacker.add(tar, member, parts)
    unpacker.finish()
    return count


def digest(file: IO[bytes], algorithm: str) -> str:
    """Of a file from its beginning, in hexadecimal digits."""
    return hashlib.file_digest(file, algorithm).hexdigest()  # type: ignore[arg-type]


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise tarfile.ReadError(f"the member {name!r} leads out of the archive")
    return parts


class _Unpacker:
    def __init__(self, root: int, owners: bool, modes: int):
        self.root = root
        self.owners = owners
        self.modes = modes
        self.made: set[str] = set()  # by this archive: an opaque whiteout spares it
        self.folders: dict[str, int] = {}  # of folders, set at the end, so that a read-only one can be filled

    @contextlib.contextmanager
    def _parent(self, parts: list[str]) -> Iterator[int]:
        """The folder of a member; missing ones are made."""
        path = "/".join(parts[:-1]) or "."
        try:
            parent = syscalls.open_inside(self.root, path, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            with self._parent(parts[:-1]) as above:
                _clear(above, parts[-2])
                os.mkdir(parts[-2], 0o755, dir_fd=above)
            parent = syscalls.open_inside(self.root, path, _FOLDER)
        with opened(parent):
            yield parent

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str]) -> None:
        name, path = parts[-1], "/".join(parts)
        self.made.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        mode = member.mode & self.modes
        with self._parent(parts) as parent:
            if member.isdir():
                if not _is_folder(parent, name):
                    _clear(parent, name)
                    os.mkdir(name, 0o700, dir_fd=parent)
                self.folders[path] = mode
            else:
                _clear(parent, name)
                if member.isfile():
                    self._file(tar, member, parent, name, mode)
                elif member.issym():
                    os.symlink(member.linkname, name, dir_fd=parent)
                elif member.islnk():
                    self._hard_link(member, parent, name)
                elif not self._special(member, parent, name, mode):
                    return
            if self.owners:
                with contextlib.suppress(OSError):  # an id that is not mapped here
                    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
                    if member.isfile() and mode & 0o6000:  # which chown takes away
                        os.chmod(name, mode, dir_fd=parent)

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str, mode: int) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as target:
            if content := tar.extractfile(member):
                shutil.copyfileobj(content, target, 1 << 18)
            target.flush()
            os.fchmod(target.fileno(), mode)
            os.utime(target.fileno(), (member.mtime, member.mtime))

    def _hard_link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        parts = _parts(member.linkname)
        with opened(syscalls.open_inside(self.root, "/".join(parts[:-1]) or ".", _FOLDER)) as there:
            os.link(parts[-1], name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)

    def _special(self, member: tarfile.TarInfo, parent: int, name: str, mode: int) -> bool:
        """A FIFO or a device; False where it may not be made."""
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        if not self.owners and not member.isfifo():
            return False
        try:
            os.mknod(name, kind | mode, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        except PermissionError:
            return False
        return True

    def white_out(self, parts: list[str]) -> None:
        name = parts[-1]
        with self._parent(parts) as parent:
            if name != _OPAQUE:
                _clear(parent, name.removeprefix(_WHITEOUT))
                return
            folder = "/".join(parts[:-1])
            with opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)) as listed:
                for entry in os.listdir(listed):
                    if f"{folder}/{entry}".lstrip("/") not in self.made:
                        _clear(parent, entry)

    def finish(self) -> None:
        for path, mode in reversed(self.folders.items()):
            with (
                contextlib.suppress(OSError),
                opened(syscalls.open_inside(self.root, path, os.O_RDONLY | os.O_DIRECTORY)) as fd,
            ):
                os.fchmod(fd, mode)


def _is_folder(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _clear(parent: int, name: str) -> None:
    if name in ("", ".", ".."):
        raise tarfile.ReadError(f"{name!r} is no name of a file")
    if _is_folder(parent, name):
        shutil.rmtree(name, dir_fd=parent)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)


def pack(file: IO[bytes], source: int) -> None:
    """Write the file or folder behind a descriptor as a stream of tar, in which it is called "top".

    Nothing is followed; what is neither file, folder nor symlink is left out.
    """
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, source, "top")


def _add(tar: tarfile.TarFile, source: int, path: str) -> None:
    member = _member(path, os.fstat(source))
    if member.isdir():
        tar.addfile(member)
        for name in sorted(os.listdir(source)):
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                link = _member(f"{path}/{name}", info)
                link.type, link.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=source)
                tar.addfile(link)
            elif stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with opened(os.open(name, flags, dir_fd=source)) as inner:
                    _add(tar, inner, f"{path}/{name}")
    elif member.isfile():
        with os.fdopen(source, "rb", closefd=False) as content:
            tar.addfile(member, content)


def _member(path: str, info: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mode, member.uid, member.gid, member.mtime = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime
    if stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISREG(info.st_mode):
        member.size = info.st_size
    else:
        member.type = tarfile.FIFOTYPE  # and left out
    return member


# -- what runs in a container, with the stream as its standard input or output ------------------------------------------


def receive(target: str, name: str) -> None:
    """Unpack standard input as ``target``, or in it under ``name`` where it is a folder; all belongs to whoever does this."""
    with opened("/", os.O_PATH | os.O_DIRECTORY) as root, os.fdopen(0, "rb", closefd=False) as file:
        try:
            try:
                parent = syscalls.open_inside(root, target.lstrip("/") or ".", _FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                folder, name = os.path.split(target.rstrip("/"))
                parent = syscalls.open_inside(root, folder.lstrip("/") or ".", _FOLDER)
            with opened(parent):
                unpack(file, parent, top=name, owners=False)
        except OSError as error:
            raise SpecError("target", f"{target} cannot be written inside: {error.strerror}") from None


def send(source: str) -> None:
    """Pack ``source`` to standard output."""
    with opened("/", os.O_PATH | os.O_DIRECTORY) as root, os.fdopen(1, "wb", closefd=False) as file:
        try:
            found = syscalls.open_inside(root, source.lstrip("/") or ".", os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise SpecError("source", f"there is no {source} inside, or it may not be read ({error.strerror})") from None
        with opened(found):
            if not stat.S_ISREG(mode := os.fstat(found).st_mode) and not stat.S_ISDIR(mode):
                raise SpecError("source", f"{source} is neither a file nor a folder")
            pack(file, found)
