"""What goes wrong with whole labs elsewhere, after reports of users of other tools; each must go right here."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nslab import Topology
from nslab.network import shaping
from tests.crash.oracle import descendants
from tests.helpers import ROOT, in_python

PING = pytest.mark.requires("tool:ping")
IP = pytest.mark.requires("tool:ip")
# A network that stands for the machine's own: what is in there shows up in no other.
AS_THE_MACHINE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
SNAPSHOT = """
import json, subprocess, nslab
def links(): return [each["ifname"] for each in json.loads(subprocess.check_output("ip -j link".split()))]
def do(command): subprocess.run(command.split(), check=True)
"""


@IP
@pytest.mark.requires("userns", "tool:unshare")
def test_B03_names_that_the_machine_has_already_are_free_in_a_lab() -> None:
    script = SNAPSHOT + (
        "do('ip link add s1 type bridge')\ndo('ip link add s1-1 type veth peer name h1')\nbefore = links()\n"
        "lab = nslab.Topology.single(2)\nother = nslab.Topology.single(2)\n"
        "with lab.deploy(), other.deploy():\n    print(lab.ping_all().lost + other.ping_all().lost, links() == before)\n"
    )
    done = in_python(script, AS_THE_MACHINE)
    assert done.stdout == "[] True\n", done.stderr


def test_B04_after_a_crash_the_same_lab_can_be_made_at_once() -> None:
    script = "import nslab, signal\nnslab.Topology.ring(3).deploy()\nprint('up', flush=True)\nsignal.pause()\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env) as notebook:
        assert notebook.stdout
        assert notebook.stdout.readline() == b"up\n"
        notebook.send_signal(signal.SIGKILL)
    lab = Topology.ring(3)
    with lab.deploy():
        assert lab.ping_all().lost == []


def test_B08_what_a_user_has_in_his_home_does_not_show_in_what_a_command_prints(tmp_path: Path) -> None:
    for name in (".bashrc", ".profile", ".bash_profile", ".inputrc", "env"):
        (tmp_path / name).write_text("echo noise\nset show-mode-in-prompt on\n")
    hostile = {**os.environ, "HOME": str(tmp_path), "BASH_ENV": f"{tmp_path}/env", "ENV": f"{tmp_path}/env", "PS1": "(ins)"}
    lab = Topology()
    a = lab.host("a")
    with lab.deploy():
        assert a.run(["printf", "x"], env=hostile).stdout == "x"
        assert a.run("printf x", env=hostile).stdout == "x"


def test_B10_nodes_use_no_terminals() -> None:
    lab = Topology.single(20)
    with lab.deploy():
        held = []
        for pid in {os.getpid(), *descendants(os.getpid())}:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # the one by which they are listed
                    held.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    assert held
    assert not [path for path in held if "ptmx" in path]


@PING
@pytest.mark.requires("tool:nft")
def test_B14_what_a_bridge_passes_on_is_not_filtered() -> None:
    lab = Topology.single(2)
    drop = {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}
    with lab.deploy() as running:
        assert running.fabric
        running.fabric.nft({"add": {"table": {"family": "inet", "name": "t"}}}, {"add": {"chain": drop}})
        assert lab["h1"].run("ping -c1 -W1 h2").returncode == 0


@PING
def test_B15_a_reply_may_come_back_another_way() -> None:
    lab = Topology(ipv6=False)
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, subnet="10.0.1.0/24")
    lab.link(a, b, subnet="10.0.2.0/24")
    with lab.deploy():
        across = ["ping", "-c1", "-W0.3", "-I", "10.0.2.1", "10.0.1.2"]  # goes out of eth0; the reply comes in by eth1
        assert a.run(across).returncode == 0
        b.network.sysctls({"net.ipv4.conf.all.rp_filter": 1})
        assert a.run(across).returncode != 0, "so it is what the lab has set"


@IP
def test_B16_who_is_to_answer_only_for_the_interface_that_was_asked() -> None:
    lab = Topology(ipv6=False)
    switch, asking, wide = lab.switch("s"), lab.host("asking"), lab.host("wide")
    lab.link(asking, switch, subnet="10.0.0.0/24")
    for number in (2, 3):
        lab.link(wide, switch, addresses={wide: f"10.0.0.{number}"})
    with lab.deploy():
        wide.network.sysctls({"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.arp_announce": 2})
        macs = {each.name: each.mac for each in wide.network.links()}
        for _ in range(4):
            asking.call(_send, "10.0.0.3")
            known = {each.address: each.mac for each in asking.network.neighbours()}
            assert known["10.0.0.3"] == macs["eth1"]
            asking.run("ip neigh flush all", check=True)


def _send(address: str) -> None:
    """Have the kernel find out who has an address, and wait until it knows."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.connect_ex((address, 9))


def test_B19_a_mac_is_given_with_the_interface_so_that_nobody_gives_it_another() -> None:
    lab = Topology.single(1)
    with lab.deploy():
        net_addr_set = "3\n"  # linux/netdevice.h: set by hand; udev leaves that alone
        assert lab["h1"].run("cat /sys/class/net/eth0/addr_assign_type").stdout == net_addr_set
        first = lab["h1"].network.interface("eth0").state.mac
    with lab.deploy():
        assert lab["h1"].network.interface("eth0").state.mac == first, "the same each time"


def test_B22_a_delayed_link_can_hold_all_that_is_under_way() -> None:
    def limit(rate: str | None, delay: str) -> int:
        return shaping.checked(rate, delay, None, None, None, "50ms", "tbf", 1500).limit

    assert limit("1gbit", "200ms") >= 25_000
    assert limit(None, "200ms") >= 25_000, "as fast as a gigabit when nothing is said"
    assert limit("8kbit", "1ms") > 1000, "which is the kernel's own, and too few"


@pytest.mark.requires("userns", "tool:unshare")
def test_B30_stray_files_where_others_keep_networks_disturb_nobody() -> None:
    """ip-netns(8) keeps names in /run/netns; nslab keeps none there, and leaves what there is."""
    script = SNAPSHOT + (
        "import os\ndo('mount -t tmpfs none /run')\nos.mkdir('/run/netns')\nopen('/run/netns/ghost', 'w').close()\n"
        "with nslab.Topology.single(2).deploy() as lab:\n"
        "    found = [each.belongs for each in nslab.discover().namespaces if each.kind == 'net']\n"
        "    print(sum(each.startswith('lab') for each in found), lab.ping_all().lost, os.listdir('/run/netns'))\n"
        "print(os.listdir('/run/netns'))\n"
    )
    done = in_python(script, AS_THE_MACHINE)
    assert done.stdout == "3 [] ['ghost']\n['ghost']\n", done.stderr
