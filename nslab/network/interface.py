"""Interface: a handle on one interface of a Network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nslab import netlink
from nslab.errors import SpecError
from nslab.model import InterfaceState
from nslab.network import batching, listing, messages, names, probing, shaping
from nslab.network.shaping import Shape
from nslab.ops import spec

if TYPE_CHECKING:
    from nslab.network.space import Network


class Interface:
    """An interface by its index, which it keeps: ``network``, ``name`` and ``index``. All else is asked of the kernel."""

    def __init__(self, network: Network, name: str, index: int, mtu: int | None = None):
        self.network = network
        self.name = name
        self.index = index
        self._mtu = mtu  # of one that was just made; None: to be asked
        self._shaped = mtu is None  # for all that is known

    @property
    def state(self) -> InterfaceState:
        """What it is now: kind, MAC, MTU, up, carrier, addresses, counters. SyscallError ENODEV when it is gone."""
        batching.flush()
        self.network.check_open()
        return listing.link(self.network.socket, self.index)

    def up(self) -> None:
        """Turn it on."""
        self._set("up", up=True)

    def settle(self) -> None:
        """Have the kernel see now whether there is a carrier; by itself it may take a second, and drop what is sent until then.

        It does so when it is asked for the interface, since Linux 6.8.
        """
        self.network.socket.ask(netlink.Request(netlink.GETLINK, messages.ifinfomsg(self.index)))

    def down(self) -> None:
        """Turn it off: its IPv6 addresses and its routes go, and the other end of a veth pair loses its carrier."""
        self._set("down", up=False)

    def set(self, *, mtu: int | None = None, mac: str | None = None, name: str | None = None) -> None:
        """Change its MTU (bytes in a frame), its MAC or its name."""
        words, body = [], b""
        if mtu is not None:
            words.append(f"mtu {names.check_mtu(mtu)}")
            body += netlink.attribute(messages.IFLA_MTU, mtu)
        if mac is not None:
            body += netlink.attribute(messages.IFLA_ADDRESS, names.check_mac(mac))
            words.append(f"address {mac}")
        if name is not None:
            body += netlink.attribute(messages.IFLA_IFNAME, names.check_name(name))
            words.append(f"name {name}")
        if not words:
            raise SpecError("set", "nothing was given to change")
        self._set(" ".join(words), body)
        self.name = name or self.name
        self._mtu = mtu or self._mtu

    def attach(self, bridge: Interface) -> None:
        """Make it a port of a bridge in the same network."""
        if bridge.network != self.network:
            raise SpecError("bridge", f"{bridge.name} is in another network than {self.name}")
        self._set(f"master {bridge.name}", netlink.attribute(messages.IFLA_MASTER, bridge.index))

    def detach(self) -> None:
        """Take it off its bridge."""
        self._set("nomaster", netlink.attribute(messages.IFLA_MASTER, 0))

    def port(
        self, *, isolated: bool | None = None, learning: bool | None = None, flood: bool | None = None,
        hairpin: bool | None = None,
    ) -> None:  # fmt: skip
        """What its bridge does with it: ``isolated`` ports reach only those that are not; ``learning`` of MACs, ``flood`` of
        frames to unknown ones, ``hairpin``: back to where they came from. bridge(8)
        """
        given = {"isolated": isolated, "learning": learning, "flood": flood, "hairpin": hairpin}
        options = {key: bool(value) for key, value in given.items() if value is not None}
        if not options:
            raise SpecError("port", "nothing was given to change")
        batching.do(self.network, [messages.set_port(self.index, self.name, options)])

    def join_vlan(self, number: int, *, tagged: bool = True) -> None:
        """As a port of a bridge with vlan_filtering: let VLAN ``number`` pass; not ``tagged`` it is that of plain frames."""
        spec.number("number", number, 1, 4094)
        batching.do(self.network, [messages.change_vlan(True, self.index, self.name, number, tagged)])

    def leave_vlan(self, number: int) -> None:
        """Let it pass no longer; at first a port is in VLAN 1."""
        spec.number("number", number, 1, 4094)
        batching.do(self.network, [messages.change_vlan(False, self.index, self.name, number, True)])

    def address(self, *addresses: str) -> None:
        """Give it addresses with their prefix ("10.0.0.1/24", "fd00::1/64"), several if you like; they can be used at once."""
        found = [names.interfaced(each) for each in addresses]
        batching.do(self.network, [messages.change_address(True, self.index, self.name, each) for each in found])

    def remove_address(self, *addresses: str) -> None:
        """Take addresses away."""
        found = [names.interfaced(each) for each in addresses]
        batching.do(self.network, [messages.change_address(False, self.index, self.name, each) for each in found])

    def neighbour(self, address: str, mac: str) -> None:
        """A permanent entry: whoever has ``address`` is at ``mac``, and is not looked for."""
        raw, there = names.check_mac(mac), names.address(address, "address")
        batching.do(self.network, [messages.change_neighbour(True, self.index, self.name, there, raw)])

    def remove_neighbour(self, address: str) -> None:
        """Forget what is known of it."""
        there = names.address(address, "address")
        batching.do(self.network, [messages.change_neighbour(False, self.index, self.name, there, None)])

    def shape(
        self, *, rate: str | int | None = None, delay: str | int | None = None, jitter: str | int | None = None,
        loss: str | float | None = None, burst: int | None = None, queue: str | int = "50ms", method: str = "tbf",
    ) -> Shape:  # fmt: skip
        """Slow down what leaves by it, in place of what did so before; returns what it comes to, with the kernel's warnings.

        ``rate`` in bits a second ("10mbit"), ``delay`` and ``jitter`` in microseconds ("5ms"), ``loss`` in percent ("1%").
        ``burst`` is how many bytes may leave at once, a full frame at least; ``queue`` how long, at this rate, a frame may
        wait before it is dropped; ``method`` is tbf or htb. Segments are no longer put together (offloads off), since one of
        64 kB would count as a frame. Unavailable where the kernel has no netem, and then nothing was changed.
        """
        asked = shaping.checked(rate, delay, jitter, loss, burst, queue, method, self._mtu or self.state.mtu)
        if asked.delay or asked.loss:
            probing.require("netem")
        if asked.rate:
            probing.require(asked.method)
        self.unshape()
        self._shaped = True
        if asked.rate:
            self.offloads(False)
        batching.do(self.network, shaping.requests(self.index, self.name, asked), asked.warnings)
        return asked

    def unshape(self) -> None:
        """Take away what slows it down, if anything does."""
        if not self._shaped:
            return
        batching.flush()
        self.network.check_open()
        if listing.is_shaped(self.network.socket, self.index):
            batching.do(self.network, [shaping.remove(self.index, self.name)])
            self.offloads(True)

    def offloads(self, on: bool) -> None:
        """Whether what is sent from here may be handed over as one large frame of many segments, as it is by default."""
        most = messages.MOST_SEGMENTS if on else 1
        self._set(f"gso_max_segs {most}", netlink.attribute(messages.IFLA_GSO_MAX_SEGS, most))

    def delete(self) -> None:
        """Remove it; a veth pair goes as a whole."""
        batching.flush()
        batching.do(self.network, [messages.delete_link(self.index, self.name)])
        batching.flush()

    def _set(self, words: str, body: bytes = b"", *, up: bool | None = None) -> None:
        batching.do(self.network, [messages.set_link(self.index, self.name, words, body, up=up)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interface) and (self.network, self.index) == (other.network, other.index)

    def __hash__(self) -> int:
        return hash((self.network, self.index))

    def __repr__(self) -> str:
        return f"<Interface {self.name}, index {self.index}, in {self.network.namespace}>"
