"""ping_all: who is asked again, and when somebody counts as lost."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

import nslab
from nslab.topology import pinger, pinging


class Wire:
    """In place of a raw socket: what is sent is answered as ``answers`` says, or that raises."""

    family = socket.AF_INET

    def __init__(self, *answers: bool | OSError):
        self._answers: Iterator[bool | OSError] = iter(answers)
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sent: list[str] = []

    def fileno(self) -> int:
        return self._near.fileno()

    def recv(self, size: int) -> bytes:
        return self._near.recv(size)

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self.sent.append(address[0])
        answer = next(self._answers)
        if isinstance(answer, OSError):
            raise answer
        if answer:
            self._far.send(b"\x45" + bytes(19) + struct.pack("!BB", 0, 0) + data[2:])  # behind an IP header: an echo reply

    def close(self) -> None:
        self._near.close()
        self._far.close()


def ping(wire: Wire, *addresses: str, timeout: float = 0.08) -> list[float | None]:
    try:
        return pinger.ping({socket.AF_INET: wire}, list(addresses), 65530, timeout)  # type: ignore[dict-item]
    finally:
        wire.close()


@pytest.mark.unit
def test_who_has_not_answered_is_asked_again_and_nobody_else() -> None:
    wire = Wire(True, False, False, True)
    times = ping(wire, "10.0.0.1", "10.0.0.2")
    assert wire.sent == ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2"]
    assert None not in times
    assert times[1] is not None and times[1] < 0.02, "the time of the request that was answered"


@pytest.mark.unit
def test_a_full_table_of_neighbours_is_not_for_ever() -> None:
    wire = Wire(OSError(errno.ENOBUFS, "full"), True)
    assert None not in ping(wire, "10.0.0.1")


@pytest.mark.unit
def test_nobody_is_waited_for_where_there_is_no_way() -> None:
    wire = Wire(OSError(errno.ENETUNREACH, "no way"))
    assert ping(wire, "10.0.0.1", timeout=60) == [None]


@pytest.mark.unit
def test_who_never_answers_is_lost() -> None:
    wire = Wire(*[False] * 4)
    assert ping(wire, "10.0.0.1") == [None]
    assert len(wire.sent) == pinger.TURNS


def test_a_pinger_that_was_ended_has_reached_nobody(monkeypatch) -> None:
    """By what it would have run: a program that ends at once."""
    monkeypatch.setattr(pinging, "PINGER", ("true",))
    lab = nslab.Topology.single(2)
    with lab.deploy():
        assert len(lab.ping_all().lost) == 2
