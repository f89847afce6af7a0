"""A TCP service inside a network, reached from outside: at a port of the machine's own loopback interface.

The listening socket is made here, and handed to a process that has joined the network: what that accepts comes from outside,
and what it connects belongs inside. So no byte passes the notebook, and all ends with that process, as everything of the
spawner does.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from nslab.errors import DeadNamespace, SpecError
from nslab.namespaces import joining, privilege
from nslab.ops import Execute, Plan, spec
from nslab.spawner import Child, Descriptor, ensure
from nslab.trace import emit_script

FORWARDER = Path(__file__).with_name("forwarder.py")
LOOPBACK = ("127.0.0.1", "::1")
_BACKLOG = 1024


@dataclass(frozen=True)
class _Script:
    """What a script has instead."""

    port: int
    local: int

    def shell(self) -> str:
        return (
            f"# no standard tool: port {self.port} in there is at 127.0.0.1:{self.local} here; socat could do it, with\n"
            f"# TCP-LISTEN:{self.local},bind=127.0.0.1,fork and an EXEC of nsenter and socat"
        )


class Forward:
    """A port of 127.0.0.1 by which a service is reached; ``url`` and ``address`` say where, ``port`` is that inside.

    It ends with close(), at the end of a ``with``, with what it leads into, and with this process.
    """

    def __init__(self, where: Any, port: int, *, local: int, inside: Sequence[str], pidfd: Descriptor | None = None):
        spec.number("port", port, 1, 65535)
        spec.number("local", local, 0, 65535)
        self.port = port
        targets = joining.checked({"net": where}, ())
        way = joining.way(targets, ensure())
        if not way.kinds:
            raise SpecError("forward", "it shares the machine's own network, where the service is reached as it is")
        with _listening(local) as listener:
            self.address: tuple[str, int] = listener.getsockname()
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs, Descriptor(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) as null:
                try:
                    self._child = _start(way, (str(port), *inside), {"stdin": theirs, "stdout": null, "stderr": null})
                    emit_script(_Script(port, self.address[1]))
                    self._child.settle()
                    handed = [listener.fileno(), *([pidfd.fileno()] if pidfd else [])]
                    socket.send_fds(self._control, [b"f"], handed)
                except BrokenPipeError:
                    self.close()
                    self._child.raise_error()
                    raise DeadNamespace("the process that was to carry the connections has ended at once.") from None
                except BaseException:
                    self._control.close()
                    raise

    @property
    def url(self) -> str:
        """For a browser."""
        return f"http://127.0.0.1:{self.address[1]}/"

    @property
    def alive(self) -> bool:
        """Whether it still listens."""
        while self._child.status is None and self._child.advance(0):
            pass
        return self._child.status is None and self._child.gone is None

    def close(self) -> None:
        """End it, with every connection that goes through it."""
        self._control.close()
        self._child.end()

    def __enter__(self) -> Forward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Forward 127.0.0.1:{self.address[1]} to port {self.port} inside{'' if self.alive else ', ended'}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        link = f'<a href="{self.url}" target="_blank">{self.url}</a>' if self.alive else "ended"
        return {"text/plain": repr(self), "text/html": f"<div>{escape(repr(self))} {link}</div>"}


def _checked(address: str) -> str:
    """An address without a prefix; SpecError when it is none."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise SpecError("address", f"{address!r} is no address") from None


def _listening(local: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK[0], local))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise SpecError("local", f"port {local} of this machine is in use; 0 takes one that is free") from None
        if error.errno == errno.EACCES:
            raise SpecError("local", f"port {local} is for root only; those from 1024 on are for everybody") from None
        raise
    return sock


def _start(way: joining.Way, words: Sequence[str], streams: Mapping[str, Any]) -> Child:
    """The process that carries the connections: with the machine's files, in the network."""
    work = Execute((sys.executable, "-I", "-S", os.fspath(FORWARDER), *words), None, "/")
    plan = Plan(way.ops, work)
    spawner = ensure()
    return spawner.start(plan, work=work, fds={**streams, **way.fds}, borrowed=privilege.is_borrowed(plan))


def start(
    where: Any, name: str, port: int, local: int, address: str | None, forwards: dict[Forward, str], *,
    addresses: Iterable[str] = (), pidfd: Descriptor | None = None,
) -> Forward:  # fmt: skip
    """A Forward to loopback inside, else to ``addresses``, or to the one ``address`` that is given.

    It lives as long as the others in ``forwards``, those of them that have not ended; ``name`` is of what it leads into.
    """
    inside = (*LOOPBACK, *addresses) if address is None else (_checked(address),)
    made = Forward(where, port, local=local, inside=inside, pidfd=pidfd)
    for ended in [each for each in forwards if not each.alive]:
        del forwards[ended]
    forwards[made] = name
    return made
