"""Labs that are held in the background: by the command line, as a person uses it, and from Python that attaches to them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import Topology
from nslab.labs import bringing, messages, places
from tests.helpers import ROOT, eventually, has_ended, link, pidfd_of, reaches
from tests.test_cli import COMMAND, cli, in_terminal, screen

PING = pytest.mark.requires("tool:ping")
SHOP = """\
name: shop
nodes:
  till: host
  store: host
  s: switch
links:
  - [till, s]
  - [store, s]
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch) -> Iterator[Path]:
    """A runtime folder of the test's own, in which no lab and no socket is left; this user's other labs are not seen."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    yield folder
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))  # a test may have named others
    left = [path.name for path in folder.glob("nslab/*")]
    for name in left:
        bringing.take_down(name)
    assert not left, "a test that brings a lab up ends it"
    assert os.listdir(folder) == []


@contextlib.contextmanager
def up(tmp_path: Path, text: str = SHOP) -> Iterator[dict]:
    """A lab that is held in the background: what its holder says of it."""
    file = tmp_path / "file.yaml"
    file.write_text(text)
    about = bringing.bring_up(Topology.read(file), file=str(file))
    try:
        yield about
    finally:
        bringing.take_down(about["name"])


def network_of(lab: str, node: str) -> str:
    with nslab.attach(lab) as attached:
        return str(attached[node].network.namespace)


def is_gone(network: str) -> bool:
    """Whether no process is in a network namespace any more, and none holds it: as lsns and /proc/PID/fd say."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(f"{path}/fd/{fd}") == network for fd in os.listdir(path / "fd")):
                return False
        except OSError:
            continue
    done = subprocess.run(["lsns", "-n", "-t", "net", "-o", "NS"], capture_output=True, text=True)
    return network[5:-1] not in done.stdout.split()


# -- from the command line --------------------------------------------------------------------------------------------


@PING
def test_up_exec_ls_ping_draw_down(tmp_path) -> None:
    file = tmp_path / "the till.yaml"
    file.write_text(SHOP.replace("name: shop", "ipv6: true"))
    first, *typed = cli("up", str(file)).stdout.splitlines()
    assert first.startswith("the till is up: 2 hosts, 1 switch, 2 links, in ")
    try:
        run = ["sh", "-c", "hostname; cat; readlink /proc/self/ns/net; echo oops >&2; exit 3"]
        done = cli("exec", "till", "--", *run, input="in\n")
        assert (done.stderr, done.returncode) == ("oops\n", 3)
        assert done.stdout.split() == ["till", "in", network_of("the till", "till")]
        (lab,) = json.loads(cli("ls", "--json").stdout)["labs"]
        assert lab["nodes"] == {"till": "host", "store": "host", "s": "switch"}
        assert (lab["name"], lab["file"], lab["links"]) == ("the till", str(file), 2)
        assert "till, store, s" in cli("ls").stdout
        pings = json.loads(cli("ping", "--json").stdout)
        assert [(each["from"], each["to"], each["ms"] > 0) for each in pings] == [
            ("till", "store", True),
            ("store", "till", True),
        ]
        cli("draw", "the till", "-o", str(tmp_path / "shop.svg"))
        assert "<title>" in (tmp_path / "shop.svg").read_text()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        assert len(typed) == 3
        for line in typed:  # what up printed can be typed
            said = subprocess.run(
                ["sh", "-c", line], capture_output=True, text=True, timeout=20, env={**os.environ, "PATH": path}
            )
            assert (said.returncode, said.stderr) == (0, "")
        assert said.stdout == "the till is down\n"
        assert has_gone(lab["pid"])
    finally:
        bringing.take_down("the till")


