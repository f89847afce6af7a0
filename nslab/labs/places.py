"""Where the sockets of holders are: a folder that only this user can look into, a socket for each lab.

It is $XDG_RUNTIME_DIR/nslab, or /run/user/UID/nslab, or nslab-UID in the folder for temporary files, which others can write
to: so it is opened once, checked to be this user's own and closed to others, and sockets are reached through that descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import socket
import stat
from collections.abc import Iterator
from typing import Any

from nslab.errors import DeadNamespace, NslabError, SpecError
from nslab.labs import messages
from nslab.ops import spec
from nslab.spawner import Descriptor

MOST = 64  # bytes of a name; the path of a socket has 108. unix(7)


def check_name(name: str, argument: str = "name") -> str:
    """A name under which a lab can be held, and found again."""
    size = len(os.fsencode(spec.text(argument, name)))
    if not name:
        raise SpecError(argument, "the lab has no name, and could not be found again: give it one")
    if size > MOST or "/" in name or not name.isprintable() or name in (".", "..") or name.startswith("-"):
        raise SpecError(argument, f"{name!r} must have at most {MOST} bytes, all printable, no '/', and not begin with '-'")
    return name


def _paths() -> list[str]:
    """Where the folder may be, the best place first."""
    uid = os.geteuid()
    homes = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"]
    own = [home for home in homes if home and os.path.isdir(home) and os.stat(home).st_uid == uid]
    temporary = os.environ.get("TMPDIR", "")  # tempfile.gettempdir() tries whether it can write: a kill leaves that file
    temporary = temporary if os.path.isabs(temporary) and os.path.isdir(temporary) else "/tmp"
    return list(dict.fromkeys([*(os.path.join(home, "nslab") for home in own), f"{temporary}/nslab-{uid}"]))


class Folder:
    """The folder, opened. FileNotFoundError when it is not there; NslabError when it is not this user's alone."""

    def __init__(self, path: str):
        self.path = path
        try:
            self._fd = Descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NslabError(f"{path} cannot be used for the sockets of labs: {error.strerror}.\n{_REMEDY}") from None
        info = os.fstat(self._fd.fileno())
        if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
            self._fd.close()
            raise NslabError(f"{path} is not this user's alone, so whoever made it could answer for a lab.\n{_REMEDY}")

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._fd.close()

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """While nobody else makes or removes sockets in it; whether it is still there."""
        fcntl.flock(self._fd.fileno(), fcntl.LOCK_EX)
        try:
            yield os.fstat(self._fd.fileno()).st_nlink > 0
        finally:
            fcntl.flock(self._fd.fileno(), fcntl.LOCK_UN)

    def address(self, name: str) -> str:
        return f"/proc/self/fd/{self._fd.fileno()}/{name}"

    def names(self) -> list[str]:
        """The labs that are held, or were until a moment ago."""
        return sorted(entry.name for entry in os.scandir(self._fd.fileno()) if _is_socket(entry))

    def connect(self, name: str) -> socket.socket | None:
        """A connection to the holder of this lab; None when there is none. NslabError when that is not this user's."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.settimeout(messages.PATIENCE)
            sock.connect(self.address(name))
            if messages.peer(sock)[1] != os.geteuid():
                raise NslabError(f"another user's process answers for the lab {name!r}.")
        except OSError as error:
            sock.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return None
            raise NslabError(f"the holder of the lab {name!r} does not answer: {error.strerror or error}.") from None
        except BaseException:
            sock.close()
            raise
        return sock

    def tidy(self) -> None:
        """Remove the sockets whose holders were killed. Only with the lock."""
        for name in self.names():
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                probe.setblocking(False)
                if probe.connect_ex(self.address(name)) == errno.ECONNREFUSED:
                    self.remove(name)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd.fileno())

    def vanish(self) -> None:
        """Remove the folder, if nothing is in it. Only with the lock."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)


_REMEDY = "  what to do: set XDG_RUNTIME_DIR to a folder that belongs to you and has mode 700."


def _is_socket(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def folders() -> Iterator[Folder]:
    """Those that are there, without what was left in them. One in a place for everybody that is not ours is not looked at."""
    for path in _paths():
        with contextlib.suppress(FileNotFoundError, NslabError), Folder(path) as folder:
            with folder.locked():
                folder.tidy()
                if not folder.names():
                    folder.vanish()
                    continue
            yield folder


def connect(name: str) -> socket.socket | None:
    """A connection to the holder of the lab of this name; None when nobody holds one."""
    for folder in folders():
        if sock := folder.connect(name):
            return sock
    return None


def held() -> list[dict[str, Any]]:
    """What the holders of this user's labs say of them: name, file, pid, started, running, nodes and the number of links."""
    found = []
    for folder in folders():
        for name in folder.names():
            if sock := folder.connect(name):
                with sock, contextlib.suppress(DeadNamespace):
                    found.append(messages.ask(sock, "about")[0])
    return sorted(found, key=lambda each: str(each["name"]))


@contextlib.contextmanager
def listening(name: str) -> Iterator[socket.socket]:
    """A socket that listens under this name until the end of the block. SpecError when the lab is held already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, _claimed(name, sock) as folder:
        try:
            yield sock
        finally:
            with folder.locked():
                folder.remove(name)
                folder.vanish()


def _claimed(name: str, sock: socket.socket) -> Folder:
    """The folder in which the socket is now bound to this name."""
    while True:
        path = _paths()[0]
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        try:
            folder = Folder(path)
        except FileNotFoundError:  # whoever was the last in it has just removed it
            continue
        with folder.locked() as there:
            if not there:
                continue
            folder.tidy()
            if name in folder.names():
                raise SpecError("name", f"a lab {name!r} is there already; end it first: nslab down {shlex.quote(name)}")
            sock.bind(folder.address(name))
            sock.listen(128)
            return folder
