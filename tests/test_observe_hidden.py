"""What nothing in /proc leads to: a network that a socket alone holds, what only the kernel knows. And the shared walk."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import nslab
from nslab import syscalls
from nslab.errors import SpawnerError, SyscallError
from nslab.model import KINDS, Counters, NamespaceId
from nslab.model.snapshot import Holder, NetContent, UtsContent
from nslab.observe import discovering, looking
from nslab.observe.asking import Asker
from nslab.observe.hidden import Sockets
from nslab.ops.visits import Place
from nslab.procfs import walk
from nslab.procfs.found import Reference, Walk
from nslab.spawner import Descriptor
from nslab.syscalls import nsfs
from tests.helpers import link, listed

# In a network and a UTS namespace of its own: sends the name of each, and a socket of the one with the other's descriptor.
SENDER = """
import ctypes, os, socket, sys
assert ctypes.CDLL(None, use_errno=True).unshare(0x44000000) == 0
socket.sethostname("hidden")
inside = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
inside.bind(("0.0.0.0", 8080))
inside.listen()
uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
text = " ".join(os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "uts"))
way = socket.socket(fileno=int(sys.argv[1]))
socket.send_fds(way, [text.encode()], [inside.fileno(), uts])
"""


def identity(text: str) -> NamespaceId:
    return NamespaceId(os.stat("/proc/self/ns/net").st_dev, int(text.partition("[")[2].rstrip("]")))


@contextlib.contextmanager
def left_behind() -> Iterator[tuple[socket.socket, int, NamespaceId, NamespaceId]]:
    """A socket in a network that nobody is in any more, a descriptor of a UTS namespace likewise, and the ids of both."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            command = [sys.executable, "-c", SENDER, str(theirs.fileno())]
            subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
        text, (inside, uts), _, _ = socket.recv_fds(ours, 1000, 2)
        net, uts_name = text.decode().split()
        with socket.socket(fileno=inside) as sock:
            yield sock, uts, identity(net), identity(uts_name)


@contextlib.contextmanager
def on_its_way(fd: int) -> Iterator[None]:
    """While the only descriptor is in a message that nobody has taken: this process no longer has it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"."], [fd])
        os.close(fd)
        yield


@pytest.mark.requires("root", "linux:5.6", "tool:lsns")
def test_a_network_that_only_a_socket_holds_is_seen_with_all_that_is_in_it() -> None:
    with left_behind() as (sock, uts, net, _):
        os.close(uts)
        seen = listed("-o", "NS").split()
        assert seen
        assert str(net.ino) not in seen, "so this is more than lsns sees"
        found = nslab.discover().by_id[net]
        assert (found.kind, found.members) == ("net", ())
        assert found.holders == (Holder("socket", os.getpid(), str(sock.fileno())),)
        assert isinstance(found.content, NetContent)
        assert "lo" in {each.state.name for each in found.content.interfaces}
        assert [(each.address, each.port) for each in found.content.listening] == [("0.0.0.0", 8080)]
        assert found.owner == nslab.discover(contents=False).machine["user"]
    assert net not in nslab.discover(contents=False).by_id


@pytest.mark.requires("ordinary")
def test_sockets_that_may_not_be_asked_are_counted() -> None:
    """Who has no CAP_NET_ADMIN in the network of a socket is not told which it is."""
    with socket.socket():
        (said,) = [each for each in nslab.discover(contents=False).unseen if each.what == "sockets"]
    assert said.count > 0
    assert f"uid {os.geteuid()} may not ask" in said.why


def test_sockets_past_a_limit_are_counted_not_asked() -> None:
    sockets = Sockets({b"socket:[%d]" % number: (os.getpid(), 10**6) for number in range(5003)})
    assert sockets.refused == 3
    assert list(sockets.references(Asker({}))) == []
    assert sockets.refused == 3, "a descriptor that is closed by now is no refusal"


# -- listns(2)


def test_what_the_kernel_cannot_list_is_said() -> None:
    """On a kernel without the call, the call itself says so; on one that has it, every namespace of this process is listed."""
    said = [each for each in nslab.discover(contents=False).unseen if "listns" in each.why]
    try:
        numbers = syscalls.listns()
    except SyscallError as error:
        assert error.name == "ENOSYS"
        assert len(said) == 1
    else:
        assert not said
        with Descriptor(os.open("/proc/self/ns/uts", os.O_RDONLY)) as opened:
            assert syscalls.ns_get_id(opened.fileno()) in numbers


@pytest.mark.requires("linux:6.18")
@pytest.mark.parametrize("kind", KINDS)
def test_a_namespace_is_opened_by_its_number(kind: str) -> None:
    with Descriptor(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)) as own:
        number, inode = syscalls.ns_get_id(own.fileno()), os.fstat(own.fileno()).st_ino
    with Descriptor(syscalls.open_by_handle_at(number, KINDS[kind].flag, inode)) as opened:
        assert os.readlink(f"/proc/self/fd/{opened.fileno()}") == link(kind)
    with pytest.raises(SyscallError, match="ESTALE"):
        Descriptor(syscalls.open_by_handle_at(number, KINDS[kind].flag, inode + 1)).close()


@pytest.mark.requires("root", "linux:6.18")
def test_what_only_the_kernel_knows_is_seen_where_it_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only descriptor of a namespace is in a message on its way. Where the kernel has no list, one is put in its place."""
    with left_behind() as (_, uts, _, identity):
        number, flag = syscalls.ns_get_id(uts), KINDS["uts"].flag
        with on_its_way(uts):
            try:
                syscalls.listns()
            except SyscallError:
                assert identity not in nslab.discover(contents=False).by_id
                open_by_handle_at = nsfs.open_by_handle_at
                listed = [number - 1, number, 1 << 60]  # in two answers; the last is not there
                monkeypatch.setattr(nsfs, "listns", lambda after=0, **_: [each for each in listed if each > after][:2])
                monkeypatch.setattr(nsfs, "open_by_handle_at", lambda each: open_by_handle_at(each, flag, identity.ino))
            found = nslab.discover().by_id[identity]
            assert found.identity == f"uts {number}"
            assert (found.members, found.holders) == ((), (Holder("kernel", 0, ""),))
            assert isinstance(found.content, UtsContent)
            assert found.content.host_name == "hidden"
            assert not any("listns" in each.why for each in nslab.discover(contents=False).unseen)
        assert number not in {each.number for each in nslab.discover(contents=False).namespaces}


