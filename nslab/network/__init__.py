"""Networks in network namespaces: interfaces, addresses, routes and shaping, held by descriptors and by no process.

    from nslab import network

    a, b, fabric = network.create_many(3)              # three Networks: namespaces with a loopback that is up
    eth0, peer = a.veth("eth0", b, "eth0")              # a veth pair, one end in each, both up
    eth0.address("10.0.0.1/24", "fd00::1/64")           # several on one interface; usable at once
    peer.address("10.0.0.2/24")
    a.route("default", via="10.0.0.2")
    a.run("ping -c1 10.0.0.2")                          # run, popen and call as in any namespace

    br0 = fabric.bridge("br0")                          # STP off, a MAC of its own
    uplink, port = a.veth("eth1", fabric, "a-eth1", master=br0)
    port.port(isolated=True)

    eth0.shape(rate="10mbit", delay="5ms", loss="1%")   # what leaves by it; netem where network.has("netem")

    with a.capture(protocol="ICMP") as seen:            # what passes by, decoded; seen.save("a.pcapng") for Wireshark
        ...

    with network.batch():                               # many requests at once, sent at the end
        ...

``Network.of(web)`` is the network of a Container, Process, Namespace or PID that has one of its own. What is in a Network is
gone when nothing holds the namespace any more: close(), the end of ``with``, the end of this process.

Each netlink request is one Step of the trace, with the ip(8) or tc(8) command that does the same in ``trace.shell()``. Names,
addresses and rates are checked before anything is sent (SpecError); what the kernel refuses is a SyscallError with its
own words, what it does not have is Unavailable. The machine's own network is Refused.
"""

from nslab.network.batching import batch
from nslab.network.capturing import Capture
from nslab.network.creating import create, create_many
from nslab.network.interface import Interface
from nslab.network.names import check_name
from nslab.network.probing import has
from nslab.network.shaping import Shape
from nslab.network.space import Network

__all__ = ["Capture", "Interface", "Network", "Shape", "batch", "check_name", "create", "create_many", "has"]