def has_gone(pid: int) -> bool:
    """Whether a process has ended, be it that its new parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_the_holder_is_a_process_of_its_own(tmp_path, runtime) -> None:
    with up(tmp_path) as about:
        pid = about["pid"]
        assert Path(f"/proc/{pid}/comm").read_text() == "nslab-lab\n"
        assert (
            subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
            == "nslab-lab shop"
        )
        assert os.getsid(pid) == pid, "it has left its terminal and session"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        streams = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
        assert streams == ["/dev/null"] * 3
        (entry,) = (runtime / "nslab").iterdir()
        assert entry.is_socket()
        assert (runtime / "nslab").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "its spawner"])
def test_the_holder_ends_and_nothing_is_left(tmp_path, runtime, how) -> None:
    with up(tmp_path) as about, nslab.attach("shop") as lab:
        network = str(lab["till"].network.namespace)
        sleeper = lab["till"].popen("exec sleep 1000")
        children = Path(f"/proc/{about['pid']}/task/{about['pid']}/children").read_text().split()
        with pidfd_of(about["pid"]) as pidfd, pidfd_of(sleeper.pid) as asleep, pidfd_of(int(children[0])) as watchdog:
            signal.pidfd_send_signal(
                watchdog if how == "its spawner" else pidfd, signal.SIGKILL if how != "SIGTERM" else signal.SIGTERM
            )
            assert has_ended(pidfd)
            assert has_ended(watchdog)
            assert has_ended(asleep), "what others started in it ends, too"
        with pytest.raises(nslab.DeadNamespace, match=r"shop.*is gone"):
            lab["till"].run("true")
        lab.close()
        assert eventually(lambda: is_gone(network))
        assert ((runtime / "nslab").exists()) == (how == "SIGKILL")


def test_B04_a_holder_that_was_killed_is_in_nobodys_way(tmp_path) -> None:
    with up(tmp_path) as about:
        with pidfd_of(about["pid"]) as pidfd:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert has_ended(pidfd)
        assert places.held() == []
        with up(tmp_path) as again, nslab.attach("shop") as lab:
            assert again["pid"] != about["pid"]
            assert lab["till"].run("hostname").stdout == "till\n"


def test_of_two_at_once_one_wins(tmp_path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(SHOP)
    both = [subprocess.Popen([*COMMAND, "up", file], cwd=ROOT, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    said = [(*each.communicate(timeout=30), each.returncode) for each in both]
    (lost,) = [each for each in said if each[2]]
    assert lost[2] == 1
    assert "a lab 'shop' is there already; end it first: nslab down shop" in lost[1]
    assert cli("up", str(file), "--name", "other").returncode == 0
    done = cli("exec", "till", "true")
    assert "may be other/till or shop/till" in done.stderr
    assert cli("exec", "other/till", "hostname").stdout == "till\n"
    done = cli("ping")
    assert (done.returncode, done.stderr) == (1, "nslab: lab: 2 are up, say which: other, shop\n")
    assert json.loads(cli("down", "--all", "--json").stdout) == {"ended": ["other", "shop"]}


def test_a_file_that_cannot_be_is_refused_before_anything_is_made(tmp_path, runtime) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("nodes: {a: hots}")
    done = cli("up", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"nslab: {file}:1:12: nodes.a: 'hots' is none of host, router, nat, switch. Did you mean host?\n"
    assert os.listdir(runtime) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/b", "no '/'"),
        ("x" * 65, "at most 64 bytes"),
        ("-rf", "not begin with '-'"),
        ("", "has no name"),
        ("a\nb", "printable"),
    ],
)
def test_a_name_under_which_no_lab_can_be_held(runtime, name, said) -> None:
    with pytest.raises(nslab.SpecError, match=said):
        bringing.bring_up(Topology(name))
    assert os.listdir(runtime) == []


def test_what_fails_in_the_holder_is_said_and_leaves_nothing(tmp_path, runtime) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("shape: {single: 200}\n")

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))

    done = cli("up", str(file), preexec_fn=few)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nslab: this process may have 200 open files")
    assert os.listdir(runtime) == []


def test_an_interrupt_of_up_leaves_nothing(tmp_path, runtime) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("shape: {single: 400}\n")
    with subprocess.Popen([*COMMAND, "up", file], cwd=ROOT, stdout=-1, stderr=-1, text=True) as process:
        assert eventually((runtime / "nslab/large").exists, 10)
        with contextlib.closing(places.connect("large")) as sock:
            assert sock
            about, _ = messages.ask(sock, "about")
            assert not about["running"], "it is being deployed"
            with pytest.raises(nslab.NslabError, match="being deployed; try again"):
                messages.ask(sock, "lab")
        with pidfd_of(about["pid"]) as pidfd:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) not in (0, None)
            assert has_ended(pidfd, 0), "up has waited for the end of all of it"
    assert os.listdir(runtime) == []


def test_a_holder_that_is_killed_at_any_moment_leaves_nothing(tmp_path) -> None:
    """Of thirty nodes, before, while and after they are deployed; the watchdog ends what is below it."""
    file = tmp_path / "lab.yaml"
    file.write_text("shape: {ring: 15}\n")
    mark = f"NSLAB_TEST_MARK={os.getpid()}"
    moments = random.Random(7)
    for _ in range(3):
        command = [*COMMAND, "up", "--name", "thirty", str(file)]
        env = {**os.environ, mark.partition("=")[0]: mark.partition("=")[2]}
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=-1, stderr=-1, text=True) as process:
            assert eventually(lambda: places.held() or process.poll() is not None, 10)
            (about,) = places.held()
            with pidfd_of(about["pid"]) as pidfd:
                has_ended(pidfd, moments.uniform(0, 0.3))
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                assert has_ended(pidfd)
            _, said = process.communicate(timeout=10)
            assert process.returncode == (1 if said else 0)
            assert not said or "ended before the lab was up" in said
        assert eventually(lambda: not marked(mark)), marked(mark)
        assert places.held() == []


def marked(mark: str) -> list[str]:
    """The processes that have this variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(f"{path.name} {(path / 'comm').read_text().strip()}")
    return found


