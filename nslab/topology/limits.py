"""What slows a link down: a token bucket at either end. tc-tbf(8)"""

from __future__ import annotations

import errno
import shlex
import struct

from nslab import netlink
from nslab.errors import Unavailable
from nslab.model import RATES, LinkLayout, in_units
from nslab.netlink import CREATE, EXCL, Request, attribute
from nslab.network import Interface, batching

FRAME = 1514  # bytes of a full one
ROOT = 0xFFFFFFFF
ETHERNET = 1  # the link layer, told since the kernel would else want a table of transmission times
KIND, OPTIONS = 1, 2
PARAMETERS, RATE64, BURST = 1, 4, 6
QUEUE = 0.1  # seconds that what waits may take, before more is dropped


def check(link: LinkLayout) -> None:
    """Unavailable for what no link can have so far."""
    if link.delay or link.loss:
        what = "delay" if link.delay else "loss"
        raise Unavailable(
            f"link {link.ends[0].node}--{link.ends[1].node}: {what} needs the queueing discipline netem, which no lab has",
            "leave out delay and loss; rate can be had",
        )


def limit(interface: Interface, rate: int) -> None:
    """Let ``interface`` send at most ``rate`` bits a second.

    The bucket holds at least ten full frames, and 5 ms; what is larger than a frame is cut into frames, so that segmentation
    offload does not cheat.
    """
    octets = rate // 8
    burst = max(10 * FRAME, round(octets * 0.005))
    waiting = burst + max(10 * FRAME, round(octets * QUEUE))
    spec = struct.pack("=BBHhHI", 0, ETHERNET, 0, 0, 0, min(octets, 2**32 - 1))
    parameters = spec + bytes(12) + struct.pack("=III", min(waiting, 2**32 - 1), 0, 0)
    options = [attribute(PARAMETERS, parameters), attribute(BURST, min(burst, 2**32 - 1))]
    options += [attribute(RATE64, struct.pack("=Q", octets))] if octets >= 2**32 else []
    body = struct.pack("=BxHiIII", 0, 0, interface.index, 0, ROOT, 0) + attribute(KIND, "tbf") + attribute(OPTIONS, options)
    words = f"tbf rate {in_units(rate, RATES)} burst {burst} limit {waiting}"
    shell = f"tc qdisc add dev {shlex.quote(interface.name)} root {words}"
    said = (f"index {interface.index}", words)
    batching.do(
        interface.network,
        [Request(netlink.NEWQDISC, body, said, shell, CREATE | EXCL, needs="tbf", absent=errno.ENOENT)],
    )