def test_the_way_into_an_owner_is_known_also_when_what_it_owns_was_found_first() -> None:
    """As where PIDs began anew meanwhile. An ordinary user gets no further than there without it."""
    with nslab.Container(isolate="user uts") as web:
        ids = web.namespaces.ids()
        with contextlib.closing(Asker({})) as asker:
            for kind in ("uts", "user"):
                path = f"/proc/{web.pid}/ns/{kind}"
                assert not asker.knows(kind, ids[kind])
                assert asker.ask(kind, ids[kind], [path])
                assert asker.knows(kind, ids[kind])
                assert asker.found[ids[kind]].path == path
            assert asker.found[ids["uts"]].owner == ids["user"]


# -- a walk that two processes share


def nothing(_: object) -> Iterator[str]:
    """This process takes no part in the walk: it would have done all before the other one is there."""
    return iter(())


@pytest.mark.parametrize("alone", [False, True], ids=["both walk", "the other walks"])
def test_a_walk_that_is_shared_finds_the_same(monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """Of what this process has made, since others come and go meanwhile; what counts or runs is left out."""
    with (
        nslab.Container("web", isolate="all") as web,
        nslab.Container("log", join={"net": web}) as log,
        nslab.Topology.single(3).deploy() as lab,
    ):
        for thing in (web, log, lab, None):
            one = nslab.discover(thing)
            monkeypatch.setattr(discovering, "SHARED", 0)
            if alone:
                monkeypatch.setattr(walk.Pieces, "taken", nothing)
            two = nslab.discover(thing)
            monkeypatch.undo()
            assert [each.pid for each in two.processes] == sorted({each.pid for each in two.processes})
            pids, ids = {web.pid, log.pid}, set(lab.held())
            for box in (web, log):
                ids |= set(box.namespaces.ids().values()) - set(one.machine.values())
            if thing is not None:
                pids, ids = pids & set(one.by_pid), ids & set(one.by_id)
            assert ids
            for pid in pids:
                assert replace(one.by_pid[pid], state="") == replace(two.by_pid[pid], state="")
            for each in ids:
                first, second = one.by_id[each], two.by_id[each]
                assert replace(first, content=None) == replace(second, content=None)
                if isinstance(first.content, NetContent):
                    assert isinstance(second.content, NetContent)
                    first, second = (
                        replace(
                            found, content=tuple(replace(link.state, counters=Counters()) for link in found.content.interfaces)
                        )
                        for found in (first, second)
                    )
                assert first.content == second.content


def test_who_walks_holds_nothing_by_what_it_opens_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each might meet the other in the middle of a question. So this process seems to meet the visitor, and is never met."""
    ask, look, taken, visitors, shared = looking.Visitor.ask, walk.look, walk.Pieces.taken, [], []

    def asked(visitor: looking.Visitor, *question: Any, **more: Any) -> None:
        visitors.append(visitor)
        ask(visitor, *question, **more)

    def met(*given: Any, **more: Any) -> Walk:
        found = look(*given, **more)
        assert visitors[0]._child.wait_for(lambda: visitors[0]._child.pid, 10)
        for sort in ("descriptor", "mount"):
            found.references.append(Reference(f"uts:[{ids['uts'].ino}]", sort, visitors[0]._child.pid, "20", "/nowhere"))
        return found

    def told(pieces: walk.Pieces) -> Iterator[str]:
        shared.extend(pieces.names)
        return taken(pieces)

    monkeypatch.setattr(discovering, "SHARED", 0)
    monkeypatch.setattr(looking.Visitor, "ask", asked)
    monkeypatch.setattr(walk, "look", met)
    monkeypatch.setattr(walk.Pieces, "taken", told)
    with nslab.Container(isolate="uts") as web:
        ids = web.namespaces.ids()
        snapshot = nslab.discover()
    assert [each.sort for each in snapshot.by_id[ids["uts"]].holders] == ["mount"]
    assert str(web.pid) in shared
    assert str(os.getpid()) not in shared
    assert os.getpid() in snapshot.by_pid


@pytest.mark.requires("root")
def test_where_a_walk_led_is_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though whoever walked went there unasked, and who asks knows it from the walk as well."""
    monkeypatch.setattr(discovering, "SHARED", 0)
    monkeypatch.setattr(walk.Pieces, "taken", nothing)
    with nslab.Container(isolate="uts ipc net pid") as web:
        with nslab.record() as trace:
            snapshot = nslab.discover()
        doors = [step.args[0] for step in trace if step.call == "setns"]
        for kind in ("uts", "ipc", "net"):
            assert snapshot.by_id[web.namespaces.ids()[kind]].content
            assert sum(f"/proc/{web.pid}/ns/{kind}" in door for door in doors) == 1


@pytest.mark.requires("root")
def test_queues_are_seen_by_who_has_been_in_another_mount_namespace() -> None:
    """The mounts by which it sees them end with the mount namespace that it leaves."""
    with contextlib.ExitStack() as stack:
        boxes = [stack.enter_context(nslab.Container(isolate="ipc mnt")) for _ in range(7)]
        for number, box in enumerate(boxes):
            box.run(f"mount -t mqueue none /mnt && touch /mnt/jobs{number}").check()
        visitor = stack.enter_context(contextlib.closing(looking.Visitor()))

        def enter(kind: str) -> dict[int, Any]:
            ways = [(box.namespaces.ids()[kind], f"/proc/{box.pid}/ns/{kind}", box.pid) for box in boxes]
            visitor.ask("enter", [Place(kind, (path,), identity.ino, pid) for identity, path, pid in ways], "")
            (said, _), _ = visitor.answer()
            return said

        before, mounts, after = enter("ipc"), enter("mnt"), enter("ipc")
        assert [each.name for number in range(7) for each in before[number]] == [f"/jobs{number}" for number in range(7)]
        assert all(b" /mnt " in mounts[number][1] for number in range(7))
        assert after == before


def test_who_walks_with_us_is_gone_afterwards_and_its_steps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovering, "SHARED", 0)
    with nslab.Container(isolate="uts") as web, web.namespaces["uts"]:
        with nslab.record() as trace:
            snapshot = nslab.discover(web)  # whatever others of this user have
        (visitor,) = {step.pid for step in trace if step.call == "setns"}
        assert not os.path.exists(f"/proc/{visitor}")
        assert snapshot.by_id[web.namespaces.ids()["uts"]].content


