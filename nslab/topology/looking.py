"""Looking at a lab: what Lab and Topology share, so that either can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nslab.errors import SpecError
from nslab.model.packets import Walk
from nslab.network import Capture, Network, capturing
from nslab.network.capturing import Filter
from nslab.trace import record

if TYPE_CHECKING:
    from nslab.namespaces.forwarding import Forward
    from nslab.topology.lab import Lab
    from nslab.topology.metering import Throughput
    from nslab.topology.node import Node


class Looking:
    """Captures in a running lab, what is followed through it, and how much it carries."""

    @property
    def lab(self) -> Lab:
        """What is looked at; DeadNamespace when it is not running."""
        raise NotImplementedError

    def capture(
        self, node: Node | str, interface: str | None = None, *, protocol: str | None = None,
        host: Node | str | Sequence[str] = (), port: int | None = None, max_packets: int = capturing.MOST_PACKETS,
    ) -> Capture:  # fmt: skip
        """Capture what passes the interfaces of a node, or one of them, until its stop(), the end of a ``with``, or of the lab.

        At a switch these are its ports. ``protocol`` (ARP, ICMP, ICMPv6, TCP, UDP), ``host`` (a node, an address, or several)
        and ``port`` say what is wanted of it; ``max_packets`` how many are kept.
        """
        lab, name = self.lab, str(node)
        wanted = Filter.checked(protocol, _addresses(lab, host), port)
        where = _network(lab, name)
        names = [there for owner, there in lab.interfaces if owner == name]
        if interface is not None and interface not in [*names, *["lo"] * (where is not lab.fabric)]:
            raise SpecError("interface", f"{name} has no {interface!r}, but {', '.join(names)}")

        def place(_: Network, seen: str) -> tuple[str, str] | None:
            return (name, seen) if where is not lab.fabric or seen in names else None

        with record(lab.trace):
            return capturing.start({where: interface or ""}, place, wanted, max_packets)

    def follow(
        self, action: Node | str | Callable[[], Any], target: Node | str | None = None, *, protocol: str | None = None,
        host: Node | str | Sequence[str] = (), port: int | None = None, max_packets: int = capturing.MOST_PACKETS,
    ) -> Walk:  # fmt: skip
        """Follow what a function sends, or one ping from a node to another, through every interface that it passes.

            lab.follow(a, b)
            lab.follow(lambda: a.run("curl http://b"), port=80)

        A Walk: a table with one row a hop, in order of time, at which TTL, MACs and, where NAT is at work, addresses change;
        ``value`` is what the function returned, or the round-trip time in milliseconds. All nodes and switches are captured
        meanwhile, so other traffic shows too, unless ``protocol``, ``host`` and ``port`` say what is wanted, as for capture();
        of a ping it is ICMP and ARP.
        """
        from nslab.topology import following

        lab = self.lab
        wanted = Filter.checked(protocol, _addresses(lab, host), port)
        if target is None:
            if not callable(action):
                raise SpecError("target", "is missing: follow(a, b) is a ping from a to b, follow(function) all that it sends")
            return following.follow(lab, action, wanted, max_packets)
        one, two = str(action), str(target)
        lab.node(one)
        lab.node(two)
        if wanted == Filter() and lab.addresses[two]:
            wanted = Filter(("ICMPv6",) if ":" in lab.addresses[two][0] else ("ARP", "ICMP"))
        return following.follow(lab, lambda: following.ping(lab, one, two), wanted, max_packets)

    def throughput(self, source: Node | str, target: Node | str, *, seconds: float = 1.0) -> Throughput:
        """How much one TCP connection carries from a node to another, measured for so long where it arrives.

        A Throughput: ``bits`` a second of what was sent, without headers, which take some 5 % of a link.
        """
        from nslab.topology import metering

        return metering.throughput(self.lab, str(source), str(target), seconds)


def forward(lab: Lab, name: str, port: int, local: int, address: str | None) -> Forward:
    """Bring a service of a node to the machine's loopback; see Node.forward."""
    from nslab.namespaces import forwarding

    with record(lab.trace):
        where = lab.node(name)["net"]
        return forwarding.start(where, name, port, local, address, lab.forwards, addresses=lab.addresses.get(name, ()))


def _network(lab: Lab, name: str) -> Network:
    """The network in which the interfaces of a node are: for a switch, the fabric."""
    if lab.layout.nodes.get(name) == "switch" and lab.fabric:
        return lab.fabric
    lab.node(name)
    return lab.networks[name]


def _addresses(lab: Lab, host: Node | str | Sequence[str]) -> list[str]:
    """What stands for addresses, as addresses: those of all interfaces for the name of a node."""
    nodes: Mapping[str, str] = lab.layout.nodes
    found: list[str] = []
    for each in [host] if isinstance(host, str) or not isinstance(host, Sequence) else host:
        if str(each) in nodes:
            found += [text.split("/")[0] for end in lab.layout.endpoints(str(each)) for text in end.addresses]
        else:
            found.append(str(each))
    return found
