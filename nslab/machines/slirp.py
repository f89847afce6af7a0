"""The network of a kernel of one's own: slirp4netns(1), at the other end of a wire that is a socket."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path


class Network:
    """How it is started and what it is told; ``wire`` is where the kernel connects, ``orders`` where it takes orders."""

    def __init__(self, program: str, folder: Path, cidr: str, address: str):
        self.wire, self.orders = folder / "net", folder / "api"
        self.address = address  # of the kernel
        options = [f"--api-socket={self.orders}", "--target-type=bess", f"--cidr={cidr}", "--disable-host-loopback"]
        self.command = [program, *options, str(self.wire)]

    def forward(self, outside: int, inside: int) -> int:
        """Have it listen on 127.0.0.1; the number of the port there, another one where somebody has taken it."""
        return self._forwarded(outside, inside) or self._forwarded(_free_port(), inside)

    def _forwarded(self, outside: int, inside: int) -> int:
        request = {
            "proto": "tcp", "host_addr": "127.0.0.1", "host_port": outside, "guest_addr": self.address, "guest_port": inside,
        }  # fmt: skip
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.orders))
            sock.sendall(json.dumps({"execute": "add_hostfwd", "arguments": request}).encode())
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
        return outside if b'"error"' not in answer else 0


def listens(path: Path) -> bool:
    """Whether somebody listens there, as the kernel's list says: a connection would be taken for the one."""
    with open("/proc/self/net/unix", "rb") as file:
        return any(line.split()[3] == b"00010000" for line in file if line.rstrip().endswith(b" " + os.fsencode(path)))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