def test_exec_has_a_terminal_signals_and_a_time_limit(tmp_path) -> None:
    with up(tmp_path):
        with in_terminal("exec", "till", "sh") as (process, master):
            screen(master, b"# ")
            os.write(master, b"tty; stty size; hostname; exit 9\r")
            shown = screen(master, b"till\r\n")
            assert b"/dev/pts/" in shown
            assert b"33 77" in shown
            assert process.wait(10) == 9
        assert cli("exec", "--timeout", "0.2", "till", "sleep", "60").returncode == 124
        assert cli("exec", "till", "no-such-program").returncode == 127
        assert cli("exec", "--env", "A=5", "--cwd", "/etc", "till", "--", "sh", "-c", "echo $A $PWD").stdout == "5 /etc\n"
        done = cli("exec", "s", "true")
        assert (done.returncode, "a bridge in which nothing runs" in done.stderr) == (125, True)
        command = [*COMMAND, "exec", "till", "--", "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            process.terminate()
            assert process.wait(10) == 5


def test_a_container_and_a_node_of_one_name_are_told_apart(tmp_path) -> None:
    name = f"t{os.getpid()}"  # since root sees the containers of others, and so those of another run of this
    with up(tmp_path, SHOP.replace("till", name)), nslab.Container(name, isolate="uts", hostname="contained") as box:
        said = cli("exec", name, "hostname").stderr
        assert f"{name!r} may be shop/{name} or {name!r}, PID {box.pid}: say which" in said
        assert cli("exec", str(box.pid), "hostname").stdout == "contained\n"
        assert cli("exec", f"shop/{name}", "hostname").stdout == f"{name}\n"


@pytest.mark.requires("tool:busybox")
def test_nodes_that_are_containers(tmp_path) -> None:
    name = f"t{os.getpid()}"
    boxes = f"  {name}: {{role: host, isolate: pid mnt, rootfs: busybox}}\n  bare: {{role: host, isolate: pid}}\n"
    text = SHOP.replace("links:", f"{boxes}links:\n  - [{name}, s]\n  - [bare, s]")
    with up(tmp_path, text) as about, nslab.attach("shop") as lab:
        inside = ["sh", "-c", "hostname; cat /etc/hosts; ls /; readlink /proc/self/ns/net"]
        done = cli("exec", name, "--", *inside)
        assert done.stdout.split()[0] == name, done.stderr
        assert "10.0.0.1 bare" in done.stdout or "10.0.0.2 bare" in done.stdout
        assert str(lab.networks[name].namespace) in done.stdout
        assert " ".join(done.stdout.split()).count(" usr ") == 1
        done = cli("exec", "shop/bare", "--", "sh", "-c", "hostname; cat /etc/hosts; echo $$")
        assert done.stdout.split()[0] == "bare"
        assert f"{lab.addresses[name][0]} {name}" in done.stdout
        assert int(done.stdout.split()[-1]) < 100, "a PID of its own PID namespace"
        with pytest.raises(nslab.SpecError, match="container of the process that holds the lab"):
            lab[name].run("true")
        listed = {each["name"]: each for each in json.loads(cli("ls", "--json").stdout)["containers"]}
        assert listed[name]["owner"] == about["pid"]
        with pidfd_of(listed[name]["pid"]) as init:
            lab.destroy()
            assert has_ended(init, 0)


def test_what_is_not_there() -> None:
    done = cli("ping")
    assert (done.returncode, done.stderr) == (1, "nslab: lab: none is up: nslab up FILE.yaml\n")
    assert "no lab 'x' of this user is held in the background; there are: none" in cli("ping", "x").stderr
    done = cli("down", "x")
    assert (done.returncode, done.stderr) == (1, "nslab: no lab 'x' is up\n")
    done = cli("up", "/no/such.yaml")
    assert (done.returncode, done.stderr) == (1, "nslab: /no/such.yaml: cannot be read: No such file or directory\n")
    assert cli("up").returncode == 2


def test_lost_pings_are_status_1(tmp_path) -> None:
    with up(tmp_path), nslab.attach("shop") as lab:
        lab["till"].network.interface("eth0").down()
        done = cli("ping", "--timeout", "0.1")
        assert done.returncode == 1
        assert "0 of 2 pings answered" in done.stdout
        assert "eth0 (down)" in cli("draw", "shop").stdout


def test_a_topology_in_a_file_is_drawn_without_a_lab(tmp_path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    picture = tmp_path / "picture.txt"
    layout = json.loads(cli("draw", str(file), "--json", "-o", str(picture)).stdout)
    assert layout["links"][1]["ends"][0]["addresses"][0] == "10.0.0.2/24"
    assert "10.0.0.2/24" in picture.read_text()


def test_the_tab_key_completes_labs_and_nodes(tmp_path) -> None:
    with up(tmp_path):
        for words, wanted in (("nslab ping s", ["shop"]), ("nslab exec shop/st", ["shop/store"]), ("nslab exec ti", ["till"])):
            env = {**os.environ, "_NSLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
            assert cli(env=env).stdout.split() == wanted


# -- from Python ------------------------------------------------------------------------------------------------------


@PING
def test_an_attached_lab_has_the_face_of_ones_own(tmp_path) -> None:
    text = SHOP + "  - ends: [till, store]\n    subnet: 10.9.0.0/24\n    rate: 10mbit\n"
    with up(tmp_path, text) as about:
        with nslab.attach("shop") as lab:
            till, store = lab["till"], lab["store"]
            assert lab.pid == about["pid"]
            assert till.run("hostname; ls /sys/class/net").lines == ["till", "eth0", "eth1", "lo"]
            assert "ttl=64" in till.run("ping -c1 store").check().stdout
            assert till.call(socket.gethostname) == "till"
            assert till.addresses == ("10.0.0.1", "fd00:0:0:1::1")
            assert lab.ping_all(timeout=5).lost == []
            assert lab.to_python() == Topology.from_yaml(text).to_python()
            assert lab.to_yaml() == text
            assert lab.layout == Topology.from_yaml(text).resolve()
            sleeper = store.popen("exec sleep 1000")
            assert link("net", sleeper.pid) == str(store.network.namespace)
            assert [each.name for each in store.network.links()] == ["lo", "eth0", "eth1"]
            assert lab.interfaces["store", "eth1"].state.addresses[0] == "10.9.0.2/24"
            assert lab.fabric
            assert lab.interfaces["s", "s-1"].state.master == lab.fabric.interface("s").index
            assert "shop" in repr(lab)
            assert "10.9.0.2/24" in lab.draw().text
        assert sleeper.wait(2) == -signal.SIGKILL, "what was started from here ends with the attachment"
        with pytest.raises(nslab.DeadNamespace):
            till.run("true")
        assert cli("exec", "till", "hostname").stdout == "till\n", "and the lab goes on"
        nslab.attach("shop").destroy()
        with pytest.raises(nslab.SpecError, match="no lab 'shop' of this user"):
            nslab.attach("shop")


@PING
def test_an_attached_lab_is_changed_by_its_holder(tmp_path) -> None:
    """Nodes and links come, change and go; what is there afterwards is read by others: a client of its own, and the command."""
    with up(tmp_path), nslab.attach("shop") as lab, nslab.attach("shop") as other:
        topology, till, store = lab.topology, lab["till"], lab["store"]
        space, before = till.network, len(lab.trace)
        late = topology.host("late")
        wire = topology.link(late, store, subnet="10.8.0.0/24", rate="10mbit")
        assert till.network is space, "what stays is as it was"
        assert any(step.call == "RTM_NEWLINK" for step in lab.trace[before:])
        assert "ttl=64" in late.run("ping -c1 10.8.0.2").check().stdout
        assert "ttl=64" in store.run("ping -c1 late").check().stdout, "names too"
        assert cli("exec", "late", "hostname").stdout == "late\n"
        assert "rate 10Mbit" in late.run("tc qdisc show dev eth0").stdout
        wire.unshape()
        assert "tbf" not in late.run("tc qdisc show dev eth0").stdout
        wire.down()
        assert late.run("ping -c1 -W0.05 10.8.0.2").returncode != 0
        wire.up()
        assert "ttl=64" in late.run("ping -c1 10.8.0.2").check().stdout
        sleepers = [each.popen("exec sleep 1000") for each in (late, till)]
        other.refresh()
        left = other["late"].popen("exec sleep 1000")
        lab.topology.remove(late)
        assert sleepers[0].wait(2) == left.wait(2) == -signal.SIGKILL, "whoever started it there"
        assert link("net", sleepers[1].pid) == str(till.network.namespace)
        assert cli("exec", "late", "hostname").returncode != 0
        with nslab.attach("shop") as again:
            assert again.layout == lab.layout == topology.resolve()

        with pytest.raises(nslab.NslabError, match=r"refresh\(\)"):
            other.topology.host("mine")
        assert "mine" not in other.topology
        other.refresh()
        other.topology.host("mine")
        with nslab.attach("shop") as again:
            assert "mine" in again.topology


def test_an_attached_lab_becomes_another(tmp_path) -> None:
    with up(tmp_path) as about, nslab.attach("shop") as lab:
        wanted = Topology.star(3)
        assert lab.apply(wanted)
        assert not lab.apply(wanted), "it is that already"
        assert lab.last.requests == 0
        assert lab.ping_all(timeout=5).lost == []
        assert {node.name for node in lab.topology} == {node.name for node in wanted}
        lab.topology.link("h1", "h2", subnet="10.9.0.0/24")
        with pytest.raises(nslab.SpecError, match="overlap"):
            lab.topology.link("h1", "h3", subnet="10.9.0.128/25")
        with pytest.raises(nslab.NslabError):
            lab.topology.host("there", rootfs=str(tmp_path / "nothing"))
        with nslab.attach("shop") as again:
            assert "there" not in again.topology
        os.kill(about["pid"], signal.SIGKILL)
        with pytest.raises(nslab.DeadNamespace):
            lab.topology.host("late")
        assert not lab.running


def test_an_attached_lab_is_looked_at_as_ones_own(tmp_path) -> None:
    with up(tmp_path), nslab.attach("shop") as lab:
        with lab.capture("till", protocol="TCP") as seen:
            assert lab["till"].call(reaches, lab["store"].addresses[0])
        walk = lab.follow("till", "store", protocol="ICMP")
        assert lab.throughput("till", "store", seconds=0.05).bits > 0
        forward, left = lab["till"].forward(9), lab.capture("s")
    assert len(seen) == 2
    assert [hop.node for hop in walk.of(1)] == ["till", "s", "s", "store"]
    assert not forward.alive
    assert not left.running


def test_bring_up_from_python(tmp_path) -> None:
    told: list[float] = []
    about = bringing.bring_up(Topology.ring(3), progress=told.append)
    assert told == sorted(told)
    assert 0 <= told[0] <= 1
    assert [lab["pid"] for lab in places.held()] == [about["pid"]]
    with nslab.attach("ring") as lab:
        assert lab.ping_all(timeout=5).lost == []
        lab.destroy()
    with pytest.raises(nslab.SpecError, match="has no name"):
        bringing.bring_up(Topology())


def test_a_holder_that_does_not_answer(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(messages, "PATIENCE", 0.1)
    with up(tmp_path) as about, pidfd_of(about["pid"]) as pidfd:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        with pytest.raises(nslab.NslabError, match=f"PID {about['pid']}.*has not answered for 0.1 s"):
            nslab.attach("shop")
        assert bringing.take_down("shop")
        assert has_ended(pidfd, 0)


def test_many_clients_at_once(tmp_path) -> None:
    with up(tmp_path), contextlib.ExitStack() as stack:
        silent = [stack.enter_context(contextlib.closing(connected("shop"))) for _ in range(30)]
        rude = stack.enter_context(contextlib.closing(connected("shop")))
        rude.send(b"no JSON")
        silent[0].send(b"j" + json.dumps({"ask": "nothing that is known"}).encode())
        deaf = silent[1]
        with contextlib.suppress(BrokenPipeError, BlockingIOError):  # asks, and does not read
            deaf.setblocking(False)
            while True:
                messages.send(deaf, {"ask": "lab"})
        found: list[str] = []

        def work(node: str) -> None:
            with nslab.attach("shop") as lab:
                found.append(lab[node].run("hostname").stdout.strip())

        threads = [threading.Thread(target=work, args=(node,)) for node in ("till", "store") * 5]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(found) == ["store"] * 5 + ["till"] * 5


def connected(name: str) -> socket.socket:
    sock = places.connect(name)
    assert sock
    return sock


@pytest.mark.requires("root")
def test_only_the_same_user_is_answered(tmp_path, runtime) -> None:
    """Also where the files would let another one in: the kernel says who asks."""
    shop = str(runtime / "nslab/shop")

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(5)
            sock.connect(shop)
            try:
                sock.send(b'j{"ask": "about"}')
                return sock.recv(1000)
            except OSError:  # it hangs up
                return b""

    with up(tmp_path) as about:
        for path in (tmp_path, runtime, runtime / "nslab"):
            path.chmod(0o755)
        (runtime / "nslab/shop").chmod(0o666)
        assert str(about["pid"]).encode() in ask()
        while tmp_path != tmp_path.parent:  # pytest's own folders are closed to others
            tmp_path.chmod(0o755) if tmp_path.owner() == "root" and tmp_path != Path("/tmp") else None
            tmp_path = tmp_path.parent
        with nslab.process(as_="ordinary") as other:
            assert other.call(ask) == b""
        (runtime / "nslab").chmod(0o700)


@pytest.mark.parametrize("how", ["open", "a symlink", "a file"])
def test_a_folder_that_others_may_have_made_is_not_used(tmp_path, monkeypatch, how) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/no/such/folder")
    monkeypatch.setattr(places, "_paths", lambda: [str(tmp_path / "nslab-0")])
    folder = tmp_path / "nslab-0"
    if how == "open":
        folder.mkdir(mode=0o755)
    elif how == "a symlink":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.touch()
    assert places.held() == []
    with pytest.raises(nslab.NslabError, match="set XDG_RUNTIME_DIR"), places.listening("shop"):
        pass


def test_where_there_is_no_runtime_folder(tmp_path, monkeypatch) -> None:
    """Then it is one of its own among the temporary files; and a variable that names somebody else's is not believed."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    if os.geteuid() == 0:
        os.chown(foreign, 65534, 65534)
    for wrong in ("", "/etc" if os.geteuid() else str(foreign), "relative", str(tmp_path / "none")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", wrong)
        paths = places._paths()
        assert paths[-1].endswith(f"/nslab-{os.geteuid()}")
        assert all(os.stat(os.path.dirname(path)).st_uid in (os.geteuid(), 0) for path in paths)
        assert not [path for path in paths if wrong and path.startswith(wrong)]


def test_these_tests_do_not_see_what_their_user_holds_besides(tmp_path) -> None:
    """Another run of them, or the person who runs them, may have labs where they usually are."""
    file, name = tmp_path / "file.yaml", f"besides-{os.getpid()}"
    file.write_text(SHOP)
    elsewhere = {key: value for key, value in os.environ.items() if key not in ("XDG_RUNTIME_DIR", "TMPDIR")}
    elsewhere["XDG_RUNTIME_DIR"] = "/no/such/folder"
    try:
        assert cli("up", str(file), "--name", name, env=elsewhere).returncode == 0
        assert name in cli("ls", env=elsewhere).stdout
        assert name not in [lab["name"] for lab in places.held()]
    finally:
        assert cli("down", name, env=elsewhere).returncode == 0


def test_an_empty_folder_goes_with_its_last_lab(runtime) -> None:
    with places.listening("a"):
        with places.listening("b"):
            assert sorted(os.listdir(runtime / "nslab")) == ["a", "b"]
            with pytest.raises(nslab.SpecError, match="is there already"), places.listening("a"):
                pass
        assert os.listdir(runtime / "nslab") == ["a"]
    assert os.listdir(runtime) == []
