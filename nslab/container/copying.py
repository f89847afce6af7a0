"""Files into a container and out of it, as a stream of tar between this process and one inside.

Both ends look names up with a root that no symlink leads out of: the one inside with the container's own, this one with the
folder that it fills. What comes out is not trusted: whoever is root inside may have had a hand in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from nslab.errors import NslabError, SpecError
from nslab.namespaces.streams import Streams
from nslab.ops import archive, spec
from nslab.ops.places import opened

Carry = Callable[[Streams], None]
Inside = Callable[..., Any]


def giving(source: spec.Folder, target: spec.Folder) -> tuple[Inside, tuple[str, ...], Carry]:
    """What runs inside, its arguments, and what this process does meanwhile, to copy a file or folder in."""
    path = os.path.realpath(_text("source", source))
    if not os.path.exists(path):
        raise SpecError("source", f"there is no {os.fspath(source)} on this machine")

    def give(streams: Streams) -> None:
        with streams.ours.pop("stdin") as pipe, opened(path, os.O_RDONLY | os.O_NONBLOCK) as given:
            try:
                with os.fdopen(pipe.fileno(), "wb", closefd=False) as file:
                    archive.pack(file, given)
            except BrokenPipeError:
                pass  # it has ended, and says why
            except OSError as error:
                raise SpecError("source", f"{error.filename or path} cannot be read: {error.strerror}") from None

    return archive.receive, (_text("target", target), os.path.basename(path)), give


def taking(source: spec.Folder, target: spec.Folder) -> tuple[Inside, tuple[str, ...], Carry]:
    """The same to copy out."""
    inside, path = _text("source", source), os.path.abspath(_text("target", target))
    folder, name = (path, os.path.basename(os.path.normpath(inside))) if os.path.isdir(path) else os.path.split(path)
    if not os.path.isdir(folder):
        raise SpecError("target", f"there is no folder {folder} on this machine")
    if not name.strip("/."):
        raise SpecError("source", f"{inside!r} has no name to be copied under")

    def take(streams: Streams) -> None:
        streams.ours.pop("stdin").close()
        with (
            streams.ours.pop("stdout") as pipe,
            opened(folder, os.O_PATH | os.O_DIRECTORY) as into,
            os.fdopen(pipe.fileno(), "rb", closefd=False) as file,
        ):
            if not file.peek(1):
                return  # it has ended, and says why
            try:
                archive.unpack(file, into, top=name, owners=False, modes=0o777)
            except archive.BadArchive as error:
                raise NslabError(f"{inside} was not copied whole: {error}") from None
            while file.read(1 << 16):
                pass

    return archive.send, (inside,), take


def _text(argument: str, path: spec.Folder) -> str:
    text = spec.text(argument, os.fspath(path) if isinstance(path, os.PathLike) else path)
    if not text:
        raise SpecError(argument, "is empty")
    return text
