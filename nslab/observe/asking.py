"""What the kernel says of a namespace: its owner, its parent, who made it, its number; ioctl_ns(2).

Owners and parents that no process shows are found so, and asked in turn. Each namespace is open only while it is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from errno import EINVAL, ENOTTY, EPERM

from nslab.errors import SyscallError
from nslab.model import KINDS, NamespaceId
from nslab.procfs.found import Said, inode
from nslab.spawner import Descriptor
from nslab.syscalls import nsfs

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Answers:
    """What it said; ``path`` is one by which the namespace can be opened, "" when it was found through another one only."""

    kind: str
    id: NamespaceId
    path: str
    number: int = 0
    owner: NamespaceId | None = None
    owner_uid: int | None = None  # that made this user namespace
    parent: NamespaceId | None = None


class Asker:
    """Asks for each namespace once, beyond what those ``said``, by the texts of their links, that a walk has asked."""

    def __init__(self, said: Mapping[str, Said]) -> None:
        self._said = said
        self.found: dict[NamespaceId, Answers] = {}
        self._kept: list[Descriptor] = []  # of those that no other path leads to
        self._has_numbers = True

    def close(self) -> None:
        """Let go of what was kept: the paths that lead to it end."""
        for each in self._kept:
            each.close()

    def ask(self, kind: str, identity: NamespaceId, paths: Iterable[str]) -> bool:
        """Ask it by the first of these paths that still leads to it; False when there is one, but it may not be opened.

        One that was found through another one before, as its owner, only lacks the path.
        """
        refused = False
        for path in paths:
            try:
                with Descriptor(os.open(path, _OPEN)) as opened:
                    if identity_behind(opened) == identity:
                        if identity not in self.found:
                            self._ask(kind, identity, path, opened)
                        self.found[identity].path = path
                        return True
            except OSError as error:
                refused = refused or isinstance(error, PermissionError)
        if identity in self.found:
            return True
        self.found[identity] = Answers(kind, identity, "")
        return not refused

    def knows(self, kind: str, identity: NamespaceId) -> bool:
        """Whether it has been asked, and can be opened; if it was asked on the walk, its owner has been too."""
        if identity in self.found:
            return bool(self.found[identity].path)
        if not (said := self._said.get(f"{kind}:[{identity.ino}]")):
            return False
        owner = NamespaceId(*said.owner) if said.owner else None
        if owner and owner not in self.found:
            return False
        self.found[identity] = Answers(kind, identity, f"/proc/{said.pid}/ns/{kind}", said.number, owner)
        return True

    def keep(self, opened: Descriptor) -> str:
        """Ask one that nothing in /proc leads to, and keep it open: the path by which it can be opened from now on."""
        self._kept.append(opened)
        path = f"/proc/{os.readlink('/proc/self')}/fd/{opened.fileno()}"
        flag = nsfs.ns_get_nstype(opened.fileno())
        self._ask(next(kind.name for kind in KINDS.values() if kind.flag == flag), identity_behind(opened), path, opened)
        return path

    def _ask(self, kind: str, identity: NamespaceId, path: str, opened: Descriptor) -> None:
        answers = self.found[identity] = Answers(kind, identity, path)
        answers.number = self._number(opened)
        answers.owner = self._through(nsfs.NS_GET_USERNS, "user", opened)
        if KINDS[kind].hierarchical:
            answers.parent = answers.owner if kind == "user" else self._through(nsfs.NS_GET_PARENT, kind, opened)
        if kind == "user":
            answers.owner_uid = nsfs.ns_get_owner_uid(opened.fileno())

    def _through(self, question: int, kind: str, opened: Descriptor) -> NamespaceId | None:
        """The owner or parent; None when there is none, or none in sight."""
        get = nsfs.ns_get_userns if question == nsfs.NS_GET_USERNS else nsfs.ns_get_parent
        try:
            with Descriptor(get(opened.fileno())) as other:
                identity = identity_behind(other)
                if identity not in self.found:
                    self._ask(kind, identity, "", other)
                return identity
        except SyscallError as error:
            if error.errno not in (EPERM, EINVAL):
                raise
            return None

    def _number(self, opened: Descriptor) -> int:
        if self._has_numbers:
            try:
                return nsfs.ns_get_id(opened.fileno())
            except SyscallError as error:
                if error.errno not in (ENOTTY, EINVAL):
                    raise
                self._has_numbers = False
        return 0


def identity_behind(opened: Descriptor) -> NamespaceId:
    """The id of a namespace that is open."""
    info = os.fstat(opened.fileno())
    return NamespaceId(info.st_dev, info.st_ino)


def identity_of(link: str, device: int) -> NamespaceId:
    """The id behind the text of a link such as "uts:[4026531838]"."""
    return NamespaceId(device, inode(link))


def owner_uid(answers: Answers, found: Mapping[NamespaceId, Answers]) -> int | None:
    """The uid that made it, if it is a user namespace, or its owner."""
    if answers.kind == "user":
        return answers.owner_uid
    owner = found.get(answers.owner) if answers.owner else None
    return owner.owner_uid if owner else None
