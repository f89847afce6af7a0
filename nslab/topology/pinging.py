"""ping_all: every node from every other, in rounds of many at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from nslab.namespaces.running import Running
from nslab.network import Network, messages
from nslab.topology.matrix import Matrix

# Pairs in one round. Each makes two entries in the table of neighbours, which the whole machine shares: 1,024 of them, and
# none is forgotten within five seconds. arp(7), gc_thresh3
AT_ONCE = 256
PINGER = (sys.executable, "-I", "-S", os.fspath(Path(__file__).with_name("pinger.py")))


def ping(network: Network, address: str, timeout: float) -> float | None:
    """Ping one address: the round-trip time in milliseconds, None where no answer came."""
    answer = network.run([*PINGER], input=f"{timeout} {address}\n", check=True).stdout.strip()
    return None if answer == "-" else float(answer)


def ping_all(networks: Mapping[str, Network], addresses: Mapping[str, Sequence[str]], timeout: float) -> Matrix:
    """Ping the first address of each from every other, for half of ``timeout``; then who is missing, for all of it."""
    names = list(networks)
    pairs = [(name, names[(at + step) % len(names)]) for step in range(1, len(names)) for at, name in enumerate(names)]
    times: dict[tuple[str, str], float | None] = {}
    with contextlib.ExitStack() as undo:
        pingers: dict[str, Running] = {}
        for name in names if pairs else []:
            pingers[name] = networks[name].popen([*PINGER], stdin=True)
            undo.callback(pingers[name].end)
        for seconds in (timeout / 2, timeout):
            for some in _rounds([pair for pair in pairs if times.get(pair) is None]):
                times |= _ask(pingers, some, addresses, seconds)
                if len(pairs) > AT_ONCE:
                    for name in {name for pair in some for name in pair}:
                        _forget(networks[name])
    return Matrix({pair: times[pair] for pair in itertools.permutations(names, 2)})


def _ask(
    pingers: Mapping[str, Running], some: Sequence[tuple[str, str]], addresses: Mapping[str, Sequence[str]], seconds: float
) -> dict[tuple[str, str], float | None]:
    """One round: have all of these ping at once."""
    asked: dict[str, list[str]] = {}
    for one, two in some:
        asked.setdefault(one, []).append(two)
    for one, targets in asked.items():
        stdin = pingers[one].stdin
        assert stdin
        with contextlib.suppress(BrokenPipeError):  # it was ended
            stdin.write(" ".join([str(seconds), *(addresses[two][0] for two in targets)]).encode() + b"\n")
            stdin.flush()
    times: dict[tuple[str, str], float | None] = {}
    for one, targets in asked.items():
        stdout = pingers[one].stdout
        assert stdout
        answers = stdout.readline().split() or [b"-"] * len(targets)
        for two, answer in zip(targets, answers, strict=True):
            times[one, two] = None if answer == b"-" else float(answer)
    return times


def _rounds(pairs: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    yield from (pairs[first : first + AT_ONCE] for first in range(0, len(pairs), AT_ONCE))


def _forget(network: Network) -> None:
    """Take what it has learnt out of the machine's table of neighbours. Whether it is still there does not matter."""
    learnt = [entry for entry in network.neighbours() if entry.state not in ("permanent", "noarp")]
    if requests := [messages.change_neighbour(False, each.index, "", ip_address(each.address), None) for each in learnt]:
        network.socket.send(requests)
