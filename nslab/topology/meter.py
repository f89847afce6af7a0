"""What throughput runs in two nodes, as a program of its own: no module of nslab is loaded.

    meter.py receive 4|6 SECONDS     prints a port, then how many bytes came in how many seconds
    meter.py send ADDRESS PORT       prints a line when it is connected, and sends until nobody takes any more

Neither copies what is sent: it comes out of a file in memory, and is thrown away by the kernel at the other end.
"""

import contextlib
import os
import socket
import sys
import time

CHUNK = 1 << 20
PATIENCE = 5.0  # seconds to connect, and without anything that comes


def receive(family: int, seconds: float) -> "tuple[int, float]":
    """Bytes and seconds, from the moment when the first ones have come: so its beginning does not count."""
    with socket.create_server(("::" if family == socket.AF_INET6 else "", 0), family=family) as listener:
        print(listener.getsockname()[1], flush=True)
        listener.settimeout(PATIENCE)
        connection = listener.accept()[0]
    with connection:
        connection.settimeout(PATIENCE)
        room, total = bytearray(CHUNK), 0
        connection.recv_into(room, CHUNK, socket.MSG_TRUNC)
        begin = last = time.monotonic()
        while last - begin < seconds and (count := connection.recv_into(room, CHUNK, socket.MSG_TRUNC)):
            total += count
            last = time.monotonic()
    return total, last - begin


def send(address: str, port: int) -> None:
    with (
        socket.create_connection((address, port), timeout=PATIENCE) as sock,
        os.fdopen(os.memfd_create("meter"), "wb") as source,
    ):
        print("connected", flush=True)
        sock.settimeout(None)
        source.truncate(CHUNK)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while True:
                os.sendfile(sock.fileno(), source.fileno(), 0, CHUNK)


def main() -> None:
    try:
        if sys.argv[1] == "send":
            send(sys.argv[2], int(sys.argv[3]))
        else:
            print(*receive(socket.AF_INET6 if sys.argv[2] == "6" else socket.AF_INET, float(sys.argv[3])), flush=True)
    except OSError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
