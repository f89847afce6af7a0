"""Node: what a link of a topology leads to, and where commands run in its lab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nslab.errors import SpecError
from nslab.namespaces import joining, running
from nslab.namespaces.entering import Enterable
from nslab.namespaces.result import Result
from nslab.namespaces.running import Running
from nslab.namespaces.streams import Sink
from nslab.ops import Op, spec
from nslab.topology import looking

if TYPE_CHECKING:
    from nslab.container import Container
    from nslab.namespaces.forwarding import Forward
    from nslab.network import Network
    from nslab.topology.lab import Lab
    from nslab.topology.topology import Topology


class Node(Enterable):
    """A node of a topology: a host, a router (it forwards), a nat (that hides what is behind) or a switch (a bridge).

    While the topology is deployed, ``run``, ``popen`` and ``call`` work in it: in its network, under its host name, with the
    names of all nodes in /etc/hosts and a /sys that shows its interfaces; all else is the machine's, unless more was asked for:
    then it is a Container, ``container``, whose network and host name are those of the node.
    """

    def __init__(self, topology: Topology, name: str, role: str, *, asked: Mapping[str, Any], internet: bool = False):
        self.topology = topology
        self.name = name
        self.role = role
        self.asked = asked  # what it has of its own besides a network and a host name, in the words of Container
        self.internet = internet  # a nat that leads out of the machine

    @property
    def addresses(self) -> tuple[str, ...]:
        """What its name stands for in the lab: the first IPv4 and the first IPv6 address, without their lengths."""
        return self._lab.addresses.get(self.name, ())

    @property
    def network(self) -> Network:
        """Its network in the lab: interfaces, routes, neighbours, counters."""
        self.joins()
        return self._lab.networks[self.name]

    @property
    def _lab(self) -> Lab:
        return self.topology.lab

    def joins(self) -> Mapping[str, Any]:
        return self._lab.node(self.name)

    @property
    def alive(self) -> bool:
        """Whether something can run in it now."""
        if not self.topology.running or self.name not in self._lab.networks:
            return False
        return not self.asked or self.container.alive

    @property
    def container(self) -> Container:
        """Itself in the lab, where more of its own was asked for: stats(), pause(), wait_for() and so on."""
        self.joins()
        if not self.asked:
            raise SpecError(f"node {self.name!r}", "is no container: it holds no process; say isolate='pid mnt', for example")
        if self.name not in self._lab.containers:
            raise SpecError(
                f"node {self.name!r}", "is a container of the process that holds the lab, and entered from there only"
            )
        return self._lab.containers[self.name]

    def joinable(self) -> joining.Target:
        """What others join of it, besides its network and host name."""
        return self.container.joinable()

    def inside(self) -> tuple[Op, ...]:
        return self._lab.inside()

    def run(
        self, command: spec.Command, *, input: str | bytes | None = None, timeout: float | None = None, check: bool = False,
        env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None, user: str | int | None = None, text: bool = True,
        stream: bool | Sink = False, tty: bool = False, attach: bool = False, max_output: int = running.MAX_OUTPUT,
    ) -> Result:  # fmt: skip
        """Run a command in it and wait; options as for nslab.run. What a container is left with in the background goes on."""
        options: dict[str, Any] = {
            "input": input, "timeout": timeout, "check": check, "env": env, "cwd": cwd, "user": user, "text": text,
            "stream": stream, "tty": tty, "max_output": max_output,
        }  # fmt: skip
        if not self.asked:
            return super().run(command, attach=attach, **options)
        if attach:
            raise SpecError("attach", f"{self.name!r} is a container, entered by its name with nslab exec, or without attach")
        return self.container.run(command, **options)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a Python function in it, in a process of its own, and return its value; its exception is raised here."""
        return (self.container.call if self.asked else super().call)(function, *args, **kwargs)

    def popen(
        self, command: spec.Command, *, env: Mapping[str, str] | None = None, cwd: spec.Folder | None = None,
        user: str | int | None = None, stdin: bool = False,
    ) -> Running:  # fmt: skip
        """Start a command in it and return at once: a handle with pid, wait(), kill(), stdout. It ends with the lab."""
        popen = self.container.popen if self.asked else super().popen
        command_there = popen(command, env=env, cwd=cwd, user=user, stdin=stdin)
        self._lab.commands[command_there] = self.name
        return command_there

    def forward(self, port: int, *, local: int = 0, address: str | None = None) -> Forward:
        """Bring a TCP service in it to 127.0.0.1 of the machine, at port ``local`` (0: one that is free).

        A Forward, with ``url`` and close(); it ends with the lab too. What is connected to inside is 127.0.0.1, else ::1, else
        an address of the node, or the ``address`` that is given.
        """
        return looking.forward(self._lab, self.name, port, local, address)

    def remove(self) -> None:
        """Take it out, with its links; in a running lab what runs in it ends."""
        self.topology.remove(self)

    def options(self) -> dict[str, Any]:
        """The keywords of ``Topology.host`` and so on that ask for the same."""
        return {**self.asked, **({"internet": True} if self.internet else {})}

    def is_like(self, other: Node) -> bool:
        """Whether it asks for the same."""
        return (self.name, self.role, self.options()) == (other.name, other.role, other.options())

    def copy(self, topology: Topology) -> Node:
        """One that asks for the same, of another topology."""
        return Node(topology, self.name, self.role, asked=self.asked, internet=self.internet)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Node {self.role} {self.name}>"
