"""Topology: nodes and links, as they are named one after the other, and the lab that is made of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from nslab.errors import DeadNamespace, NslabError, SpecError
from nslab.model.layout import Layout
from nslab.ops import spec
from nslab.topology import contained, editing, files, resolving, shapes, values
from nslab.topology.link import Link
from nslab.topology.looking import Looking
from nslab.topology.node import Node

if TYPE_CHECKING:
    import networkx

    from nslab.container.mounts import MountRequest
    from nslab.render import Picture
    from nslab.topology.changing import Changes
    from nslab.topology.lab import Lab
    from nslab.topology.matrix import Matrix

ROLES = ("host", "router", "nat", "switch")


class Topology(Looking):
    """A network on paper: nodes and the links between them.

    Nothing is made, and nothing is checked against the rest, before ``resolve()``: what cannot be is a SpecError that names
    the node or the link. ``ipv6=False`` leaves the links that have no subnet given without IPv6 addresses.

    While it is deployed, what is named, changed or removed here is so in the lab too, at once; what fails changes nothing.
    """

    def __init__(self, name: str = "", *, ipv6: bool = True):
        self.name = spec.text("name", name)
        self.ipv6 = bool(ipv6)
        self.nodes: dict[str, Node] = {}
        self.links: list[Link] = []
        self._lab: Lab | None = None

    # -- shapes ---------------------------------------------------------------------------------------------------------

    @classmethod
    def single(cls, hosts: int, *, name: str = "single") -> Topology:
        """One switch, s1, and so many hosts on it, h1, h2, ..."""
        return shapes.single(cls(name), hosts)

    @classmethod
    def linear(cls, switches: int, *, name: str = "linear") -> Topology:
        """Switches s1, s2, ... in a row, each with one host: one segment."""
        return shapes.linear(cls(name), switches)

    @classmethod
    def ring(cls, routers: int, *, name: str = "ring") -> Topology:
        """Routers r1, r2, ... in a ring, at least three, each with one host."""
        return shapes.ring(cls(name), routers)

    @classmethod
    def tree(cls, *, depth: int, fanout: int, name: str = "tree") -> Topology:
        """A tree of switches, ``depth`` levels of them, below each ``fanout`` others or, at the lowest level, hosts."""
        return shapes.tree(cls(name), depth, fanout)

    @classmethod
    def star(cls, hosts: int, *, name: str = "star") -> Topology:
        """One router, r1, and so many hosts around it, each on a subnet of its own."""
        return shapes.star(cls(name), hosts)

    @classmethod
    def from_graph(cls, graph: networkx.Graph[Any], *, name: str = "") -> Topology:
        """Any networkx graph: what has one neighbour is a host, all else a router, but where the node says ``role="switch"``.

        A node is named as in the graph, a number N as "nN". The attributes subnet, addresses, names, rate, delay and loss of an
        edge are the options of its link.
        """
        return shapes.from_graph(cls(name or str(graph.name)), graph)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Topology:
        """That of a YAML file; docs/files.md has its keys. It is called as the file, where it gives no other name.

        SpecError with file, line, column, the path of keys and the rule, also for what resolve() would refuse.
        """
        text, name = files.load(path)
        return files.build(cls, text, name, os.fspath(path))

    @classmethod
    def from_yaml(cls, text: str, *, name: str = "") -> Topology:
        """That of a YAML text, as read()."""
        return files.build(cls, spec.text("text", text), name, "text")

    # -- nodes and links ------------------------------------------------------------------------------------------------

    def host(
        self, name: str, *, isolate: str | Iterable[str] = "", rootfs: spec.Folder | None = None,
        mounts: Iterable[MountRequest] = (), limits: Mapping[str, Any] | None = None, hardened: bool = False,
    ) -> Node:  # fmt: skip
        """A node that does not forward; what is not on its own subnets it sends to a router, if there is one.

        With kinds to ``isolate`` besides net and uts, which every node has, a ``rootfs``, ``mounts``, ``limits`` or
        ``hardened``, all as for Container, it is a container: an init stands for it, which a node without these does not need.
        """
        return self._node(name, "host", contained.checked(isolate, rootfs, mounts, limits, hardened))

    def router(
        self, name: str, *, isolate: str | Iterable[str] = "", rootfs: spec.Folder | None = None,
        mounts: Iterable[MountRequest] = (), limits: Mapping[str, Any] | None = None, hardened: bool = False,
    ) -> Node:  # fmt: skip
        """A node that forwards, IPv4 and IPv6, by the shortest paths of the whole topology. Options as for host()."""
        return self._node(name, "router", contained.checked(isolate, rootfs, mounts, limits, hardened))

    def nat(
        self, name: str, *, internet: bool = False, isolate: str | Iterable[str] = "", rootfs: spec.Folder | None = None,
        mounts: Iterable[MountRequest] = (), limits: Mapping[str, Any] | None = None, hardened: bool = False,
    ) -> Node:  # fmt: skip
        """A router that hides what is behind: what leaves by a link to the ``outside`` has its address there for its source.

        Outside no route leads in, but it is no filter. It needs nft(8). With ``internet`` it leads out of the machine too, as
        nothing else in a lab does: IPv4, by slirp4netns(1). What listens on the machine's 127.0.0.1 is not reached so. Other
        options as for host().
        """
        asked = contained.checked(isolate, rootfs, mounts, limits, hardened)
        return self._node(name, "nat", asked, internet=bool(internet))

    def switch(self, name: str) -> Node:
        """A learning bridge without addresses, of at most 1,023 ports. There is no spanning tree, so no loop of switches."""
        return self._node(name, "switch")

    def _node(self, name: str, role: str, asked: Mapping[str, Any] | None = None, *, internet: bool = False) -> Node:
        values.node(name)
        for other in self.nodes:
            if other.casefold() == name.casefold():
                what = "is there already" if other == name else f"is {other!r} to a resolver, which does not tell case apart"
                raise SpecError(f"node {name!r}", what)
        with self.edited():
            self.nodes[name] = node = Node(self, name, role, asked=asked or {}, internet=internet)
        return node

    def link(
        self, a: Node | str, b: Node | str, *, subnet: str | Iterable[str] | None = None,
        addresses: Mapping[Node | str, str | Iterable[str]] | None = None, names: Mapping[Node | str, str] | None = None,
        rate: str | None = None, delay: str | None = None, loss: str | None = None, outside: Node | str | None = None,
        up: bool = True,
    ) -> Link:  # fmt: skip
        """Link two nodes of this topology.

        ``subnet`` is "10.0.1.0/24", or one for IPv4 and one for IPv6: the segment has these and no other; without, it gets one
        of each. ``addresses`` are those of an end by its node, {"a": "10.0.1.5"} or several: the first is the one that its name
        stands for, the others are aliases; without, each end gets one in each subnet. ``names`` are the names of the
        interfaces, {"a": "uplink"}; without, they are eth0, eth1, ... and on a switch its name and a number, "s1-1".

        ``rate`` ("10mbit"), ``delay`` ("5ms") and ``loss`` ("1%") hold for what leaves either end. ``outside`` is the end, a
        nat, that hides by this link what is behind it. With ``up=False`` it is there, but turned off.
        """
        ends = (self._member(a), self._member(b))
        where = f"link {ends[0]}--{ends[1]}"
        if ends[0] is ends[1]:
            raise SpecError(where, "leads from a node to itself")
        texts = (subnet,) if isinstance(subnet, str) else tuple(subnet or ())
        subnets = tuple(values.subnet(where, text) for text in texts)
        if len({each.version for each in subnets}) < len(subnets):
            raise SpecError(where, f"has more than one IPv4 or IPv6 subnet: {', '.join(map(str, subnets))}")
        chosen = {
            self._end(where, "addresses", key, ends): (texts,) if isinstance(texts, str) else tuple(map(str, texts))
            for key, texts in (addresses or {}).items()
        }
        for node, given in chosen.items():
            if self.nodes[node].role == "switch":
                raise SpecError(where, f"addresses: the port of switch {node} has none")
            for text in given:
                values.address(where, text)
        named = {
            self._end(where, "names", key, ends): values.interface(f"{where}, names", name)
            for key, name in (names or {}).items()
        }
        nat = None if outside is None else self[self._end(where, "outside", outside, ends)]
        if nat and nat.role != "nat":
            raise SpecError(where, f"outside: {nat} is a {nat.role}, and only a nat hides what is behind it")
        link = Link(ends, subnets, chosen, named, *values.limits(where, rate, delay, loss), outside=nat, is_up=bool(up))
        with self.edited():
            self.links.append(link)
        return link

    def remove(self, *what: Node | Link | str) -> None:
        """Take out nodes, each with its links, and links; in a running lab what runs in these nodes ends."""
        nodes = {self._member(each) for each in what if not isinstance(each, Link)}
        links = [self.links[self.number(each)] for each in what if isinstance(each, Link)]
        with self.edited():
            self.nodes = {name: node for name, node in self.nodes.items() if node not in nodes}
            self.links = [link for link in self.links if link not in links and nodes.isdisjoint(link.ends)]

    def number(self, link: Link) -> int:
        """The place of a link among those of this topology, from 0 on."""
        if link not in self.links:
            raise SpecError(str(link), "is not (any more) in this topology")
        return self.links.index(link)

    @contextlib.contextmanager
    def edited(self) -> Iterator[None]:
        """What is done to this description inside is done to the running lab at the end; when that fails, to neither."""
        if not self.running:
            yield
            return
        saved = editing.saved(self)
        try:
            yield
            self.lab.catch_up()
        except BaseException:
            editing.restore(self, saved)
            raise

    def apply(self, wanted: Topology) -> Changes:
        """Make the running lab what another topology describes, by the fewest changes; returns what was done.

        What stays, a node of the same name and role, or a link between the same two, keeps what was chosen for it, and its
        Node goes on to stand for it. A failure undoes all of it. Nodes that go end what runs in them.
        """
        lab = self.lab
        if not isinstance(wanted, Topology):
            raise SpecError("wanted", f"must be a Topology, not {type(wanted).__name__}")
        with self.edited():
            editing.adopt(self, wanted)
        return lab.last

    def _member(self, node: Node | str) -> Node:
        name = node.name if isinstance(node, Node) else node
        if isinstance(node, Node) and node.topology is not self:
            raise SpecError(f"node {name!r}", "belongs to another topology")
        return self[name]

    def _end(self, where: str, argument: str, key: Node | str, ends: tuple[Node, Node]) -> str:
        node = self._member(key)
        if node not in ends:
            raise SpecError(where, f"{argument}: {node} is not an end of it")
        return node.name

    def __getitem__(self, name: str) -> Node:
        """The node of this name: ``lab["h1"]``."""
        try:
            return self.nodes[name]
        except (KeyError, TypeError):
            raise SpecError(f"node {name!r}", "is not in this topology") from None

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    # -- what it comes to -----------------------------------------------------------------------------------------------

    def resolve(self) -> Layout:
        """All that was left open worked out, always in the same way; SpecError naming the node or link that cannot be."""
        return resolving.resolve(self, {number: link.kept for number, link in enumerate(self.links) if link.kept})

    def deploy(self, *, progress: Callable[[float], object] | None = None) -> Lab:
        """Make all of it: a Lab, which is gone with destroy(), at the end of a ``with``, and with this process.

        SpecError as resolve(), before anything is made; Unavailable for what this kernel lacks. On any failure, and when it is
        interrupted, everything is undone. What takes more than a second is shown in a notebook and on a terminal; ``progress``
        is told instead how much is done, from 0 to 1.
        """
        from nslab.topology.lab import Lab

        if self.running:
            raise SpecError("deploy", f"{self.name!r} is running already; destroy() ends it")
        self._lab = Lab(self, progress)
        return self._lab

    def adopt(self, lab: Lab) -> None:
        """From now on this lab is what it was deployed as."""
        self._lab = lab

    @property
    def running(self) -> bool:
        """Whether it is deployed now."""
        return self._lab is not None and self._lab.running

    @property
    def lab(self) -> Lab:
        """What was deployed; DeadNamespace when it is not running."""
        if not self._lab or not self._lab.running:
            raise DeadNamespace(f"the topology {self.name!r} is on paper only; deploy() makes it.")
        return self._lab

    def destroy(self) -> None:
        """End what runs in it, and all of it; nothing when it is not running."""
        if self._lab:
            self._lab.destroy()

    def ping_all(self, *, timeout: float = 2.0) -> Matrix:
        """Ping every host from every other; see Lab.ping_all."""
        return self.lab.ping_all(timeout=timeout)

    def draw(
        self, *, title: str = "", routes: bool = False, fold: bool | None = None, unfold: Iterable[Node | str] = ()
    ) -> Picture:
        """Its picture: nodes, interfaces, addresses and links; while it is deployed also which interfaces are down.

        With ``routes`` each node shows its routes. Of more than 60 nodes two of those that are alike are drawn, and how many
        more there are; ``fold=False`` draws all, ``fold=True`` folds a small one too, ``unfold`` names nodes around which all
        is drawn.
        """
        from nslab.topology import drawing

        what = self.lab if self.running else self
        return drawing.draw(what, title=title, routes=routes, fold=fold, unfold=unfold)

    def to_python(self) -> str:
        """The code that makes it again."""
        arguments = [repr(self.name)] if self.name else []
        arguments += [] if self.ipv6 else ["ipv6=False"]
        lines = ["import nslab", "", f"lab = nslab.Topology({', '.join(arguments)})"]
        for node in self:
            words = [repr(node.name), *(f"{key}={contained.as_code(value)}" for key, value in node.options().items())]
            lines.append(f"lab.{node.role}({', '.join(words)})")
        for link in self.links:
            words = [repr(end.name) for end in link.ends]
            words += [f"{key}={value!r}" for key, value in link.options().items()]
            lines.append(f"lab.link({', '.join(words)})")
        return "\n".join(lines) + "\n"

    def to_yaml(self) -> str:
        """The YAML from which ``read`` or ``from_yaml`` makes it again."""
        return files.dump(self)

    def summary(self) -> str:
        """ "2 hosts, 1 router, 2 links"."""
        counts = [sum(node.role == role for node in self) for role in ROLES]
        parts = [_counted(role, count) for role, count in zip(ROLES, counts, strict=True) if count]
        return ", ".join([*parts, _counted("link", len(self.links))])

    def __repr__(self) -> str:
        return f"<Topology {self.name!r}: {self.summary()}>"

    def __str__(self) -> str:
        return str(self.resolve())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        head = repr(self)
        try:
            shown = self.resolve()._repr_mimebundle_()
        except NslabError as error:  # a cell may end with one that is not finished
            shown = {"text/plain": str(error), "text/html": f"<div>{escape(str(error))}</div>"}
        return {"text/plain": f"{head}\n{shown['text/plain']}", "text/html": f"<div>{escape(head)}</div>{shown['text/html']}"}


def _counted(word: str, count: int) -> str:
    plural = "es" if word == "switch" else "s"
    return f"{count} {word}{'' if count == 1 else plural}"
