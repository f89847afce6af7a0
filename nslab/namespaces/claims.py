"""Who holds namespaces in which nobody need be: a lab says so here, for whoever finds them in /proc and asks whose they are."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol

from nslab.model import NamespaceId


class Holder(Protocol):
    """What holds namespaces by descriptors of this process."""

    def label(self) -> str: ...
    def held(self) -> Iterable[NamespaceId]: ...


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def claim(holder: Holder) -> None:
    """From here on what ``holder`` holds is known by its label, as long as it lives."""
    _holders.add(holder)


def holders() -> list[Holder]:
    """Those that are alive."""
    return list(_holders)
