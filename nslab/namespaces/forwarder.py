"""What carries connections into a network, as a program of its own: no module of nslab is loaded.

It runs inside that network, and is handed a socket that listens outside over its standard input, with perhaps a pidfd. It ends
when the other end of its standard input is closed, or that process has ended. Its arguments are the port and the addresses
inside, which are tried in this order.
"""

import errno
import resource
import selectors
import socket
import struct
import sys

CHUNK = 1 << 18  # bytes that may wait for either side of a connection
FULL = 0.05  # seconds until it is tried again when there is no room for another connection
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST


class Side:
    """One socket of a connection, and what waits to be sent by it."""

    def __init__(self, link: "Link", sock: socket.socket):
        self.link = link
        self.socket = sock
        self.waiting = memoryview(b"")
        self.other: Side
        self.ended = False  # no more comes from it
        self.told = False  # nor goes to it
        self.mask = 0


class Link:
    """A connection from outside, and the one inside that it is carried on by."""

    def __init__(self, selector: selectors.BaseSelector, outside: socket.socket, targets: "list[tuple[str, int]]"):
        self.selector = selector
        self.targets = targets
        self.outside = Side(self, outside)
        self.inside: Side | None = None
        self.connect()

    def connect(self) -> None:
        """Begin with the next address; when none is left, refuse as the service would."""
        if not self.targets:
            self.abort()
            return
        address, *self.targets = self.targets
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        self.inside = Side(self, sock)
        if sock.connect_ex(address) in (0, errno.EINPROGRESS):
            self.watch(self.inside, selectors.EVENT_WRITE)
        else:
            sock.close()
            self.connect()

    def connected(self, side: Side) -> None:
        if side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.watch(side, 0)
            side.socket.close()
            self.connect()
            return
        side.other, self.outside.other = self.outside, side
        for each in (side, self.outside):
            each.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.renew(each)

    def ready(self, side: Side, mask: int) -> None:
        """Something can be read from, or written to, one side."""
        if not hasattr(side, "other"):
            self.connected(side)
            return
        try:
            if mask & selectors.EVENT_WRITE:
                self.send(side)
            if mask & selectors.EVENT_READ and not side.other.waiting:
                data = side.socket.recv(CHUNK)
                side.ended = not data
                side.other.waiting = memoryview(data)
                self.send(side.other)
        except BlockingIOError:
            pass
        except OSError:  # it was reset: so the other one hears
            self.abort()
            return
        if side.told and side.other.told:
            self.close()
        else:
            self.renew(side)
            self.renew(side.other)

    def send(self, side: Side) -> None:
        try:
            if side.waiting:
                side.waiting = side.waiting[side.socket.send(side.waiting) :]
        except BlockingIOError:
            return
        if side.other.ended and not side.waiting and not side.told:
            side.told = True
            side.socket.shutdown(socket.SHUT_WR)

    def renew(self, side: Side) -> None:
        """Wait for what makes sense: what is read has to have gone on before there is more."""
        reads = not side.ended and not side.other.waiting
        self.watch(side, (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if side.waiting else 0))

    def watch(self, side: Side, mask: int) -> None:
        if mask == side.mask:
            return
        if not side.mask:
            self.selector.register(side.socket, mask, side)
        elif mask:
            self.selector.modify(side.socket, mask, side)
        else:
            self.selector.unregister(side.socket)
        side.mask = mask

    def abort(self) -> None:
        for side in (self.outside, self.inside):
            if side and side.socket.fileno() >= 0:
                side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        for side in (self.outside, self.inside):
            if side and side.socket.fileno() >= 0:
                self.watch(side, 0)
                side.socket.close()


def main() -> None:
    port, addresses = int(sys.argv[1]), sys.argv[2:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    control = socket.socket(fileno=0)
    _, (listening, *others), _, _ = socket.recv_fds(control, 1, 2)
    listener = socket.socket(fileno=listening)
    listener.setblocking(False)
    with selectors.EpollSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        for end in (control.fileno(), *others):
            selector.register(end, selectors.EVENT_READ, "end")
        while True:
            found = selector.select(None if listener in selector.get_map() else FULL)
            if listener not in selector.get_map():
                selector.register(listener, selectors.EVENT_READ)
            for key, mask in found:
                if key.data == "end":
                    return
                if key.data is None:
                    accept(listener, selector, port, addresses)
                elif key.fileobj.fileno() >= 0:  # type: ignore[union-attr]  # one before may have closed it
                    key.data.link.ready(key.data, mask)


def accept(listener: socket.socket, selector: selectors.BaseSelector, port: int, addresses: "list[str]") -> None:
    try:
        outside, _ = listener.accept()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # there are too many: it is tried again later
            selector.unregister(listener)
        return
    outside.setblocking(False)
    Link(selector, outside, [(address, port) for address in addresses])


if __name__ == "__main__":
    main()
