"""Nodes that are containers: what they isolate, that they are in the network of the lab, and how they end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import nslab
from nslab import Topology
from tests.helpers import has_ended, link, pidfd_of, reaches

BUSYBOX = pytest.mark.requires("tool:busybox")
PING = pytest.mark.requires("tool:ping")


def web() -> Topology:
    """A node of each sort on one switch."""
    lab = Topology("web")
    s = lab.switch("s1")
    lab.link(lab.host("plain"), s)
    lab.link(lab.host("box", isolate="uts net pid mnt", rootfs="busybox"), s)
    lab.link(lab.host("bare", isolate="pid"), s)
    lab.link(lab.host("own", isolate="pid mnt"), s)
    lab.link(lab.host("hard", hardened=True), s)
    return lab


@BUSYBOX
@PING
def test_each_sort_of_node_reaches_all_by_their_names() -> None:
    lab = web()
    with lab.deploy() as running:
        assert lab.ping_all().lost == []
        for name in ("plain", "box", "bare", "own", "hard"):
            node = lab[name]
            assert node.run("hostname").stdout == f"{name}\n"
            for other in ("plain", "box", "hard"):
                found = lab[other].addresses[0]
                assert node.call(reaches, found) if name == "hard" else not node.run(f"ping -c1 -W2 {other}").returncode
                assert name == "box" or node.run(f"getent ahostsv4 {other} | grep -q {found}").returncode == 0
            assert sorted(node.run("ls /sys/class/net").lines) == ["eth0", "lo"]
            assert node.call(os.readlink, "/proc/self/ns/net") == str(running.networks[name].namespace)
            assert node.run("cat /etc/resolv.conf").stdout.startswith("# No name server")
        assert lab["box"].run("ls /bin/busybox && ls /root").returncode == 0
        assert lab["box"].run("echo $$").stdout != "1\n"
        assert lab["own"].container.run("ps -e -o pid=").lines[0].strip() == "1"
        assert sorted(running.containers) == ["bare", "box", "hard", "own"]
        assert "bare" not in Path("/etc/hosts").read_text()


@BUSYBOX
def test_names_follow_in_containers_too() -> None:
    lab = web()
    with lab.deploy():
        lab.link(lab.host("late", isolate="pid mnt"), "s1")
        for name in ("box", "bare", "own", "hard", "late"):
            assert f"{lab['late'].addresses[0]} late" in lab[name].run("cat /etc/hosts").lines
        lab["late"].remove()
        for name in ("box", "bare", "own"):
            assert "late" not in lab[name].run("cat /etc/hosts").stdout
        mounts = lab["own"].run("grep -c /etc/hosts /proc/self/mountinfo").stdout
        assert mounts == "1\n", "changed in place, not covered again"


def test_what_was_asked_of_it_is_as_for_a_container() -> None:
    lab = Topology()
    node = lab.host("a", isolate="pid ipc", mounts=[])
    lab.link(node, lab.router("r", isolate="pid"))
    assert node.options() == {"isolate": "ipc pid"}
    assert lab.host("same", isolate="uts net").options() == {}, "which every node has of its own"
    place: dict[str, Topology] = {}
    exec(lab.to_python(), place)
    assert [each.options() for each in place["lab"]] == [each.options() for each in lab]
    assert [each.options() for each in Topology.from_yaml(lab.to_yaml())] == [each.options() for each in lab]
    with lab.deploy():
        assert node.container.kinds == ("uts", "ipc", "pid", "net")
        assert node.run("readlink /proc/self/ns/ipc").stdout.strip() != link("ipc")
        assert lab["r"].network.sysctl("net.ipv4.ip_forward") == "1"
        assert node.alive
        command = node.popen("exec sleep 1000")
        assert command.pid_inside > 1
        with pytest.raises(nslab.SpecError, match="is no container"):
            _ = lab["same"].container
    assert command.wait(2) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"isolate": "pids"}, "isolate"), ({"rootfs": "busybox"}, "needs a mount namespace"),
        ({"isolate": "mnt", "rootfs": "/nowhere"}, "there is no /nowhere"), ({"limits": {"disk": 1}}, "limits"),
        ({"isolate": "pid", "mounts": ["/etc:/mnt"]}, "mount namespace"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_once(options: dict[str, object], rule: str) -> None:
    lab = Topology()
    with pytest.raises(nslab.SpecError, match=rule):
        lab.host("a", **options)  # type: ignore[arg-type]
    assert len(lab) == 0


def test_an_init_that_is_killed_takes_its_node_and_nothing_else() -> None:
    lab = Topology()
    a, b, s = lab.host("a", isolate="pid"), lab.host("b"), lab.switch("s")
    lab.link(a, s)
    lab.link(b, s)
    lab.link(lab.host("c"), s)
    with lab.deploy():
        with pidfd_of(a.container.pid) as pidfd:
            os.kill(a.container.pid, signal.SIGKILL)
            assert has_ended(pidfd)
        with pytest.raises(nslab.DeadNamespace, match=r"node 'a': its init .* has ended"):
            a.run("true")
        assert not a.alive
        assert b.run("hostname").stdout == "b\n"
        assert lab.ping_all().lost == [], "its network goes on"
        lab.link("c", "b")
        a.remove()
        again = lab.host("a", isolate="pid")
        lab.link(again, s)
        assert again.run("hostname").stdout == "a\n"
    lab.destroy()


def test_a_node_of_other_kinds_is_another_node() -> None:
    lab, wanted = Topology(), Topology()
    lab.link(lab.host("a", isolate="pid"), lab.host("b"))
    wanted.link(wanted.host("a", isolate="pid ipc"), wanted.host("b"))
    with lab.deploy() as running:
        a, old = lab["a"], lab["a"].container
        did = lab.apply(wanted)
        assert ("removed", "node", "a (host)") in did.done
        assert ("added", "node", "a (host)") in did.done
        assert not old.alive
        assert lab["a"] is not a
        assert lab["a"].container.kinds == ("uts", "ipc", "pid", "net")
        assert running.ping_all().lost == []
        assert not lab.apply(wanted)


def test_a_change_that_fails_ends_the_containers_that_it_made(monkeypatch) -> None:
    lab, wanted = Topology(), Topology()
    lab.link(lab.host("a", isolate="pid"), lab.host("b"))
    wanted.link(wanted.host("a", isolate="pid ipc"), wanted.host("b"))
    wanted.host("c", isolate="pid")
    with lab.deploy() as running:
        old = lab["a"].container
        before = dict(running.containers)
        with monkeypatch.context() as patch:
            patch.setattr(nslab.network.Network, "veth", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                lab.apply(wanted)
    assert before == {"a": old}


def test_a_node_is_joined() -> None:
    lab = Topology()
    lab.link(lab.host("a"), lab.host("b", isolate="pid ipc"))
    with lab.deploy() as running:
        for name in ("a", "b"):
            node = lab[name]
            with nslab.Container("beside", isolate="mnt", join={"net uts": node}) as beside:
                assert beside.run("hostname").stdout == f"{name}\n"
                assert beside.run("readlink /proc/self/ns/net").stdout.strip() == str(running.networks[name].namespace)
            assert nslab.run("hostname", join={"uts": node}).stdout == f"{name}\n"
        assert nslab.run("readlink /proc/self/ns/ipc", join={"ipc": lab["b"]}).stdout.strip() == str(
            lab["b"].container.namespaces["ipc"]
        )
        assert nslab.run("readlink /proc/self/ns/net", join={"net": running.networks["a"]}).stdout.strip() == str(
            running.networks["a"].namespace
        )
        with pytest.raises(nslab.SpecError, match="is no container"):
            nslab.run("true", join={"ipc": lab["a"]})
    with pytest.raises(nslab.DeadNamespace):
        nslab.run("true", join={"net": lab["a"]})
