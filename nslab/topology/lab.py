"""Lab: a topology that is there, and how it comes to be."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nslab import network
from nslab.errors import DeadNamespace, NslabError, SpawnerError, SpecError, Unavailable
from nslab.model import NamespaceId
from nslab.model.layout import Endpoint, Layout, LinkLayout
from nslab.namespaces import Namespace, claims
from nslab.namespaces.running import Running
from nslab.network import Interface, Network, probing
from nslab.network.making import make_room
from nslab.ops import Op
from nslab.spawner import ensure
from nslab.topology import changing, hiding, internet, naming, pinging
from nslab.topology.changing import Changes
from nslab.topology.contained import NodeContainer
from nslab.topology.internet import Uplink
from nslab.topology.looking import Looking
from nslab.topology.progress import Progress, Told
from nslab.trace import Trace, record

if TYPE_CHECKING:
    from nslab.namespaces.forwarding import Forward
    from nslab.render import Picture
    from nslab.topology.matrix import Matrix
    from nslab.topology.node import Node
    from nslab.topology.topology import Topology

# A reply may come back another way than the packet went: no path of a lab is wrong. ip-sysctl, rp_filter
PLAIN = {"net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.default.rp_filter": 0}
# Addresses and routes are given: nobody needs to ask for them, which each of many hosts would ask all others. RFC 4861
SILENT: dict[str, int | str] = {
    "net.ipv6.conf.default.router_solicitations": 0, "net.ipv6.conf.default.accept_ra": 0,
    "net.ipv6.conf.default.mldv2_unsolicited_report_interval": 60_000,  # milliseconds; the bridges listen to no groups
}  # fmt: skip
MUTE = {"net.ipv6.conf.default.disable_ipv6": 1}  # a switch has no addresses, and its ports ask for none
# What a bridge passes on is no business of IP filters, which would else see it where br_netfilter is loaded. bridge(8)
UNFILTERED = {f"net.bridge.bridge-nf-call-{table}": 0 for table in ("arptables", "ip6tables", "iptables")}
FORWARD4, FORWARD6 = {"net.ipv4.ip_forward": 1}, {"net.ipv6.conf.all.forwarding": 1}
IPV6 = "/proc/sys/net/ipv6"
DESCRIPTORS = 3  # of a node: its network, a netlink socket there, its host name


_labs: weakref.WeakValueDictionary[int, Lab] = weakref.WeakValueDictionary()  # in the order in which they were deployed
_deployed = itertools.count()
_ENDED = "the spawner that made this lab has ended; deploy() makes it again."


def running() -> list[Lab]:
    """The labs of this process that are up, the latest last."""
    return [lab for _, lab in sorted(_labs.items()) if lab.running]


class Lab(Looking):
    """A topology that has been deployed: network and UTS namespaces that descriptors of this process hold, and no process but
    those of nodes that are containers.

    ``layout`` is what was made, ``networks`` the Network of each host and router by name, ``containers`` those of nodes that
    have more of their own, ``fabric`` the Network in which the switches are bridges (None when there are none), ``interfaces``
    each interface by its node and name. ``trace`` has all that was asked of the kernel, ``last`` what its last change did. It
    is gone with destroy(), at the end of a ``with``, and with this process.
    """

    def __init__(self, topology: Topology, told: Told | None = None):
        self._plan(topology)
        self._spawner = ensure()
        title = f"deploying {self.topology.name or 'the lab'}"
        with contextlib.ExitStack() as undo, record(self.trace), Progress(title, told) as progress, self._by_one_spawner():
            undo.callback(self.destroy)
            self._make(progress)
            if not self._spawner.alive:  # half of it may be of the next one
                raise SpawnerError(_ENDED)
            undo.pop_all()
        self.running = True
        _labs[next(_deployed)] = self
        claims.claim(self)

    def _plan(self, topology: Topology) -> None:
        """What it is to come to; nothing is there yet."""
        self.topology = topology
        self.layout = topology.resolve()
        self.trace = Trace()
        self.networks: dict[str, Network] = {}
        self.hostnames: dict[str, Namespace] = {}
        self.containers: dict[str, NodeContainer] = {}
        self.uplinks: dict[str, Uplink] = {}  # out of the machine
        self.fabric: Network | None = None
        self.bridges: dict[str, Interface] = {}
        self.interfaces: dict[tuple[str, str], Interface] = {}
        self.commands: weakref.WeakKeyDictionary[Running, str] = weakref.WeakKeyDictionary()  # and the node that each is in
        self.made = dict(zip(topology.links, self.layout.links, strict=True))
        self.asked = {node.name: node.options() for node in topology}
        self.last = Changes()
        self.forwards: dict[Forward, str] = {}  # likewise
        self.running = False
        self._ipv6 = os.path.exists(IPV6)
        self.name_nodes(self.layout)

    # -- deploying ------------------------------------------------------------------------------------------------------

    def _make(self, progress: Progress) -> None:
        layout = self.layout
        self.check(layout, layout.nodes, layout.links)
        self.add_nodes(layout.nodes, told=progress.part(0, 0.6))
        with network.batch(told=progress.part(0.6, 1)):
            self.add_bridges(layout.nodes)
            for link in layout.links:
                self.add_link(link)
            for name, routes in layout.routes.items():
                for route in routes:
                    self.networks[name].route(route.target, via=route.via, interface=self.interfaces[name, route.interface])
        for name, outside in hiding.outsides(layout).items():
            hiding.hide(self.networks[name], outside)
        self.name_nodes(layout)
        self._settle()

    @contextlib.contextmanager
    def _by_one_spawner(self) -> Iterator[None]:
        """SpawnerError for what fails when this lab's spawner has ended, and with it all that it had started. An ordinary
        user's next one has a user namespace of its own, from which nothing can be joined to what is there."""
        try:
            yield
        except NslabError as error:
            if self._spawner.alive or isinstance(error, SpecError):
                raise
            raise SpawnerError(_ENDED) from error

    def _settle(self) -> None:
        """From its first packet on a link carries what is sent."""
        for interface in self.interfaces.values():
            interface.settle()

    def check(self, layout: Layout, nodes: Iterable[str], links: Iterable[LinkLayout]) -> None:
        """Unavailable for what these nodes and links need and the machine does not have, before anything is made."""
        if not self._ipv6 and any(":" in subnet for link in layout.links for subnet in link.subnets):
            raise Unavailable("this kernel has no IPv6", "nslab.Topology(..., ipv6=False), and no IPv6 subnets")
        make_room(DESCRIPTORS * len(tuple(nodes)))
        if any(link.delay or link.loss for link in links):
            probing.require("netem")
        hiding.check(layout)
        if any(self.topology[name].internet for name in nodes):
            internet.check()

    def add_nodes(self, nodes: Mapping[str, str], told: Callable[[int, int], object] | None = None) -> None:
        """Make namespaces for these, roles by name: all that forward not, all that do, the fabric, then the host names.

        ``told`` hears how many of how many networks there are. SpawnerError where the spawner ends meanwhile.
        """
        spawner = ensure()
        made: dict[str, Network] = {}
        numbers, total = itertools.count(1), sum(role != "switch" for role in nodes.values())

        def one_more() -> None:
            if told:
                told(next(numbers), total)

        both = PLAIN | (SILENT if self._ipv6 else {})
        forwarding = both | FORWARD4 | (FORWARD6 if self._ipv6 else {})
        for roles, sysctls in ((("host",), both), (("router", "nat"), forwarding)):
            names = [name for name, role in nodes.items() if role in roles]
            if plain := [name for name in names if not self.topology[name].asked]:
                made |= zip(plain, network.create_many(len(plain), sysctls=sysctls, told=one_more), strict=True)
                self.networks |= made
            for name in names:
                if (node := self.topology[name]).asked:
                    self.containers[name] = container = NodeContainer(node, sysctls, self.inside)
                    self.networks[name] = Network.of(container)
                    self.hostnames[name] = container.namespaces["uts"]
        for name in nodes:
            if self.topology[name].internet:
                self.uplinks[name] = Uplink(self.networks[name])
        if not self.fabric and "switch" in nodes.values():
            unfiltered = UNFILTERED if os.path.exists("/proc/sys/net/bridge") else {}
            self.fabric = network.create(sysctls=unfiltered | (MUTE if self._ipv6 else {}))
        if made:
            self.hostnames |= zip(made, naming.hostnames(tuple(made)), strict=True)
        if not spawner.alive:  # a node whose halves are of two is open to no ordinary user
            raise SpawnerError(_ENDED)

    def add_bridges(self, nodes: Mapping[str, str]) -> None:
        """Make those of them that are switches."""
        for name, role in nodes.items():
            if role == "switch" and self.fabric:
                self.bridges[name] = self.fabric.bridge(name)

    def add_link(self, link: LinkLayout) -> None:
        """A veth pair, with the end at a switch first: so all ports of the fabric are asked for together."""
        one, two = sorted(link.ends, key=lambda end: end.node not in self.bridges)
        where = [self.fabric if end.node in self.bridges else self.networks[end.node] for end in (one, two)]
        assert where[0]
        assert where[1]
        made = where[0].veth(
            one.interface, where[1], two.interface, mac=_mac(one), other_mac=_mac(two), up=link.up,
            master=self.bridges.get(one.node), other_master=self.bridges.get(two.node),
        )  # fmt: skip
        for end, interface in zip((one, two), made, strict=True):
            self.interfaces[end.node, end.interface] = interface
            if addresses := changing.held(link, end):
                interface.address(*addresses)
            if link.limits():
                interface.shape(rate=link.rate or None, delay=link.delay or None, loss=link.loss or None)

    @property
    def lab(self) -> Lab:
        """Itself, while it is running."""
        if not self.running:
            raise DeadNamespace(f"the lab {self.topology.name!r} was destroyed; deploy() makes it again.")
        return self

    # -- while it is there ----------------------------------------------------------------------------------------------

    def node(self, name: str) -> Mapping[str, Any]:
        """The namespaces of a host or router, by kind."""
        if name not in self.lab.networks:
            what = "a switch, a bridge in which nothing runs" if name in self.layout.nodes else "not in this lab (any more)"
            raise SpecError(f"node {name!r}", f"is {what}")
        return {"net": self.networks[name].namespace, "uts": self.hostnames[name]}

    def inside(self) -> tuple[Op, ...]:
        """What each process in a node does first."""
        return self._inside

    def catch_up(self) -> None:
        """Become what the topology says now; a failure leaves it as it was."""
        layout = changing.settle(self)
        with self._by_one_spawner():
            self.last = changing.change(self, layout)
            if self.last:
                self._settle()

    def name_nodes(self, layout: Layout) -> None:
        """Say to whoever asks from now on which addresses the nodes have."""
        self.addresses = naming.addresses(layout)
        texts = naming.texts(self.addresses, internet.RESOLVER if layout.internet else naming.RESOLVER)
        self._inside = naming.inside(texts)
        for container in self.containers.values():
            container.show(texts)

    def __getitem__(self, name: str) -> Node:
        return self.topology[name]

    def ping_all(self, *, timeout: float = 2.0) -> Matrix:
        """Ping every host from every other, many at once, and wait for each answer up to ``timeout`` seconds.

        Who does not answer is asked several times, and once more at the end: lost is who cannot be reached, not a frame.
        """
        hosts = [name for name, role in self.layout.nodes.items() if role == "host" and self.addresses[name]]
        self.node(hosts[0] if hosts else "")
        return pinging.ping_all({name: self.networks[name] for name in hosts}, self.addresses, timeout)

    def draw(
        self, *, title: str = "", routes: bool = False, fold: bool | None = None, unfold: Iterable[Node | str] = ()
    ) -> Picture:
        """Its picture as it is now; see Topology.draw."""
        from nslab.topology import drawing  # a lab that nobody draws needs no graphviz

        return drawing.draw(self, title=title, routes=routes, fold=fold, unfold=unfold)

    def label(self) -> str:
        """What it is called where namespaces are listed."""
        return f"lab {self.topology.name}".rstrip()

    def held(self) -> list[NamespaceId]:
        """The namespaces that it holds: none once it is destroyed."""
        networks = [*self.networks.values()] + ([self.fabric] if self.fabric else [])
        handles = (*(network.namespace for network in networks), *self.hostnames.values())
        return [handle.id for handle in handles if not handle.closed]

    def destroy(self) -> None:
        """End what runs in it, and let go of everything. Nothing is left when it returns."""
        self.running = False
        claims.drop(self)
        for forward in self.forwards:
            forward.close()
        for command in list(self.commands):
            command.end()
        held: list[Uplink | NodeContainer | Network | Namespace] = [*self.uplinks.values(), *self.containers.values()]
        for each in (*held, *self.networks.values(), *self.hostnames.values(), self.fabric):
            if each:
                each.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def __repr__(self) -> str:
        return f"<Lab {self.topology.name!r}, {'running' if self.running else 'destroyed'}: {self.topology.summary()}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        shown = self.layout._repr_mimebundle_()
        return {"text/plain": f"{self!r}\n{shown['text/plain']}", "text/html": shown["text/html"]}


def _mac(end: Endpoint) -> str:
    """A locally administered one, the same each time: 02, and a digest of the names of its node and interface."""
    return f"02:{hashlib.blake2b(f'{end.node} {end.interface}'.encode(), digest_size=5).digest().hex(':')}"
