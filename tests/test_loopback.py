"""The loopback of a network namespace: off at first, on when asked for, and nobody else's."""

from __future__ import annotations

import errno
import socket

import pytest

import nslab


def talk(port: int) -> bytes:
    """Connect to a server of one's own on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)) as client:
        with server.accept()[0] as accepted:
            accepted.sendall(b"hello")
        return client.recv(5)


def connect() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(("127.0.0.1", 1))


def test_a_new_network_namespace_has_its_loopback_off() -> None:
    with nslab.Container(isolate="net") as web:
        assert web.call(connect) == errno.ENETUNREACH
    with nslab.Container(isolate="net", loopback=True) as web:
        assert web.call(connect) == errno.ECONNREFUSED


def test_the_same_port_is_free_in_each_namespace() -> None:
    with nslab.Container("a", isolate="net", loopback=True) as a, nslab.Container("b", isolate="net", loopback=True) as b:
        assert a.call(talk, 8080) == b.call(talk, 8080) == b"hello"
        assert "ioctl(socket, SIOCSIFFLAGS, 'lo', IFF_UP) = 0" in str(a.trace)
        assert "ip link set lo up" in a.trace.shell()


def test_a_steered_process_turns_only_its_own_on() -> None:
    with nslab.process() as process:
        with pytest.raises(nslab.Refused, match="own net namespace"):
            process.do(nslab.ops.SetUp("lo"))
        process.unshare("net")
        process.do(nslab.ops.SetUp("lo"))
        assert process.call(talk, 8080) == b"hello"
        with pytest.raises(nslab.SyscallError) as caught:
            process.do(nslab.ops.SetUp("nothing"))
        assert caught.value.name == "ENODEV"
