"""So many hosts on one Linux bridge by Mininet: python mininet_lab.py COUNT PINGED, with a Python that has it.

It prints the seconds that it took to start, for all PINGED hosts to ping each other, and to stop. Whoever starts it puts it
into network, mount and PID namespaces of its own, in which /proc/sys cannot be written: Mininet raises limits of the machine.
"""

import os
import resource
import sys
import time

import mininet.net
from mininet.log import setLogLevel
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo


def main() -> None:
    setLogLevel("error")
    mininet.net.fixLimits = lambda: None  # the machine's sysctls; what it needs of it is here
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, hard) if hard > 0 else 16384, hard))
    begin = time.perf_counter()
    net = mininet.net.Mininet(topo=SingleSwitchTopo(int(sys.argv[1])), switch=LinuxBridge, controller=None)
    net.start()
    started = time.perf_counter()
    some = net.hosts[: int(sys.argv[2])]
    lost = net.ping(some) if some else 0  # as pingAll does, one after the other
    pinged = time.perf_counter()
    net.stop()
    print(started - begin, pinged - started, time.perf_counter() - pinged, flush=True)
    os._exit(1 if lost else 0)


if __name__ == "__main__":
    main()
