"""Services of nodes and containers at the machine's loopback: many at once, large, half-closed, gone with what they lead to."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import nslab
from nslab import Topology
from nslab.namespaces.running import Running
from nslab.topology import Node
from tests.helpers import ROOT, eventually

# It answers only when the client has said that nothing more comes: with the length, and then all of it back. Or by a reset.
SERVICE = """
import socket, sys, threading
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 8080), family=family, backlog=200)
print("ready", flush=True)
def serve(connection):
    with connection:
        data = bytearray()
        while more := connection.recv(1 << 18):
            data += more
            if data == b"reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
                return
        connection.sendall(b"%d\\n" % len(data) + data)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@contextlib.contextmanager
def node() -> Iterator[Node]:
    lab = Topology("forward")
    web = lab.host("web")
    lab.link(web, lab.router("r"), subnet=["10.0.1.0/24", "fd00:1::/64"])
    with lab.deploy():
        yield web


def serve(where: Node | nslab.Container, address: str = "127.0.0.1", python: str = sys.executable) -> Running:
    service = where.popen([python, "-I", "-S", "-c", SERVICE, address])
    assert service.stdout
    assert service.stdout.readline() == b"ready\n"
    return service


def ask(port: int, data: bytes) -> bytes:
    """What comes back, when the connection is half closed after ``data``."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        found = bytearray()
        while more := sock.recv(1 << 18):
            found += more
    return bytes(found)


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_a_service_of_a_node_is_reached_and_half_closes_pass() -> None:
    with node() as web:
        forward = web.forward(8080)
        with pytest.raises(ConnectionResetError):  # nothing listens there yet
            ask(forward.address[1], b"")
        service = serve(web)
        assert ask(forward.address[1], b"hello") == b"5\nhello"
        assert ask(forward.address[1], b"") == b"0\n"
        assert forward.url == f"http://127.0.0.1:{forward.address[1]}/"
        assert forward.address[0] == "127.0.0.1"
        assert forward.url in forward._repr_mimebundle_()["text/html"]
        assert f"127.0.0.1:{forward.address[1]} here" in web.topology.lab.trace.shell()
        assert service
    assert refused(forward.address[1])
    assert not forward.alive
    assert "ended" in repr(forward)


@pytest.mark.parametrize("address", ["::1", "10.0.1.1", "fd00:1::1"])
def test_a_service_at_another_address(address: str) -> None:
    with node() as web:
        service = serve(web, address)
        with web.forward(8080) as found, web.forward(8080, address=address) as given:
            wanted = b"5\nhello"
            assert ask(given.address[1], b"hello") == wanted
            if address != "fd00:1::1" or address in web.addresses:
                assert ask(found.address[1], b"hello") == wanted
        assert refused(given.address[1])
        assert service


def test_many_at_once_and_much_both_ways() -> None:
    large = os.urandom(1 << 20) * 16
    with node() as web:
        service = serve(web)
        port = web.forward(8080).address[1]
        with ThreadPoolExecutor(50) as pool:
            small = list(pool.map(lambda number: ask(port, b"%d" % number), range(200)))
        assert small == [b"%d\n%d" % (len(str(number)), number) for number in range(200)]
        answer = ask(port, large)
        assert service
    head = b"%d\n" % len(large)
    assert answer.startswith(head)
    assert hashlib.sha256(answer[len(head) :]).digest() == hashlib.sha256(large).digest()


def test_one_that_is_slow_does_not_hold_up_the_others_and_a_reset_goes_on() -> None:
    with node() as web:
        service = serve(web)
        port = web.forward(8080).address[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as slow:
            slow.sendall(b"x")
            assert ask(port, b"quick") == b"5\nquick"
            slow.shutdown(socket.SHUT_WR)
            assert slow.recv(10) == b"1\nx"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as gone:
            gone.sendall(b"reset")
            with pytest.raises(ConnectionResetError):
                gone.recv(1)
        assert service


def test_the_port_that_is_given_or_why_not() -> None:
    with node() as web, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(nslab.SpecError, match=f"port {port} of this machine is in use"):
            web.forward(8080, local=port)
        taken.close()
        assert web.forward(8080, local=port).address == ("127.0.0.1", port)
        for wrong in (
            {"port": 0},
            {"port": 65536},
            {"port": "http"},
            {"port": 80, "local": -1},
            {"port": 80, "address": "web"},
        ):
            with pytest.raises(nslab.SpecError):
                web.forward(**wrong)  # type: ignore[arg-type]


def test_a_node_that_goes() -> None:
    with node() as web:
        port = web.forward(8080).address[1]
        seen = web.topology.capture(web)
        assert not refused(port)
        web.remove()
        assert refused(port)
        assert not seen.running


def test_a_container_and_its_end() -> None:
    with nslab.Container("web", isolate="net pid", loopback=True) as web:
        service = serve(web)
        forward = web.forward(8080)
        assert ask(forward.address[1], b"hello") == b"5\nhello"
        assert len(web.processes()) == 2, "what carries the connections is not inside"
        assert service
    assert refused(forward.address[1])
    with nslab.Container("web", isolate="net pid", loopback=True) as web:
        port = web.forward(8080).address[1]
        os.kill(web.pid, signal.SIGKILL)
        assert eventually(lambda: refused(port))
        with pytest.raises(nslab.DeadNamespace):
            web.forward(8080)
    with nslab.Container(isolate="uts") as plain, pytest.raises(nslab.SpecError, match="shares the machine's own network"):
        plain.forward(8080)


@pytest.mark.requires("tool:/usr/bin/python3")
def test_a_container_that_joined_a_network_and_a_hardened_one() -> None:
    with nslab.Container("web", isolate="net", loopback=True) as web, nslab.Container(join={"net": web}) as side:
        service = serve(web)
        assert ask(side.forward(8080).address[1], b"hello") == b"5\nhello"
        assert service
    with nslab.Container("hard", hardened=True, loopback=True) as hard:
        service = serve(hard, python="/usr/bin/python3")  # another may lie where those inside cannot look
        assert ask(hard.forward(8080).address[1], b"hello") == b"5\nhello"
        assert service


SCRIPT = """
import sys, nslab
lab = nslab.Topology("forward")
web = lab.host("web")
lab.link(web, lab.router("r"))
lab.deploy()
box = nslab.Container(isolate="net", loopback=True)
print(web.forward(8080).address[1], box.forward(8080).address[1], flush=True)
sys.stdin.read()
"""


def test_after_kill_9_of_the_notebook_nothing_listens() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as script:
        assert script.stdout
        ports = [int(word) for word in script.stdout.readline().split()]
        assert len(ports) == 2
        assert not any(refused(port) for port in ports)
        script.kill()
        assert eventually(lambda: all(refused(port) for port in ports))