def test_a_visitor_that_is_killed_is_said_in_our_words() -> None:
    """It had answered one question, and could not read the last."""
    queue, tells = map(Descriptor, os.pipe())
    with contextlib.closing(looking.Visitor()) as visitor, queue, tells:
        visitor.ask("enter", [], "")
        visitor.ask("look", (), False, fds=(queue.fileno(),))  # it waits for pieces, of which none come
        visitor.ask("enter", [], "")
        assert select.select([visitor._way], [], [], 10)[0]
        process = visitor._child.pidfd
        assert process
        signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
        assert process.readable(10)
        assert visitor.answer()[0] == ({}, [])
        with pytest.raises(SpawnerError):
            visitor.answer()


@pytest.mark.parametrize("shared", [0, 2**22])
def test_who_is_killed_while_it_looks_does_not_spoil_the_look(shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """nslab down ends all that is in the networks of a lab, visitors of others included."""
    ask, killed = looking.Visitor.ask, []

    def after_a_kill(visitor: looking.Visitor, *question: Any, **more: Any) -> None:
        if len(killed) < deaths:
            killed.append(visitor)
            with contextlib.suppress(ProcessLookupError):  # it has met the fate that is meant here
                signal.pidfd_send_signal(visitor._child.pidfd.fileno(), signal.SIGKILL)
            assert visitor._child.pidfd.readable(10)
        ask(visitor, *question, **more)

    monkeypatch.setattr(discovering, "SHARED", shared)
    monkeypatch.setattr(looking.Visitor, "ask", after_a_kill)
    with nslab.Container(isolate="uts", hostname="web") as web:
        deaths = 1
        assert nslab.discover(web).by_id[web.namespaces.ids()["uts"]].content == UtsContent("web", "(none)")
        assert killed
        deaths = 100  # that is no accident
        with pytest.raises(SpawnerError):
            nslab.discover(web)
