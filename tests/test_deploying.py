"""While a lab is made: how far it is, what shows that, and that nothing is left of one that failed, wherever that was."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
import re
import sys

import pytest

import nslab
from nslab import Topology, netlink
from nslab.netlink import Answer, Request
from nslab.topology import progress
from tests.helpers import in_python


def small() -> Topology:
    """Some of everything: a host on a switch, a router, a host behind a slow link."""
    lab = Topology("small", ipv6=False)
    switch, router = lab.switch("s"), lab.router("r")
    lab.link(lab.host("a"), switch)
    lab.link(switch, router)
    lab.link(router, lab.host("b"), rate="10mbit")
    return lab


def test_progress_is_told_from_the_first_node_to_the_end() -> None:
    told: list[float] = []
    small().deploy(progress=told.append).destroy()
    assert told == sorted(told)
    assert 0 < told[0] < 0.3 and told[-1] == 1
    assert len(told) >= 3 + 4, "each network, and each that is sent something"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(progress, "AFTER", 0)
    monkeypatch.setattr(progress, "EVERY", 0)


@pytest.mark.usefixtures("at_once")
def test_a_line_on_a_terminal_that_is_gone_at_the_end(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    small().deploy().destroy()
    lines = terminal.getvalue().split("\r")
    assert re.fullmatch(r"deploying small \[#+ +\]  \d\d%", lines[1])
    assert lines[-3].endswith("[##############################] 100%")
    assert lines[-2:] == [" " * len(lines[-3]), ""]


@pytest.mark.usefixtures("at_once")
def test_a_bar_in_a_notebook_that_is_gone_at_the_end(monkeypatch) -> None:
    shown: list[object] = []

    class Handle:
        def update(self, what: object, raw: bool = False) -> None:
            shown.append(what if raw else what._repr_mimebundle_())  # type: ignore[attr-defined]

    def display(what: object, display_id: bool) -> Handle:
        shown.append(what._repr_mimebundle_())  # type: ignore[attr-defined]
        return Handle()

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(builtins, "display", display, raising=False)
    small().deploy().destroy()
    assert '<progress value="1.000"></progress> deploying small 100%' in shown[-2]["text/html"]  # type: ignore[index]
    assert shown[-1] == {"text/plain": ""}


def test_nothing_is_shown_where_nobody_looks_or_it_is_quick(monkeypatch) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(progress, "AFTER", 1000)
        small().deploy().destroy()
    assert terminal.getvalue() == ""
    script = "from nslab.topology import progress\nprogress.AFTER = progress.EVERY = 0\n"
    done = in_python(script + "import nslab, sys\nnslab.Topology.ring(3).deploy()\nassert 'networkx' not in sys.modules")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def fds() -> list[str]:
    gc.collect()
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}").split(":[")[0])
        except FileNotFoundError:  # the one by which they were listed
            continue
    return sorted(found)


@pytest.mark.parametrize("how", ["refused", "interrupted"])
def test_nothing_is_left_whichever_request_fails(monkeypatch, how: str) -> None:
    """The n-th, for all n when the kernel refuses, for some when Ctrl-C comes."""
    small().deploy().destroy()
    send, left = netlink.Socket.send, iter(())

    def failing(self: netlink.Socket, requests: list[Request]) -> list[Answer]:
        numbers = [next(left) for _ in requests]
        if 0 not in numbers:
            return send(self, requests)
        before = requests[: numbers.index(0)]
        answers = send(self, before) if before else []
        if how == "interrupted":
            raise KeyboardInterrupt
        return [*answers, *[Answer(errno.ENOMEM, "")] * (len(requests) - len(before))]

    with small().deploy() as lab:
        total = sum(step.call.startswith("RTM_") for step in lab.trace)
    assert total > 10
    monkeypatch.setattr(netlink.Socket, "send", failing)
    before = fds()
    for number in range(0, total, 1 if how == "refused" else 4):
        left = iter(range(number, number - total - 1, -1))
        topology = small()
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else nslab.SyscallError):
            topology.deploy()
        assert not topology.running
        del topology
        assert fds() == before, f"after request {number}"
    left = iter(range(total, -1, -1))
    small().deploy().destroy()


def test_what_holds_a_lab_is_inherited_by_no_program() -> None:
    with small().deploy() as lab:
        held = [each.namespace.fileno() for each in lab.networks.values()]
        held += [each.socket.fileno() for each in lab.networks.values()]
        held += [each.fileno() for each in lab.hostnames.values()]
        assert len(held) == 9
        assert not [fd for fd in held if os.get_inheritable(fd)]
