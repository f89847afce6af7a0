"""What fills an empty root: the static busybox, an archive, the layers of an image."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from nslab import syscalls
from nslab.errors import NslabError
from nslab.ops.base import Context, Op
from nslab.ops.places import opened
from nslab.syscalls import guard

FOLDERS = ("bin", "etc", "home", "root", "usr", "var", "tmp", "run", "proc", "sys", "dev")
LINKS = {"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin"}
TEXTS = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}


@dataclass(frozen=True)
class FillBusybox(Op):
    """Put the static busybox at ``path`` and links to it, one for each of its commands, into the empty folder ``root``."""

    path: str
    root: str

    def perform(self, context: Context) -> None:
        guard.invoke("copy", (self.path, self.root), self._fill)

    def _fill(self) -> int:
        for name in FOLDERS:
            os.mkdir(f"{self.root}/{name}", 0o755)
        for name, text in LINKS.items():
            os.symlink(text, f"{self.root}/{name}")
        for name, text in TEXTS.items():
            with opened(os.open(f"{self.root}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)) as file:
                os.write(file, text.encode())
        with (
            opened(self.path, os.O_RDONLY) as source,
            opened(os.open(f"{self.root}/bin/busybox", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o755)) as target,
        ):
            while os.sendfile(target, source, None, 1 << 24):
                pass
        names = self._commands()
        for name in names:
            os.symlink("busybox", f"{self.root}/bin/{name}")
        return len(names)

    def _commands(self) -> list[str]:
        """What ``busybox --list`` says."""
        out, into = os.pipe()
        with opened(out):
            with opened(into):
                options = {"file_actions": [(os.POSIX_SPAWN_DUP2, into, 1)]}
                pid = syscalls.posix_spawn(self.path, ("busybox", "--list"), {}, options)
            text = b""
            while part := os.read(out, 1 << 16):
                text += part
        os.waitpid(pid, 0)
        return [name for name in text.decode().split() if name != "busybox"]

    def describe(self) -> str:
        return f"fill {self.root} with {self.path} and a link for each of its commands"

    def shell(self) -> str:
        root, path = shlex.quote(self.root), shlex.quote(self.path)
        lines = [f"(cd {root} && mkdir {' '.join(FOLDERS)}", *(f"ln -s {text} {name}" for name, text in LINKS.items())]
        lines += [f"printf %s {shlex.quote(text)} > {name}" for name, text in TEXTS.items()]
        lines.append(f"cp {path} bin/busybox && chmod 755 bin/busybox")
        lines.append(f'for name in $({path} --list); do [ "$name" = busybox ] || ln -s busybox "bin/$name"; done)')
        return "\n".join(lines)


@dataclass(frozen=True)
class Unpack(Op):
    """Unpack a tar archive (compressed or not) into the folder ``root``, never out of it; first of all it must have ``digest``.

    ``layer``: it is one of an image, whose whiteouts (.wh.NAME) take away what the layers before it brought. Without
    ``owners``, for where no id but that of root is mapped, all is root's. Devices that may not be made are left out.
    """

    path: str
    root: str
    layer: bool = False
    owners: bool = True
    digest: str = ""  # "sha256:..."

    def perform(self, context: Context) -> None:
        guard.invoke("unpack", (self.path, self.root), self._unpack)

    def _unpack(self) -> Any:
        from nslab.ops import archive

        with open(self.path, "rb", 0) as file, opened(self.root, os.O_PATH | os.O_DIRECTORY) as folder:
            algorithm, _, wanted = self.digest.partition(":")
            if wanted and (found := archive.digest(file, algorithm)) != wanted:
                raise NslabError(damaged(self.path, self.digest, found))
            try:
                with _decompressed(file) as stream:
                    return archive.unpack(stream, folder, whiteouts=self.layer, owners=self.owners)
            except archive.BadArchive as error:
                raise NslabError(f"{self.path} cannot be unpacked: {error}") from None

    def describe(self) -> str:
        return f"unpack {self.path} into {self.root}"

    def shell(self) -> str:
        owners = "--numeric-owner" if self.owners else "--no-same-owner"
        algorithm, _, wanted = self.digest.partition(":")
        lines = [f"echo {shlex.quote(f'{wanted}  {self.path}')} | {algorithm}sum --check --quiet || exit"] if wanted else []
        lines.append(shlex.join(["tar", "--extract", owners, "--file", self.path, "--directory", self.root]))
        if self.layer:
            root = shlex.quote(self.root)
            lines += [
                "# no standard tool: the whiteouts of a layer take away what the layers before it brought, as these lines do"
            ]
            lines += [
                f"find {root} -name '.wh.?*' ! -name .wh..wh..opq | while read -r mark; do "
                'rm -rf "$mark" "${mark%/*}/${mark##*/.wh.}"; done',
                f"find {root} -name .wh..wh..opq -delete",
            ]
        return "\n".join(lines)


_ZSTD = b"\x28\xb5\x2f\xfd"  # how it begins; RFC 8878


def is_zstd(path: str) -> bool:
    """Whether a file is compressed by zstd(1), which only Python from 3.14 on could undo."""
    with open(path, "rb") as file:
        return file.read(4) == _ZSTD


def damaged(path: str, digest: str, found: str) -> str:
    """What is wrong with a file of an image."""
    return f"{path} is damaged, or not what the image means: its digest is {found}, and it should be {digest}"


@contextlib.contextmanager
def _decompressed(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """A file without a buffer, from its beginning: through zstd(1) if that has made it; tarfile undoes the rest."""
    from nslab.ops import archive

    file.seek(0)
    begins = file.read(4)
    file.seek(0)
    if begins != _ZSTD:
        yield file
        return
    path = shutil.which("zstd") or "zstd"
    out, into = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(out, "rb") as stream:
        with opened(into):
            actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), 0), (os.POSIX_SPAWN_DUP2, into, 1)]
            pid = syscalls.posix_spawn(path, ("zstd", "-dcqq"), {}, {"file_actions": actions})
        try:
            yield stream
            while stream.read(1 << 18):  # what follows the archive; else zstd would complain
                pass
        finally:
            stream.close()
            status = os.waitpid(pid, 0)[1]
    if status:
        raise archive.BadArchive("zstd found it damaged")
