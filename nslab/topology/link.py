"""Link: a link of a topology, and how it is changed, on paper and in a running lab."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nslab.errors import SpecError
from nslab.model.layout import LinkLayout, limits
from nslab.topology import editing, values

if TYPE_CHECKING:
    from nslab.topology.node import Node


class Link:
    """A link between two nodes, as it was asked for; ``Topology.resolve`` works out the rest.

    What is changed here is changed at once in a lab that is running, and the routes follow; when that fails it stays as it was.
    """

    def __init__(
        self, ends: tuple[Node, Node], subnets: tuple[values.Subnet, ...], addresses: Mapping[str, tuple[str, ...]],
        names: Mapping[str, str], rate: int, delay: int, loss: float, *, outside: Node | None = None, is_up: bool = True,
    ):  # fmt: skip
        self.ends = ends
        self.subnets = subnets
        self.addresses = addresses
        self.names = names
        self.rate = rate
        self.delay = delay
        self.loss = loss
        self.outside = outside  # the nat that hides what is behind it
        self.is_up = is_up
        self.kept: LinkLayout | None = None  # what it has in a running lab, where it would be given something else by now

    def down(self) -> None:
        """Turn both ends off. Routes lead around it, where there is a way."""
        with self._edited():
            self.is_up = False

    def up(self) -> None:
        """Turn both ends on again."""
        with self._edited():
            self.is_up = True

    def shape(self, *, rate: str | None = None, delay: str | None = None, loss: str | None = None) -> None:
        """Slow it down, in place of what did so before: the words of ``Topology.link``."""
        limits = values.limits(str(self), rate, delay, loss)
        if limits == (0, 0, 0.0):
            raise SpecError(str(self), "needs a rate, a delay or a loss; unshape() takes away what there is")
        with self._edited():
            self.rate, self.delay, self.loss = limits

    def unshape(self) -> None:
        """Take away what slows it down."""
        with self._edited():
            self.rate, self.delay, self.loss = 0, 0, 0.0

    def address(self, node: Node | str, *addresses: str) -> None:
        """Give the interface of ``node`` more addresses, in the subnets of the segment."""
        editing.add_addresses(self, node, addresses)

    def remove_address(self, node: Node | str, *addresses: str) -> None:
        """Take addresses from the interface of ``node``; of each family one stays."""
        editing.remove_addresses(self, node, addresses)

    def remove(self) -> None:
        """Take it out."""
        self.ends[0].topology.remove(self)

    def _edited(self) -> contextlib.AbstractContextManager[None]:
        return self.ends[0].topology.edited()

    def options(self) -> dict[str, Any]:
        """The keywords of ``Topology.link`` that ask for the same, and for what it has in a running lab."""
        subnets, given, names = tuple(map(str, self.subnets)), self.addresses, self.names
        if self.kept:
            subnets = self.kept.subnets
            given = {end.node: end.addresses for end in self.kept.ends if end.addresses}
            names = {end.node: end.interface for end in self.kept.ends}
        addresses = {node: texts[0] if len(texts) == 1 else texts for node, texts in given.items()}
        asked = {
            "subnet": subnets[0] if len(subnets) == 1 else subnets, "addresses": addresses, "names": dict(names),
            **limits(self.rate, self.delay, self.loss), "outside": self.outside and self.outside.name,
        }  # fmt: skip
        return {key: value for key, value in asked.items() if value} | ({} if self.is_up else {"up": False})

    def __str__(self) -> str:
        return f"link {self.ends[0]}--{self.ends[1]}"

    def __repr__(self) -> str:
        return f"<{self}{''.join(f' {key}={value!r}' for key, value in self.options().items())}>"
