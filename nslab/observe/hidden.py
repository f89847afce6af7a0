"""Namespaces to which nothing leads that /proc shows: kept by a socket, or known to the kernel alone."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping

from nslab.errors import SyscallError
from nslab.model import NamespaceId
from nslab.observe.asking import Asker, identity_behind
from nslab.procfs.found import Reference
from nslab.spawner import Descriptor
from nslab.syscalls import nsfs

_AT_ONCE = 1000
_MOST = 5000  # sockets that are asked, at some 10 µs each
_OVER = (errno.ESRCH, errno.EBADF, errno.ENOTTY)  # the process has ended, or closed it


class Sockets:
    """The sockets that were found among the descriptors of processes, asked for the networks that they belong to.

    Each is copied from its process for that, and closed at once. ``refused`` are those that could not be asked.
    """

    def __init__(self, found: Mapping[bytes, tuple[int, int]]):
        self._of: dict[int, list[tuple[int, bytes]]] = {}
        for link, (pid, number) in [*found.items()][:_MOST]:
            self._of.setdefault(pid, []).append((number, link))
        self.refused = max(0, len(found) - _MOST)

    def references(self, asker: Asker) -> Iterator[Reference]:
        """The networks to which nothing but a socket leads."""
        for pid, sockets in self._of.items():
            try:
                with Descriptor(os.pidfd_open(pid)) as process:
                    for number, link in sockets:
                        yield from self._asked(asker, process, pid, number, link)
            except OSError:  # it has ended
                continue

    def _asked(self, asker: Asker, process: Descriptor, pid: int, number: int, link: bytes) -> Iterator[Reference]:
        try:
            with Descriptor(nsfs.pidfd_getfd(process.fileno(), number)) as sock:
                if os.fstat(sock.fileno()).st_ino != int(link[8:-1]):  # by now it is another one
                    return
                opened = Descriptor(nsfs.siocgskns(sock.fileno()))
        except SyscallError as error:
            self.refused += error.errno not in _OVER
            return
        identity = identity_behind(opened)
        if identity in asker.found:
            opened.close()
        else:
            yield Reference(f"net:[{identity.ino}]", "socket", pid, str(number), asker.keep(opened))


def listed(asker: Asker) -> Iterator[tuple[NamespaceId, str]]:
    """Those that the kernel lists and nobody else: the id of each, and a path. SyscallError ENOSYS where it has no list."""
    known = {each.number for each in asker.found.values()}
    last = 0
    while numbers := nsfs.listns(last, nr_ns_ids=_AT_ONCE):
        for number in numbers:
            with contextlib.suppress(SyscallError):  # gone, or not ours to open
                if number not in known:
                    opened = Descriptor(nsfs.open_by_handle_at(number))
                    yield identity_behind(opened), asker.keep(opened)
        last = numbers[-1]
