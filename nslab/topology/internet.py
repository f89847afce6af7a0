"""A way out of the machine for a nat: slirp4netns(1), a program that makes, as an ordinary user, the connections for which
packets of a network namespace ask. It runs in the machine's own network, below the spawner, and ends with that or the lab.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from nslab.errors import NslabError, Unavailable
from nslab.namespaces import privilege
from nslab.namespaces.running import Running
from nslab.ops import Adopt, Execute, Plan
from nslab.spawner import ensure
from nslab.topology.resolving import UPLINK, WAY_OUT
from nslab.trace import emit_script

if TYPE_CHECKING:
    from nslab.network import Network

PROGRAM, DEVICE = "slirp4netns", "/dev/net/tun"
OPTIONS = ("--disable-host-loopback",)  # what listens on the machine's 127.0.0.1 is not meant for a lab
RESOLVER = f"nameserver {UPLINK[3]}\n"
WHY_ADOPT = "what it starts ends with it"


def check() -> None:
    """Unavailable where the program is missing, or the device by which it makes an interface."""
    if not shutil.which(PROGRAM):
        raise Unavailable(f"a way out of the machine needs the program {PROGRAM}", f"apt-get install {PROGRAM}")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise Unavailable(f"a way out needs {DEVICE}, which this user cannot open", f"chmod 0666 {DEVICE}, as root")


class Uplink:
    """The program at work for a network, in which it has made the interface WAY_OUT, with an address and a default route."""

    def __init__(self, network: Network):
        user = () if privilege.is_privileged() else (f"--userns-path={network.owner_path()}",)
        path = shutil.which(PROGRAM) or PROGRAM
        options = ("--configure", "--ready-fd=1", f"--cidr={UPLINK}", *OPTIONS, *user, "--netns-type=path")
        argv = (path, *options, network.place, WAY_OUT)
        plan = Plan((Adopt(implied=WHY_ADOPT),), Execute(argv, None, "/"))
        spawner = ensure()
        emit_script(plan)
        self._command = Running(lambda fds: spawner.start(plan, work=plan.command, fds=fds), argv)
        try:
            assert self._command.stdout
            assert self._command.stderr
            if not self._command.stdout.read(1):
                raise NslabError(f"{PROGRAM} ended:\n{self._command.stderr.read().decode(errors='replace').strip()}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(NslabError):
            self._command.end()
