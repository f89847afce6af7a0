"""A lab that another process holds, used from this one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from nslab.errors import DeadNamespace, SpecError
from nslab.labs import messages, places
from nslab.labs.bringing import take_down
from nslab.labs.ending import Follower
from nslab.model import KINDS
from nslab.namespaces import Namespace
from nslab.network import Interface, Network
from nslab.network.making import make_room
from nslab.spawner import Descriptor
from nslab.syscalls import nsfs
from nslab.topology import Topology, changing, editing, files
from nslab.topology.changing import Changes
from nslab.topology.lab import Lab
from nslab.trace import Step, Trace, emit, emit_script, record


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


@dataclass(frozen=True)
class _Script:
    """What a holder did, as a shell script."""

    text: str

    def shell(self) -> str:
        return self.text


class AttachedLab(Lab):
    """A lab that a holder holds (``nslab up``), with the face of one of this process: ``lab["h1"].run(...)``, ``ping_all()``.

    ``pid`` is the holder. The descriptors are copies: what is started here is this process's own, and ends with it or with the
    lab. Changes, as ``lab.topology.link(...)`` or ``lab.apply(...)``, are made by the holder, one client after the other;
    refresh() tells of those of others. destroy() ends the lab itself; close(), or the end of a ``with``, only lets go of it.
    """

    def __init__(self, sock: socket.socket):
        self.pid = messages.peer(sock)[0]
        self._holder = Descriptor(os.pidfd_open(self.pid))
        told, _ = messages.ask(sock, "lab")
        self._plan(files.construct(Topology, told["topology"]))
        self.topology.adopt(self)
        self._follower: Follower | None = None
        try:
            self._take(sock, told)
        except BaseException:
            self.close()
            raise
        self.running = True

    def _take(self, sock: socket.socket, told: dict[str, Any]) -> None:
        """Copies of all descriptors of the lab as it is now, and let go of what is no more in it."""
        make_room(2 * told["descriptors"])
        fds: list[Descriptor] = []
        try:
            while len(fds) < told["descriptors"]:
                some = messages.ask(sock, "descriptors", first=len(fds), version=told["version"])[1]
                fds += some
                if not some:
                    raise DeadNamespace(f"the lab {self.topology.name!r} has just ended.")
            each = iter(fds)
            pairs = {name: (_namespace("net", next(each)), _namespace("uts", next(each))) for name in told["nodes"]}
            fabric = _namespace("net", next(each)) if told["fabric"] else None
        except BaseException:
            for fd in fds:
                fd.close()
            raise
        old, old_names, old_fabric = self.networks, self.hostnames, self.fabric
        self.networks, self.hostnames = {}, {}
        for name, (space, hostname) in pairs.items():
            self.networks[name] = _kept(old, name, space)
            if self.networks[name] is old.get(name):
                hostname.close()
                self.hostnames[name] = old_names[name]
            else:
                self.hostnames[name] = hostname
        if fabric:
            self.fabric = _kept({"": old_fabric} if old_fabric else {}, "", fabric)
        for name in [name for name, space in old.items() if space is not self.networks.get(name)]:
            self._end_in(name)
            old[name].close()
            old_names[name].close()
        self._version = told["version"]
        places = [(node, name, index, self.networks.get(node, self.fabric)) for node, name, index in told["interfaces"]]
        self.interfaces = {(node, name): Interface(space, name, index) for node, name, index, space in places if space}
        if self.fabric:
            self.bridges = {name: Interface(self.fabric, name, index) for name, index in told["bridges"].items()}
        if self._follower:
            self._follower.close()
        self._follower = Follower(self.pid, {network.namespace.id for network in self.networks.values()})

    def _end_in(self, node: str) -> None:
        """End what was started from here in a node."""
        for command in [command for command, name in self.commands.items() if name == node]:
            command.end()
        for forward in [forward for forward, name in self.forwards.items() if name == node]:
            forward.close()

    def node(self, name: str) -> Any:
        """The namespaces of a host or router, by kind."""
        if self._gone():
            raise self._dead()
        return super().node(name)

    def catch_up(self) -> None:
        """Have the holder bring the lab to what the topology says now; a failure leaves both as they were.

        NslabError with the holder's words when it cannot, or when another client changed the lab since this one looked.
        """
        changing.settle(self)
        with self._connected() as sock:
            sock.settimeout(None)  # it ends with the holder, and with an interrupt; the holder then goes on with it
            answer, _ = messages.ask(sock, "apply", version=self._version, topology=files.describe(self.topology))
            with record(self.trace):
                for step in answer["steps"]:
                    emit(Step(step[0], tuple(step[1]), *step[2:]))
                emit_script(_Script(answer["script"]))
            self._show(sock)
        self.last = Changes(tuple(map(tuple, answer["done"])), answer["requests"])

    def apply(self, wanted: Topology) -> Changes:
        """Have the lab become what another topology describes; see Topology.apply."""
        return self.topology.apply(wanted)

    def refresh(self) -> None:
        """Look again: the topology, its nodes and links become what others have made of it. DeadNamespace when it is gone."""
        with self._connected() as sock:
            self._show(sock)

    def _show(self, sock: socket.socket) -> None:
        told, _ = messages.ask(sock, "lab")
        editing.adopt(self.topology, files.construct(Topology, told["topology"]))
        self._take(sock, told)
        self.layout = self.topology.resolve()
        self.made = dict(zip(self.topology.links, self.layout.links, strict=True))
        self.asked = {node.name: node.options() for node in self.topology}
        self.name_nodes(self.layout)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        """A connection to the holder, which is still the same."""
        sock = None if self._gone() else places.connect(self.topology.name)
        if sock is None:
            raise self._dead()
        with sock:
            if messages.peer(sock)[0] != self.pid:
                raise self._dead()
            try:
                yield sock
            except DeadNamespace as error:
                raise self._dead() from error

    def _gone(self) -> bool:
        return self._holder.closed or self._holder.readable()

    def _dead(self) -> DeadNamespace:
        self.running = False
        return DeadNamespace(f"the lab {self.topology.name!r} is gone for this process: it was ended or let go of.")

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


def _kept(old: Mapping[str, Network], name: str, now: Namespace) -> Network:
    """The network that was there under this name, when it is still that; else a new one."""
    if name in old and old[name].namespace.id == now.id:
        now.close()
        return old[name]
    return HeldNetwork(now)


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
