"""Networks of nodes: from a topology, which is only a description, to what is to be made of it.

A Topology has nodes (hosts, routers, switches) and links, in the order in which they were named. ``resolve()`` works out
all that was left open (names of interfaces, subnets, addresses, routes) and refuses what cannot be; it asks no kernel,
and the same topology always gives the same Layout. What is linked through switches alone is one segment, with one subnet.
"""

from nslab.topology.link import Link
from nslab.topology.node import Node
from nslab.topology.topology import Topology

__all__ = ["Link", "Node", "Topology"]
