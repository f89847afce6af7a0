"""What discover() says that each namespace isolates: ip, findmnt, ipcs and /proc inside are the oracles."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

import nslab
from nslab import network
from nslab.model.snapshot import SeenNamespace, Snapshot


def of(snapshot: Snapshot, handle: nslab.Namespace) -> SeenNamespace:
    return snapshot.by_id[handle.id]


def test_the_machine_itself() -> None:
    snapshot = nslab.discover(os.getpid())
    content = {kind: snapshot.by_id[identity].content for kind, identity in snapshot.machine.items()}
    assert content["uts"].host_name == os.uname().nodename
    assert content["uts"].domain_name == Path("/proc/sys/kernel/domainname").read_text().strip()
    assert [tuple(line) for line in content["user"].uid_map.lines] == [
        tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()
    ]
    assert {each.state.name for each in content["net"].interfaces} == set(os.listdir("/sys/class/net"))
    assert (content["time"].monotonic, content["time"].boottime) == (0.0, 0.0)
    assert set(content["cgroup"].roots.values()) == {"/"}


def test_names_clocks_ids_and_ipc_objects() -> None:
    with (
        nslab.Container(isolate="uts ipc user time", hostname="höst", domainname="dom", clock={"boottime": 86400}) as web,
        web.namespaces["uts"] as uts, web.namespaces["ipc"] as ipc, web.namespaces["user"] as user,
        web.namespaces["time"] as time,
    ):  # fmt: skip
        key = int(web.run("ipcmk -M 4096 >/dev/null; ipcs -m | awk '/^0x/ {print $1}'").stdout, 16)
        inside = web.run("cat /proc/self/uid_map /proc/self/setgroups").lines
        snapshot = nslab.discover(web)
        names = of(snapshot, uts).content
        assert (names.host_name, names.domain_name) == ("höst", "dom")
        assert (of(snapshot, time).content.monotonic, of(snapshot, time).content.boottime) == (0.0, 86400.0)
        (memory,) = of(snapshot, ipc).content.objects
        assert (memory.sort, memory.key, memory.size, memory.uid) == ("shm", key, 4096, os.geteuid())
        ids = of(snapshot, user).content
        assert ids.uid_map.outside(0) == os.geteuid()
        assert ids.setgroups == inside[-1]


def offsets(snapshot: Snapshot, inode: int) -> float:
    return next(each.content.monotonic for each in snapshot.of_kind("time") if each.id.ino == inode)


def waiting(process: nslab.Process) -> int:
    """The inode of the time namespace that its children will be in."""
    return int(os.readlink(f"/proc/{process.pid}/ns/time_for_children")[6:-1])


@pytest.mark.parametrize("user", [False, True])
def test_looking_does_not_fix_the_clocks_of_a_time_namespace_that_waits_for_its_first_child(user: bool) -> None:
    """Who enters one fixes them, and a look must change nothing. time_namespaces(7)"""
    with nslab.process() as steered:
        steered.unshare("user time" if user else "time")
        inode = waiting(steered)
        before = nslab.discover(steered)
        assert (offsets(before, inode), offsets(nslab.discover(), inode)) == (0, 0)
        steered.write("/proc/self/timens_offsets", "monotonic 1000 0\n")
        after = nslab.discover(steered)
        assert (offsets(after, inode), offsets(nslab.discover(), inode)) == (1000, 1000)
        (change,) = nslab.diff(before, after).of(sort="clock")
        assert (change.subject, change.before, change.after) == ("monotonic", "+0s", "+16m 40s")


def test_the_clocks_of_a_time_namespace_are_not_those_of_the_one_after_it() -> None:
    """The kernel shows for a process what its children will get."""
    with nslab.process() as steered:
        steered.unshare("time")
        first = waiting(steered)
        steered.write("/proc/self/timens_offsets", "monotonic 1000 0\n")
        child = steered.fork()
        child.unshare("time")
        child.write("/proc/self/timens_offsets", "monotonic 777 0\n")
        found = nslab.discover()
        assert (offsets(found, first), offsets(found, waiting(child))) == (1000, 777)
        assert offsets(found, found.machine["time"].ino) == 0


@pytest.mark.parametrize(("sort", "made", "listed"), [("shm", "-M 4096", "-m"), ("sem", "-S 3", "-s"), ("msg", "-Q", "-q")])
def test_one_sort_of_objects_is_read_where_there_is_no_other(sort: str, made: str, listed: str) -> None:
    """A list is printed only for a sort of which the kernel counts some."""
    with nslab.Container(isolate="ipc user") as web, web.namespaces["ipc"] as ipc:
        keys = web.run(f"ipcmk {made} >/dev/null; ipcs {listed} | awk '/^0x/ {{print $1}}'").check().lines
        found = of(nslab.discover(web), ipc).content.objects
        assert [(each.sort, f"0x{each.key:08x}") for each in found] == [(sort, *keys)]


def test_message_queues() -> None:
    with nslab.Container(isolate="ipc user mnt") as web, web.namespaces["ipc"] as ipc:
        web.run("mount -t mqueue none /tmp && touch /tmp/jobs").check()
        assert [(each.sort, each.name) for each in of(nslab.discover(web), ipc).content.objects] == [("mq", "/jobs")]


@pytest.mark.requires("tool:findmnt")
def test_mounts_with_propagation_are_those_of_findmnt(tmp_path) -> None:
    (tmp_path / "a b").mkdir()
    with nslab.process() as steered:
        steered.unshare("mnt")
        steered.mount("tmpfs", str(tmp_path / "a b"), "tmpfs")
        steered.mount(None, str(tmp_path / "a b"), None, "MS_SHARED")
        with steered.namespaces["mnt"] as mnt:
            content = of(nslab.discover(steered), mnt).content
        said = steered.run(["findmnt", "-J", "--list", "-o", "TARGET,FSTYPE,PROPAGATION"]).stdout
        rows = {(row["target"], row["fstype"]): row["propagation"] for row in json.loads(said)["filesystems"]}
        assert {(each.target, each.fstype) for each in content.mounts} == set(rows)
        (made,) = [each for each in content.mounts if each.target == str(tmp_path / "a b")]
        assert set(made.peers) == {"shared"}
        assert rows[made.target, "tmpfs"] == "shared"


@pytest.mark.requires("tool:ip")
def test_a_network_is_that_of_ip_and_knows_the_peers_of_its_veth_pairs() -> None:
    with network.create() as left, network.create() as right:
        one, two = left.veth("toright", right, "toleft")
        one.address("10.9.0.1/24", "fd00::1/64")
        two.address("10.9.0.2/24")
        one.shape(rate="10mbit")
        snapshot = nslab.discover(os.getpid())
        content, far = of(snapshot, left.namespace).content, of(snapshot, right.namespace).content
        interfaces = {each.state.name: each for each in content.interfaces}
        said = json.loads(left.run(["ip", "-j", "addr"]).stdout)
        assert {row["ifname"]: row["ifindex"] for row in said} == {name: each.state.index for name, each in interfaces.items()}
        addresses = {f"{each['local']}/{each['prefixlen']}" for row in said for each in row["addr_info"]}
        assert {each for one in interfaces.values() for each in one.state.addresses} == addresses
        assert interfaces["toright"].peer_network == right.namespace.id
        assert interfaces["toright"].rate == 10_000_000
        assert next(each for each in far.interfaces if each.state.name == "toleft").peer_network == left.namespace.id
        routes = {row["dst"] for row in json.loads(left.run(["ip", "-j", "route"]).stdout)}
        assert {each.to for each in content.routes if each.version == 4} == routes


def test_listeners_inside() -> None:
    with nslab.Container(isolate="net", loopback=True) as web, web.namespaces["net"] as net:
        script = (
            "import socket, sys; s = socket.create_server(('127.0.0.1', 8080)); u = socket.socket(type=socket.SOCK_DGRAM); "
        )
        script += "u.bind(('', 53)); print(flush=True); sys.stdin.read()"
        server = web.popen(["python3", "-c", script], stdin=True)
        server.stdout.readline()
        found = {(each.protocol, each.address, each.port) for each in of(nslab.discover(web), net).content.listening}
        assert found == {("tcp", "127.0.0.1", 8080), ("udp", "0.0.0.0", 53)}
        server.end()


def test_a_listener_of_the_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        snapshot = nslab.discover(os.getpid())
        content = snapshot.by_id[snapshot.machine["net"]].content
        assert ("tcp", *server.getsockname()) in {(each.protocol, each.address, each.port) for each in content.listening}


@pytest.mark.parametrize("kind", ["uts", "ipc", "net", "mnt", "time", "user"])
def test_what_nobody_is_in_is_looked_into_as_well(kind: str) -> None:
    with nslab.Container(isolate=f"{kind}", **({"hostname": "alone"} if kind == "uts" else {})) as web:
        handle = web.namespaces[kind]
    with handle:
        found = of(nslab.discover(os.getpid()), handle)
        assert found.members == ()
        assert found.content is not None
        if kind == "uts":
            assert found.content.host_name == "alone"
        if kind == "mnt":
            assert "/" in {each.target for each in found.content.mounts}
        if kind == "user":
            assert found.content.uid_map.outside(0) == os.geteuid()


def test_the_root_of_a_cgroup_namespace() -> None:
    with nslab.Container(isolate="cgroup") as web, web.namespaces["cgroup"] as cgroup:
        outside = Path(f"/proc/{web.pid}/cgroup").read_text().splitlines()
        roots = of(nslab.discover(web), cgroup).content.roots
        for line in outside:
            number, controllers, path = line.split(":", 2)
            assert roots["" if number == "0" else controllers] == path


def test_it_is_a_look_and_no_more_and_is_traced() -> None:
    with nslab.Container(isolate="uts net ipc", hostname="web") as web:
        steps = len(web.trace)
        with nslab.record() as trace:
            nslab.discover(web)
        entered = [step for step in trace if step.call == "setns"]
        assert len(entered) >= 3
        assert all(step.pid != os.getpid() for step in entered)
        assert not {"sethostname", "mount", "write"} & {step.call for step in trace}
        assert len(web.trace) == steps


def test_without_contents_nobody_enters() -> None:
    with nslab.Container(isolate="uts"), nslab.record() as trace:
        snapshot = nslab.discover(contents=False)
        assert {step.call for step in trace} <= {"ioctl", "listns", "open_by_handle_at", "pidfd_getfd"}, "which change nothing"
        assert all(each.content is None for each in snapshot.namespaces)
