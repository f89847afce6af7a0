"""Who holds namespaces in which nobody need be: a lab says so here, for whoever finds them in /proc and asks whose they are.

For other processes the same is in a file in memory, which is found among the descriptors of this one by its name and ends with
it. It is believed of namespaces that its process holds.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from typing import Protocol

from nslab.model import NamespaceId
from nslab.spawner import Descriptor

NAME = "nslab-claim:"  # and the label
_LONGEST = 200  # bytes of a label: a name of a file in memory has at most 249


class Holder(Protocol):
    """What holds namespaces by descriptors of this process."""

    def label(self) -> str: ...
    def held(self) -> Iterable[NamespaceId]: ...


_holders: weakref.WeakKeyDictionary[Holder, Descriptor] = weakref.WeakKeyDictionary()


def claim(holder: Holder) -> None:
    """From here on what ``holder`` holds is known by its label; said again, when it holds something else."""
    if holder not in _holders:
        label = os.fsencode(holder.label())[:_LONGEST].replace(b"/", b"_")
        _holders[holder] = Descriptor(os.memfd_create(NAME + os.fsdecode(label), os.MFD_CLOEXEC))
    file = _holders[holder].fileno()
    os.ftruncate(file, 0)
    os.pwrite(file, "".join(f"{each.dev} {each.ino}\n" for each in holder.held()).encode(), 0)


def drop(holder: Holder) -> None:
    """It holds nothing any more."""
    if file := _holders.pop(holder, None):
        file.close()


def holders() -> list[Holder]:
    """Those that are alive."""
    return list(_holders)


def read(path: str) -> Iterator[NamespaceId]:
    """What is claimed in the file behind this path; OSError when it may not be read, ValueError for other text."""
    with Descriptor(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
        for line in os.pread(file.fileno(), 1 << 20, 0).splitlines():
            dev, ino = line.split()
            yield NamespaceId(int(dev), int(ino))
