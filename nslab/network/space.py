"""Network: one network namespace, and what is made in it."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from nslab import netlink, procfs
from nslab.errors import DeadNamespace, Refused, SpecError
from nslab.model import InterfaceState, Neighbour, Route
from nslab.model.tables import Table
from nslab.namespaces import Namespace, joining, privilege
from nslab.namespaces.entering import Enterable
from nslab.namespaces.handing import Ended
from nslab.network import batching, capturing, firewall, listing, making, messages, names
from nslab.network.capturing import Capture, Filter
from nslab.network.interface import Interface
from nslab.ops import Plan, WriteFile, spec
from nslab.ops.networks import HandBackNetwork
from nslab.spawner import ensure
from nslab.trace import Step, Trace, emit_script, record

FIRST = 101  # indexes below are left to the kernel, which gives them to what others make here
_IPV6 = "/proc/sys/net/ipv6"


class Network(Enterable):
    """A network namespace, held by descriptors of this process: ``run``, ``popen`` and ``call`` join it.

    ``namespace`` is the handle, ``trace`` has every request that was made through this object. Made by ``network.create()``,
    or ``Network.of()`` for one that is there.
    """

    def __init__(self, namespace: Namespace, sock: netlink.Socket, steps: Iterable[Step]):
        self.namespace = namespace
        self.socket = sock
        self.trace = Trace(steps)
        self._indexes = itertools.count(FIRST)
        self.captures: weakref.WeakSet[Capture] = weakref.WeakSet()

    @classmethod
    def of(cls, where: Any) -> Network:
        """The network of a Container, Process, Namespace or PID. Refused for the machine's own.

        What it holds stays as long as this object is open; what it made there stays with the namespace.
        """
        target = joining.target(where["net"] if isinstance(where, Mapping) else where, "net")
        if target.kind not in ("", "net"):
            raise SpecError("where", f"{where} is a namespace of another kind")
        with target.namespace("net") as found:
            if found.id == procfs.namespace("self", "net"):
                raise Refused(
                    f"{where} is in the machine's own network, which nslab never changes.\n"
                    "  what to do: isolate='net ...', or network.create()."
                )
        way = joining.way({"net": target}, ensure())
        ((namespace, sock, steps),) = making.handed_back((*way.ops, HandBackNetwork(making.FD)), way.fds, 1)
        made = cls(namespace, sock, steps)
        made._indexes = itertools.count(max([FIRST - 1, *(each.index for each in made.links())]) + 1)
        return made

    # -- interfaces

    def veth(
        self, name: str, other: Network, other_name: str, *, mtu: int | None = None, mac: str | None = None,
        other_mac: str | None = None, up: bool = True, master: Interface | None = None, other_master: Interface | None = None,
    ) -> tuple[Interface, Interface]:  # fmt: skip
        """A veth pair: one end here, the other in ``other`` (which may be this one), made right where they belong.

        ``mtu`` is that of both; ``master`` and ``other_master`` are bridges of which they become ports. veth(4)
        """
        near, far = names.check_name(name), names.check_name(other_name, "other_name")
        macs = [mac if mac is None else names.check_mac(mac), other_mac if other_mac is None else
                names.check_mac(other_mac, "other_mac")]  # fmt: skip
        size = mtu if mtu is None else names.check_mtu(mtu)
        other.check_open()
        if self == other and near == far:
            raise SpecError("other_name", f"both ends are in the same network, and only one can be called {near!r}")
        for argument, bridge, network in (("master", master, self), ("other_master", other_master, other)):
            if bridge is not None and bridge.network != network:
                raise SpecError(argument, f"{bridge.name} is in another network than the interface")
        ours, theirs = (
            Interface(self, near, self.new_index(), size or 1500),
            Interface(other, far, other.new_index(), size or 1500),
        )
        into = None if self == other else other.namespace.fileno()
        bodies = (
            messages.end_of_link(ours.index, near, mac=macs[0], mtu=size, into=None, up=up),
            messages.end_of_link(theirs.index, far, mac=macs[1], mtu=size, into=into),
        )
        words = [messages.words(near, ours.index, macs[0], size), messages.words(far, theirs.index, macs[1], size)]
        beyond = other.as_target() if into is not None else ""
        bound = f" master {master.name}" if master else ""
        shell = f"ip link add {words[0]}{bound}{' up' if up else ''} type veth peer {words[1]}{beyond}"
        said = (words[0] + bound, f"peer {words[1]} in {other.namespace}")
        request = messages.new_veth(*bodies, master=master.index if master else None, said=said, shell=shell)
        batching.do(self, [request])
        if other_master:
            theirs.attach(other_master)
        if up:
            theirs.up()
        return ours, theirs

    def bridge(
        self, name: str, *, mac: str | None = None, mtu: int | None = None, ageing_time: float = 300, stp: bool = False,
        vlan_filtering: bool = False, mcast_snooping: bool = True, up: bool = True,
    ) -> Interface:  # fmt: skip
        """A bridge, without the spanning tree protocol: a port forwards from its first moment.

        It keeps its MAC (a random one when none is given) and the ``mtu`` that is given, whatever its ports have.
        ``ageing_time`` is how long, in seconds, it remembers behind which port a MAC is; with 0 it learns nothing and floods,
        as a hub. With ``mcast_snooping`` it listens who wants which multicast, for which it joins groups itself, and that can
        be heard. ip-link(8)
        """
        names.check_name(name)
        if isinstance(ageing_time, bool) or not isinstance(ageing_time, int | float) or not 0 <= ageing_time <= 10**6:
            raise SpecError("ageing_time", f"must be a number of seconds from 0 to a million, not {ageing_time!r}")
        options = {"ageing_time": round(ageing_time * 100), "stp_state": int(stp)}
        options |= {"vlan_filtering": 1} if vlan_filtering else {}
        options |= {} if mcast_snooping else {"mcast_snooping": 0}
        size = None if mtu is None else names.check_mtu(mtu)
        made = self._make("bridge", name, mac or names.new_mac(), None, up and size is None, self, options=options)
        if size is not None:
            made.set(mtu=size)  # a bridge follows its smallest port until it was told otherwise
            if up:
                made.up()
        return made

    def dummy(self, name: str, *, mac: str | None = None, mtu: int | None = None, up: bool = True) -> Interface:
        """An interface that swallows what is sent; Unavailable where the kernel has none."""
        return self._make("dummy", name, mac, mtu, up, self)

    def macvlan(
        self, name: str, parent: Interface, *, mode: str = "bridge", mac: str | None = None, mtu: int | None = None,
        up: bool = True,
    ) -> Interface:  # fmt: skip
        """An interface here, with a MAC of its own on the wire of ``parent``, which may be in another network.

        ``mode``: "bridge" (they reach each other), "private" (they do not) or "vepa" (by way of the switch outside).
        """
        if mode not in messages.MACVLAN_MODES:
            raise SpecError("mode", f"{mode!r} is none of {', '.join(messages.MACVLAN_MODES)}")
        return self._make("macvlan", name, mac, mtu, up, parent.network, parent, data=(1, messages.MACVLAN_MODES[mode], mode))

    def vlan(self, name: str, parent: Interface, number: int, *, mtu: int | None = None, up: bool = True) -> Interface:
        """An interface here for the frames of VLAN ``number`` (1 to 4094) of ``parent``, which may be in another network."""
        spec.number("number", number, 1, 4094)
        return self._make("vlan", name, None, mtu, up, parent.network, parent, data=(1, number, str(number)))

    def _make(
        self, kind: str, name: str, mac: str | None, mtu: int | None, up: bool, at: Network, parent: Interface | None = None, *,
        options: Mapping[str, int] | None = None, data: tuple[int, int, str] | None = None,
    ) -> Interface:  # fmt: skip
        """Make an interface of this network, by a request to the one ``at`` which its parent is."""
        names.check_name(name)
        raw = None if mac is None else names.check_mac(mac)
        size = None if mtu is None else names.check_mtu(mtu)
        self.check_open()
        made = Interface(self, name, self.new_index(), size if parent else size or 1500)
        elsewhere = at != self
        body = messages.end_of_link(
            made.index, name, mac=raw, mtu=size, into=self.namespace.fileno() if elsewhere else None, up=up and not elsewhere
        )
        nested, text = messages.bridge_data(options or {}), [kind]
        text += [f"{key} {value}" for key, value in (options or {}).items()]
        if data:
            number, value, word = data
            nested.append(netlink.attribute(number, value if kind == "macvlan" else value.to_bytes(2, "little")))
            text.append(f"{'mode' if kind == 'macvlan' else 'id'} {word}")
        words = messages.words(name, made.index, raw, size)
        place = self.as_target() if elsewhere else " up" if up else ""
        upon = f"link {parent.name} " if parent else ""
        shell = f"ip link add {upon}{words}{place} type {' '.join(text)}"
        index = parent.index if parent else None
        needs = "vlan filtering" if "vlan_filtering" in (options or {}) else kind
        request = messages.new_link(kind, body, nested, parent=index, said=(upon + words, *text[1:]), shell=shell, needs=needs)
        batching.do(at, [request])
        if up and elsewhere:
            made.up()
        return made

    def interface(self, name: str) -> Interface:
        """The interface of this name; SpecError when there is none."""
        found = next((each for each in self.links() if each.name == name), None)
        if found is None:
            raise SpecError("name", f"{self} has no interface {name!r}")
        return Interface(self, name, found.index)

    def links(self) -> Table[InterfaceState]:
        """Every interface as it is now, with its addresses."""
        return listing.interfaces(self._links())

    def counters(self) -> Table[InterfaceState]:
        """What every interface has carried until now: packets, bytes, errors and drops, each way."""
        return listing.counters(self._links())

    def _links(self) -> list[InterfaceState]:
        batching.flush()
        self.check_open()
        return listing.links(self.socket)

    # -- routes and neighbours

    def route(
        self, to: str, *, via: str | None = None, interface: Interface | None = None, source: str | None = None,
        metric: int | None = None, replace: bool = False,
    ) -> None:  # fmt: skip
        """A route to the subnet ``to`` ("default" for all), by the router ``via`` or straight out of ``interface``."""
        self._route(True, to, via, interface, source, metric, replace)

    def remove_route(
        self, to: str, *, via: str | None = None, interface: Interface | None = None, metric: int | None = None
    ) -> None:
        """Remove the route that was made with the same words."""
        self._route(False, to, via, interface, None, metric, False)

    def _route(
        self, adding: bool, to: str, via: str | None, interface: Interface | None, source: str | None, metric: int | None,
        replace: bool,
    ) -> None:  # fmt: skip
        router = None if via is None else names.address(via, "via")
        sender = None if source is None else names.address(source, "source")
        subnet = names.destination(to, router or sender)
        names.same_version(subnet.version, (("via", router), ("source", sender)))
        if adding and router is None and interface is None:
            raise SpecError("via", "a route needs a router (via) or an interface")
        if metric is not None:
            spec.number("metric", metric, 0, 2**32 - 1)
        if interface is not None and interface.network != self:
            raise SpecError("interface", f"{interface.name} is in another network")
        request = messages.change_route(
            adding, subnet, via=router, index=interface.index if interface else None, name=interface.name if interface else "",
            source=sender, metric=metric, replace=replace,
        )  # fmt: skip
        batching.do(self, [request])

    def routes(self) -> Table[Route]:
        """The routes of the main table, of both versions."""
        batching.flush()
        self.check_open()
        return listing.routes(self.socket)

    def neighbours(self) -> Table[Neighbour]:
        """Which MACs this network knows for which addresses."""
        batching.flush()
        self.check_open()
        return listing.neighbours(self.socket)

    # -- sysctls

    def sysctls(self, values: Mapping[str, int | str]) -> None:
        """Write sysctls of this namespace, as {"net.ipv4.ip_forward": 1}. SpecError for those of another kind."""
        written = [WriteFile(path, text) for path, text in spec.sysctls(values, ("net",)).items()]
        batching.flush()
        self._carry_out(written)

    def sysctl(self, name: str) -> str:
        """What one says, as text."""
        path = spec.sysctl(name, "name")
        batching.flush()
        text: str = self.call(_read, path)
        return text

    def forward(self) -> None:
        """Make it a router: it passes on, IPv4 and IPv6, what is not for itself."""
        self.sysctls({"net.ipv4.ip_forward": 1} | ({"net.ipv6.conf.all.forwarding": 1} if os.path.exists(_IPV6) else {}))

    # -- looking at what passes

    def capture(
        self, interface: Interface | str | None = None, *, protocol: str | None = None, host: str | Sequence[str] = (),
        port: int | None = None, max_packets: int = capturing.MOST_PACKETS,
    ) -> Capture:  # fmt: skip
        """Capture what passes ``interface``, or all of them, from now until its stop(), the end of a ``with``, or close().

        ``protocol`` (ARP, ICMP, ICMPv6, TCP, UDP), ``host`` (an address, or several) and ``port`` say what is wanted of it;
        ``max_packets`` how many are kept.
        """
        name = interface.name if isinstance(interface, Interface) else interface
        wanted = Filter.checked(protocol, (host,) if isinstance(host, str) else host, port)
        if name is not None:
            self.interface(name)  # whether there is one
        with record(self.trace):
            return capturing.start({self: name or ""}, lambda _, seen: ("", seen), wanted, max_packets)

    # -- filters and address translation

    def nft(self, *commands: Mapping[str, Any]) -> None:
        """Carry out commands of nft(8) in its JSON, as {"add": {"table": {"family": "inet", "name": "t"}}}, all or none.

        CommandError with nft's words when one is refused. libnftables-json(5)
        """
        firewall.nft(self, list(commands))

    def ruleset(self) -> list[dict[str, Any]]:
        """All tables, chains and rules, as nft(8) lists them in JSON."""
        return firewall.ruleset(self)

    def masquerade(self, out: Interface) -> None:
        """Hide what is behind: what leaves by ``out`` gets the address of that interface for its source."""
        firewall.masquerade(self, out)

    def _carry_out(self, ops: list[WriteFile]) -> None:
        """Have a process join and do these."""
        spawner = ensure()
        way = joining.way(joining.checked(self.joins(), ()), spawner)
        plan = Plan((*way.ops, *ops))
        with record(self.trace):
            emit_script(Ended(plan))
            child = spawner.start(plan, fds=way.fds, borrowed=privilege.is_borrowed(plan), stay=True)
            try:
                child.settle()
            finally:
                child.end()

    # -- as a whole

    @property
    def place(self) -> str:
        """A path in /proc by which others reach the namespace while this object is open."""
        return f"/proc/{os.getpid()}/fd/{self.namespace.fileno()}"

    def owner_path(self) -> str:
        """A path in /proc of the user namespace that owns it; "" where that cannot be seen."""
        if not (owner := self.namespace.owner):
            return ""
        with owner:
            spawner = ensure()
            return f"/proc/{spawner.borrowed_pid}/ns/user" if owner.id == spawner.borrowed_user else owner.path()

    @property
    def enter(self) -> str:
        """The beginning of a shell command that is to do something in it."""
        path = "" if privilege.is_privileged() else self.owner_path()
        user = f"--preserve-credentials --user={path} " if path else ""
        return f"nsenter {user}--net={self.place}"

    def as_target(self) -> str:
        """The words of ip(8) for an interface to come here; the shell opens what cannot be seen from inside."""
        return f" netns /proc/self/fd/9 9<{self.place}"

    def new_index(self) -> int:
        """The index for a next interface, chosen here so that what follows need not ask for it."""
        return next(self._indexes)

    def joins(self) -> Mapping[str, Any]:
        return {"net": self.namespace}

    def check_open(self) -> None:
        if self.socket.closed:
            raise DeadNamespace("this network was closed.")

    def close(self) -> None:
        """Let go of the namespace, which vanishes with all interfaces when nothing else holds it."""
        for capture in list(self.captures):
            capture.stop()
        self.socket.close()
        self.namespace.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.namespace.id == other.namespace.id

    def __hash__(self) -> int:
        return hash(self.namespace.id)

    def __repr__(self) -> str:
        return f"<Network {self.namespace}{', closed' if self.socket.closed else ''}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Its interfaces, as a table; they are asked for at that moment."""
        try:
            shown = listing.interfaces(listing.links(self.socket))._repr_mimebundle_()
        except (OSError, ValueError):
            return {"text/plain": repr(self)}
        html = f"<div>{escape(repr(self))}</div>{shown['text/html']}"
        return {"text/plain": f"{self!r}\n{shown['text/plain']}", "text/html": html}


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().rstrip("\n")
