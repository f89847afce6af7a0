"""Many requests at once: collected, and sent in few datagrams."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from nslab import netlink
from nslab.errors import Unavailable
from nslab.netlink import Answer, Request
from nslab.trace import emit_script, record

if TYPE_CHECKING:
    from nslab.network.space import Network

HOW = {
    "netem": "a kernel with CONFIG_NET_SCH_NETEM (Debian: linux-image-amd64; the module is sch_netem)",
    "tbf": "a kernel with CONFIG_NET_SCH_TBF (the module is sch_tbf)",
    "htb": "a kernel with CONFIG_NET_SCH_HTB (the module is sch_htb)",
    "veth": "a kernel with CONFIG_VETH",
    "bridge": "a kernel with CONFIG_BRIDGE",
    "macvlan": "a kernel with CONFIG_MACVLAN",
    "dummy": "a kernel with CONFIG_DUMMY; an interface for an address alone can also be lo or one end of a veth pair",
    "vlan": "a kernel with CONFIG_VLAN_8021Q (the module is 8021q)",
    "vlan filtering": "a kernel with CONFIG_BRIDGE_VLAN_FILTERING",
}


@dataclass(frozen=True)
class Script:
    """The commands that do the same as requests, each entered for each of them."""

    network: weakref.ref[Network]
    commands: tuple[str, ...]

    def shell(self) -> str:
        network = self.network()
        if network is None or network.socket.closed:
            return "# in a network that was closed since:\n" + "\n".join(f"# {command}" for command in self.commands)
        enter = network.enter
        return "\n".join(f"{enter} {command}" for command in self.commands)


@dataclass
class Batch:
    """What waits: first everything that makes an interface, in the order asked for, then the rest, network by network."""

    made: list[tuple[Network, Request]] = field(default_factory=list)
    rest: dict[Network, list[tuple[Request, list[str]]]] = field(default_factory=dict)

    def add(self, network: Network, requests: Sequence[Request], warnings: list[str]) -> None:
        for request in requests:
            if request.type == netlink.NEWLINK and request.flags & netlink.CREATE:
                self.made.append((network, request))
            else:
                self.rest.setdefault(network, []).append((request, warnings))

    def send(self, told: Callable[[int, int], object] | None = None) -> None:
        """Send it all, and forget it; what the kernel refused first is raised. ``told`` hears how many of how many are done."""
        made, self.made, rest, self.rest = self.made, [], self.rest, {}
        total, done = len(made) + sum(map(len, rest.values())), 0

        def send(network: Network, requests: list[Request]) -> list[Answer]:
            nonlocal done
            answers = deliver(network, requests)
            done += len(answers)
            if told:
                told(done, total)
            return answers

        for network, group in groupby(made, key=lambda each: each[0]):
            send(network, [request for _, request in group])
        for network, entries in rest.items():
            answers = send(network, [request for request, _ in entries])
            for answer, (_, warnings) in zip(answers, entries, strict=True):
                warnings.extend([answer.message] if answer.message else [])


_current: ContextVar[Batch | None] = ContextVar("batch", default=None)


@contextmanager
def batch(*, told: Callable[[int, int], object] | None = None) -> Iterator[None]:
    """Inside of ``with batch():`` requests wait, and are sent together at its end: far quicker for many interfaces.

    Interfaces are made first, in the order in which they were asked for, then the rest is done, network by network. When one
    is refused, those after it in the same network are still tried, then it is raised. Nothing is sent when the
    block itself fails. What reads (links(), state, sysctl()) or removes sends first what waits. One inside another is one.
    ``told`` is called, while it is sent, with how many requests are done, and how many there are.
    """
    if _current.get() is not None:
        yield
        return
    waiting = Batch()
    token = _current.set(waiting)
    try:
        yield
    finally:
        _current.reset(token)
    waiting.send(told)


def flush() -> None:
    """Send what waits, because what follows depends on it."""
    if waiting := _current.get():
        waiting.send()


def do(network: Network, requests: Sequence[Request], warnings: list[str] | None = None) -> None:
    """Send requests now, or put them into the batch; the kernel's warnings are added to ``warnings``."""
    network.check_open()
    sink = [] if warnings is None else warnings
    if waiting := _current.get():
        waiting.add(network, requests, sink)
        return
    for answer in deliver(network, requests):
        sink += [answer.message] if answer.message else []


def unavailable(feature: str, message: str = "") -> Unavailable:
    """That the kernel lacks a feature, in its own words too."""
    return Unavailable(f"this kernel has no {feature}" + f" ({message})" * bool(message), HOW[feature])


def deliver(network: Network, requests: Sequence[Request]) -> list[Answer]:
    """Send them to one network; Unavailable or SyscallError for the first that is refused."""
    with record(network.trace):
        answers = network.socket.send(requests)
        done = [request.shell for request, answer in zip(requests, answers, strict=True) if not answer.errno]
        emit_script(Script(weakref.ref(network), tuple(done)))
    for request, answer in zip(requests, answers, strict=True):
        if answer.errno and request.needs and answer.errno == request.absent:
            raise unavailable(request.needs, answer.message)
        if answer.errno and answer.errno not in request.fine:
            raise request.error(answer)
    return answers
