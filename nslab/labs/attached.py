"""A lab that another process holds, used from this one."""

from __future__ import annotations

import os
import socket
from typing import Any
from weakref import WeakSet

from nslab.errors import DeadNamespace, Refused, SpecError
from nslab.labs import messages, places
from nslab.labs.bringing import take_down
from nslab.labs.ending import Follower
from nslab.model import KINDS
from nslab.namespaces import Namespace
from nslab.network import Interface, Network
from nslab.network.making import make_room
from nslab.spawner import Descriptor
from nslab.syscalls import nsfs
from nslab.topology import Topology, files
from nslab.topology.lab import Lab
from nslab.trace import Trace


class HeldNetwork(Network):
    """A network that a holder holds, too; its netlink socket is opened when it is first needed."""

    def __init__(self, namespace: Namespace):
        self.namespace = namespace
        self.trace = Trace()
        self.captures = WeakSet()

    def __getattr__(self, name: str) -> Any:
        if name not in ("socket", "_indexes"):
            raise AttributeError(name)
        own = Network.of(self.namespace)
        own.namespace.close()
        self.socket, self._indexes = own.socket, own._indexes
        return getattr(self, name)

    def check_open(self) -> None:
        if not self.namespace.alive:
            raise DeadNamespace("this network was closed.")

    def close(self) -> None:
        for capture in list(self.captures):
            capture.stop()
        if "socket" in vars(self):
            self.socket.close()
        self.namespace.close()

    def __repr__(self) -> str:
        return f"<Network {self.namespace}{'' if self.namespace.alive else ', closed'}>"


class AttachedLab(Lab):
    """A lab that a holder holds (``nslab up``), with the face of one of this process: ``lab["h1"].run(...)``, ``ping_all()``.

    ``pid`` is the holder. The descriptors are copies: what is started here is this process's own, and ends with it or with the
    lab. destroy() ends the lab itself; close(), or the end of a ``with``, only lets go of it. It cannot be changed from here.
    """

    def __init__(self, sock: socket.socket):
        self.pid = messages.peer(sock)[0]
        self._holder = Descriptor(os.pidfd_open(self.pid))
        told, _ = messages.ask(sock, "lab")
        topology = files.construct(Topology, told["topology"])
        self._plan(topology)
        topology.adopt(self)
        make_room(2 * told["descriptors"])
        self._follower: Follower | None = None
        try:
            self._take(sock, told)
            self._follower = Follower(self.pid, {network.namespace.id for network in self.networks.values()})
        except BaseException:
            self.close()
            raise
        self.running = True

    def _take(self, sock: socket.socket, told: dict[str, Any]) -> None:
        """Copies of all descriptors of the lab."""
        fds: list[Descriptor] = []
        while len(fds) < told["descriptors"]:
            some = messages.ask(sock, "descriptors", first=len(fds))[1]
            fds += some
            if not some:
                raise DeadNamespace(f"the lab {self.topology.name!r} has just ended.")
        each = iter(fds)
        for name in told["nodes"]:
            self.networks[name] = HeldNetwork(_namespace("net", next(each)))
            self.hostnames[name] = _namespace("uts", next(each))
        if told["fabric"]:
            self.fabric = HeldNetwork(_namespace("net", next(each)))
        for node, name, index in told["interfaces"]:
            network = self.networks.get(node, self.fabric)
            if network:
                self.interfaces[node, name] = Interface(network, name, index)
        if self.fabric:
            self.bridges |= {name: Interface(self.fabric, name, index) for name, index in told["bridges"].items()}

    def node(self, name: str) -> Any:
        """The namespaces of a host or router, by kind."""
        if self._holder.closed or self._holder.readable():
            self.running = False
            raise DeadNamespace(f"the lab {self.topology.name!r} is gone for this process: it was ended or let go of.")
        return super().node(name)

    def catch_up(self) -> None:
        """Refused: whoever attaches uses the lab as it is."""
        raise Refused(
            f"the lab {self.topology.name!r} is held by PID {self.pid}, and changed only by that.\n"
            "  what to do: change its file, then nslab down and nslab up; or deploy() it here, where it can be changed."
        )

    def close(self) -> None:
        """End what was started in it from here, and let go of it; the lab goes on."""
        if self._follower:
            self._follower.close()
        super().destroy()
        self._holder.close()

    def destroy(self) -> None:
        """End the lab itself, with all that runs in it, whoever started that."""
        self.close()
        take_down(self.topology.name)

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "running" if self.running else "let go of"
        return f"<AttachedLab {self.topology.name!r}, held by PID {self.pid}, {state}: {self.topology.summary()}>"

    def to_python(self) -> str:
        """The code that makes it again."""
        return self.topology.to_python()

    def to_yaml(self) -> str:
        """Its file."""
        return self.topology.to_yaml()


def _namespace(kind: str, descriptor: Descriptor) -> Namespace:
    """A namespace whose descriptor came from elsewhere; SpecError when it is another thing."""
    if nsfs.ns_get_nstype(descriptor.fileno()) != KINDS[kind].flag:
        raise SpecError("name", f"the holder of the lab gave something else than a namespace of kind {kind}")
    return Namespace(kind, descriptor)


def attach(name: str) -> AttachedLab:
    """The lab of this name that ``nslab up`` has brought up. SpecError when none of this user is held under it."""
    sock = places.connect(places.check_name(name))
    if sock is None:
        names = ", ".join(repr(each["name"]) for each in places.held()) or "none"
        raise SpecError("name", f"no lab {name!r} of this user is held in the background; there are: {names}")
    with sock:
        return AttachedLab(sock)
