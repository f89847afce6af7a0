"""What a victim does until it is killed: make, enter, leave and forget, at random, with daemons in everything.

    python -m tests.crash.victim FOLDER SEED THREADS INTERRUPTED DOING

It talks through two FIFOs in FOLDER: "events", of lines of JSON. On SIGUSR1, which follows the death of a helper, it
ends what it is at, checks that nslab works again, lets go of everything, and waits for its own death. With INTERRUPTED
a Ctrl-C ends what it is at and no more, and at the first SIGUSR1 it drops everything. With DOING "deploy" it deploys a lab of
thirty nodes and destroys it, again and again, and says how long that took the first time and when it begins and ends.
With "hold" it is a client of a lab that another process holds (tests.crash.holding).
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import nslab
import nslab.spawner
from nslab import ipc, network
from nslab.container import Namespaces, listing
from nslab.topology.lab import Lab
from tests.helpers import reaches

KINDS = [kind for kind in ("mnt", "uts", "ipc", "net", "user", "cgroup", "time") if os.path.exists(f"/proc/self/ns/{kind}")]

DAEMON = "(setsid sh -c '(sleep 1001 &); exec sleep 1002' &)"
CHAIN = """S='sleep 0.01; setsid sh -c "$0" "$0" & exit'; sh -c "$S" "$S" &"""  # each one starts the next, and ends
STUBBORN = """setsid sh -c 'trap "" TERM INT HUP QUIT; while :; do sleep 1003; done' &"""
NESTED = "unshare --user --pid --fork sh -c 'sleep 1004 & sleep 1005' &"
ADOPTS = (
    f"setsid {sys.executable} -I -S -c 'import ctypes, os, time\n"
    "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"  # PR_SET_CHILD_SUBREAPER: a process that takes its grandchildren itself
    "if os.fork() == 0:\n if os.fork() == 0: time.sleep(1006)\n os._exit(0)\n"
    "time.sleep(1007)' &"
)
LITTER = (DAEMON, CHAIN, STUBBORN, NESTED, ADOPTS, "nohup sleep 1008 >/dev/null 2>&1 &", "true")
TMPFS = "mount -t tmpfs none /mnt && echo text > /mnt/file"
ROOTS: list[Any] = ["machine"]
SYSV = "ipcmk -M 4096; ipcmk -Q; ipcmk -S 2"
FOREVER = "sleep 1009"
WAY_OUT = bool(shutil.which("slirp4netns")) and os.access("/dev/net/tun", os.R_OK | os.W_OK)


def descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[re.sub(r":\[\d+\]$", "", os.readlink(f"/proc/self/fd/{name}"))] += 1
    return found


class Actions:
    """One thread's doings."""

    broken: tuple[type[Exception], ...] = (nslab.SpawnerError, nslab.DeadNamespace)  # what it gets when a helper was killed

    def __init__(self, seed: str, halting: threading.Event):
        self.random = random.Random(seed)
        self.halting = halting
        self.kept: list[Any] = []

    def act(self) -> str:
        """Do something; its name."""
        names = [name for name in dir(self) if name.startswith("do_")]
        name = self.random.choice(names)
        getattr(self, name)()
        if len(self.kept) > 6:
            forgotten = self.random.choice(self.kept)
            self.kept = [thing for thing in self.kept if thing is not forgotten]  # some are kept twice
            if self.random.random() < 0.5 and hasattr(forgotten, "close"):
                forgotten.close()
        return name

    def drop(self) -> None:
        """Let go of everything."""
        self.kept.clear()

    def works(self) -> None:
        """See whether new work is done, by new helpers."""
        answer = nslab.run("hostname; id -u", isolate="uts pid", hostname="again", timeout=5)
        assert answer.lines == ["again", "0"], answer
        assert nslab.process().gethostname() == os.uname().nodename

    def kinds(self, *needed: str) -> list[str]:
        pid = ["pid"] if self.random.random() < 0.5 else []
        return sorted({*needed, *pid, *self.random.sample(KINDS, self.random.randint(1, 3))})

    def litter(self, *first: str) -> str:
        return "\n".join([*first, *self.random.sample(LITTER, 2), "true"])

    def container(self, *needed: str) -> Any:
        made = nslab.Container("victim", isolate=self.kinds(*needed))
        if self.random.random() < 0.5:
            self.kept.append(made)
        return made

    def do_run(self) -> None:
        nslab.run(self.litter(), isolate=self.kinds(), stream=lambda text, name: None)

    def do_run_in_vain(self) -> None:
        with contextlib.suppress(nslab.CommandTimeout):
            nslab.run(self.litter() + f"\n{FOREVER}", isolate=self.kinds(), timeout=0.02)

    def do_run_for_ever(self) -> None:
        if self.random.random() < 0.3:
            nslab.run(self.litter() + f"\n{FOREVER}", isolate=self.kinds())

    def do_mount(self) -> None:
        self.container("mnt").run(self.litter(TMPFS))

    def do_network(self) -> None:
        """Networks that only descriptors hold, with a wire between them, and litter in one."""
        near, far = network.create_many(2)
        self.kept += [near, far]
        with network.batch():
            bridge = far.bridge("br0")
            for number in range(5):
                near.veth(f"a{number}", far, f"b{number}", other_master=bridge)[0].address(f"10.0.{number}.1/24")
        near.run(self.litter())

    def do_capture(self) -> None:
        """What passes a wire, heard by a thread of the notebook."""
        near, far = network.create_many(2)
        near.veth("eth0", far, "eth0")[0].address("10.0.0.1/24")
        self.kept += [near, near.capture("eth0")]
        near.call(reaches, "10.0.0.2", 0.01)
        with far.capture(protocol="ARP") as seen:
            far.run(self.litter())
        len(seen)

    def do_forward(self) -> None:
        """A port of the machine's loopback, and connections that go nowhere."""
        box = self.container("net")
        forward = box.forward(8080)
        self.kept.append(forward)
        with contextlib.suppress(OSError):
            self.kept.append(socket.create_connection(forward.address, 1))

    def root(self) -> Any:
        return self.random.choice(ROOTS)

    def do_root(self) -> None:
        """A root filesystem and mounts, full of what is written there."""
        mounts = self.random.sample(["tmpfs:/a/b", "/etc:/b:ro", "overlay:/etc:/c", nslab.Bind("/dev/null", "/d")], 2)
        hardened = self.random.random() < 0.3
        box = nslab.Container("root", isolate=self.kinds("mnt"), rootfs=self.root(), mounts=mounts, hardened=hardened)
        self.kept.append(box)
        box.run(self.litter("echo text > /new; mkdir /b2; echo text > /c/new"))

    def do_idmapped(self) -> None:
        if os.geteuid() == 0:
            with contextlib.suppress(nslab.Unavailable):  # a kernel that cannot map a tmpfs
                mounts = [nslab.Bind("/dev/shm", "/mnt", idmap=[(0, 1000, 1)])]
                self.kept.append(nslab.Container("idmapped", isolate=self.kinds("mnt"), mounts=mounts))

    def do_one_in_a_root(self) -> None:
        nslab.run(
            self.litter("echo text > /new"), isolate=self.kinds("mnt"), rootfs=self.root(), tty=self.random.random() < 0.5
        )

    def do_copy(self) -> None:
        box = nslab.Container("copy", isolate=self.kinds("mnt"), rootfs=self.root())
        box.copy_in(os.path.dirname(nslab.__file__), "/tmp/copied")
        with contextlib.suppress(nslab.SpecError):
            box.copy_out("/nowhere", "/tmp")

    def do_system_v(self) -> None:
        self.container("ipc").run(self.litter(SYSV), check=True)

    def do_share(self) -> None:
        """Objects in the machine's own IPC namespace, of a container and of a steered process."""
        box = nslab.Container("sharing", isolate="uts")
        process = nslab.process()
        for call in (box.call, process.call):
            call(ipc.SharedMemory.create)
            call(ipc.Semaphores.create)
            call(ipc.MessageQueue.create)
        self.kept += [box, process]

    def do_join(self) -> None:
        web = self.container()
        shared = self.random.sample(web.kinds, self.random.randint(1, len(web.kinds)))
        new = [kind for kind in self.kinds() if kind not in shared]
        beside = nslab.Container("beside", isolate=new, join={" ".join(shared): web})
        beside.popen(self.litter() + f"\n{FOREVER}")
        if "pid" not in shared:  # else it ends with the init of the other
            self.kept.append(beside)
        nslab.run(self.litter(), isolate=new, join={" ".join(shared): beside}, stream=lambda text, name: None)

    def do_look(self) -> None:
        """A process enters what this one has made, one namespace after the other."""
        nslab.discover(os.getpid())

    def do_create(self) -> None:
        made = nslab.create([kind for kind in self.kinds("ipc") if kind != "pid"])
        made.run(self.litter(SYSV))
        made["ipc"].popen(self.litter() + f"\n{FOREVER}")
        self.kept += [made, made.popen(FOREVER)]

    def do_deploy(self) -> None:
        """Nodes without processes, but for what runs in them."""
        lab = self.random.choice([nslab.Topology.tree(depth=2, fanout=2), nslab.Topology.ring(3)])
        self.kept.append(lab.deploy())
        lab["h1"].popen(self.litter() + f"\n{FOREVER}")
        lab["h2"].run(self.litter("cat /etc/hosts"))
        if self.random.random() < 0.3:
            self.kept.append(lab.capture("h1"))
            lab["h1"].forward(8080)
        if self.random.random() < 0.1:
            lab.follow("h1", "h2")
        if self.random.random() < 0.3:
            lab.ping_all(timeout=0.05)
        elif self.random.random() < 0.3:
            lab.destroy()

    def do_change(self) -> None:
        """A lab that changes while it is up, with nodes that are containers, and where this user can with a way out."""
        lab = nslab.Topology("changes")
        nat, s1 = lab.nat("nat", internet=WAY_OUT and self.random.random() < 0.5), lab.switch("s1")
        lab.link(nat, s1)
        lab.link(lab.host("h1", isolate=self.kinds("pid")), s1)
        self.kept.append(lab.deploy())
        lab["h1"].popen(self.litter() + f"\n{FOREVER}")
        for number in range(self.random.randint(1, 3)):
            late = lab.host(f"h{number + 2}", hardened=self.random.random() < 0.2)
            late.popen(FOREVER)
            wire = lab.link(late, self.random.choice((nat, s1)), rate="10mbit")
            self.random.choice((wire.down, wire.unshape, wire.remove, late.remove, lambda: None))()
        if self.random.random() < 0.3:
            lab.apply(nslab.Topology.single(2))
        elif self.random.random() < 0.3:
            nat.remove()

    def do_leave(self) -> None:
        with nslab.Container("left", isolate=self.kinds()) as box:
            box.popen(self.litter(FOREVER))
            box.run(self.litter())

    def do_forget(self) -> None:
        nslab.Container("forgotten", isolate=self.kinds()).popen(self.litter() + f"\n{FOREVER}")

    def do_harden(self) -> None:
        box = nslab.Container("hard", hardened=True)
        box.popen(self.litter(FOREVER))
        box.run(self.litter())
        if self.random.random() < 0.5:
            self.kept.append(box)

    def do_popen(self) -> None:
        box = self.container()
        command = box.popen(self.litter() + f"\nexec {FOREVER}")
        self.kept.append(command)
        if self.random.random() < 0.3:
            command.kill()
        elif self.random.random() < 0.2:
            command.wait()

    def do_pause(self) -> None:
        """With cgroup v2 that makes a cgroup, which has to go too."""
        box = self.container()
        self.kept.append(box)
        box.popen(self.litter(FOREVER))
        with contextlib.suppress(nslab.DeadNamespace):
            box.pause()
            if self.random.random() < 0.5:
                box.resume()

    def do_wait_in_vain(self) -> None:
        with contextlib.suppress(nslab.CommandTimeout):
            self.container().wait_for(path="/nowhere", timeout=0.02)

    def do_limit(self) -> None:
        with contextlib.suppress(nslab.Unavailable):
            self.kept.append(nslab.Container("limited", isolate=self.kinds(), limits={"pids": 100}))
            self.kept[-1].popen(self.litter(FOREVER))

    def do_enter(self) -> None:
        boxes = [thing for thing in self.kept if isinstance(thing, nslab.Container)]
        for box in [box for box in boxes if getattr(box, "finished", True) and not box.paused][:2]:
            box.run(self.litter())
            box.call(os.getpid)

    def do_enter_for_ever(self) -> None:
        if self.random.random() < 0.3:
            self.container().run(self.litter() + f"\n{FOREVER}")

    def do_attach(self) -> None:
        """In a thread of its own, which gets no signals: what is attached would take those that this process waits for."""
        tty = self.random.random() < 0.5
        self.aside(lambda: nslab.run(self.litter(), isolate=self.kinds(), attach=True, tty=tty))

    def do_enter_from_elsewhere(self) -> None:
        with nslab.Container("elsewhere", isolate=self.kinds()) as box:
            found = next((each for each in listing.listed() if each.pid == box.pid), None)
            if found is None:  # the round itself complains when nothing has been killed by now
                raise nslab.DeadNamespace("it or its watchdog was killed meanwhile")
            self.aside(lambda: listing.enter(found, self.litter()))

    def aside(self, action: Callable[[], object]) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(action).result()

    def do_steer(self) -> None:
        process = nslab.process()
        kinds = self.kinds("ipc", "mnt")
        process.unshare(kinds)
        if "pid" in kinds or self.random.random() < 0.5:
            process = process.fork()
        process.run(self.litter(SYSV))
        process.run(self.litter(TMPFS))
        self.kept.append(process)
        if self.random.random() < 0.2:
            process.run(FOREVER)

    def do_fork(self) -> None:
        process = nslab.process(as_="ordinary" if self.random.random() < 0.3 else None)
        self.kept += [process, process.fork(), process.fork().fork()]

    def do_nest(self) -> None:
        """An init below an init below ...: each ends only when all that is below has been buried."""
        process = nslab.process()
        for _ in range(self.random.randint(1, 4)):
            process = process.fork("pid mnt")
        process.run(self.litter(TMPFS))
        self.kept.append(process)
        outer = nslab.Container("outer", isolate=self.kinds("pid"))
        around = {kind: outer for kind in ("user", "pid") if kind in outer.kinds}
        nested = nslab.Container("nested", isolate="pid", join=around)
        nested.outer = outer  # with whom it would end
        self.kept.append(nested)
        nested.run(self.litter())

    def do_step(self) -> None:
        stepper = nslab.Stepper(isolate=self.kinds())
        self.kept.append(stepper)
        for _ in range(self.random.randint(0, 3)):
            if not stepper.finished:
                stepper.step()


def thirty() -> nslab.Topology:
    """Six routers in a ring, on each a switch with three hosts, and some links slow."""
    lab = nslab.Topology("thirty")
    routers = [lab.router(f"r{number}") for number in range(6)]
    for number, router in enumerate(routers):
        lab.link(router, routers[number - 1], rate="10mbit")
        switch = lab.switch(f"s{number}")
        lab.link(router, switch)
        for host in range(3):
            lab.link(lab.host(f"h{number}{host}"), switch)
    return lab


class Victim:
    def __init__(self, folder: str, seed: str, threads: int, interrupted: bool, actions: type[Actions] = Actions):
        self.actions = actions
        self.events = os.open(Path(folder, "events"), os.O_WRONLY | os.O_CLOEXEC)
        made = [path for path in (Path(folder, "roots", name) for name in ("tree", "lowest.tar", "image")) if path.exists()]
        ROOTS.extend([*made, "busybox"] if made else [])
        self.log = open(Path(folder, "log"), "a", buffering=1)  # noqa: SIM115
        self.halting = threading.Event()
        self.seed, self.threads, self.interrupted = seed, threads, interrupted

    def say(self, event: str, **facts: Any) -> None:
        os.write(self.events, json.dumps({"event": event, "time": time.monotonic(), **facts}).encode() + b"\n")

    def live(self) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: self.halting.set())
        faulthandler.register(signal.SIGUSR2, file=self.log, all_threads=False)  # where it hangs
        if self.interrupted:
            signal.signal(signal.SIGINT, self.on_interrupt)
        before = descriptors()
        self.say("ready")
        others = [self.actions(f"{self.seed}:{number}", self.halting) for number in range(1, self.threads)]
        for other in others:
            threading.Thread(target=self.go_on, args=(other,), daemon=True).start()
        mine = self.actions(self.seed, self.halting)
        if not self.go_on(mine):
            return
        if self.interrupted:
            mine.drop()
            gc.collect()
            self.halting.clear()
            self.say("dropped")
            while not self.halting.wait(1):
                pass
        try:
            self.recover(mine)
            self.say("works")
            del mine
            gc.collect()
            nslab.spawner.shutdown()
            gc.collect()
            self.say("let go", descriptors=dict(descriptors() - before))
        except Exception:
            self.say("wrong", text=traceback.format_exc()[-2000:])
        while True:
            signal.pause()

    def deploy_for_ever(self) -> None:
        lab = thirty()
        lab.deploy().destroy()  # all is loaded now
        begin = time.monotonic()
        lab.deploy()
        self.say("ready", took=time.monotonic() - begin)
        while True:
            lab.destroy()
            self.say("deploying")
            lab.deploy()
            self.say("deployed")

    def on_interrupt(self, _: int, frame: FrameType | None) -> None:
        """KeyboardInterrupt in what an action does: this script's own code is not what is looked at."""
        while frame:
            if frame.f_code is self.actions.act.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    def go_on(self, actions: Actions) -> bool:
        """Act until it is time to halt; False if something went wrong."""
        while not self.halting.is_set():
            try:
                done = actions.act()
                self.log.write(f"{done}\n")
            except actions.broken as error:
                self.say("interrupted", error=f"{type(error).__name__}: {error}")
                if not self.halting.wait(5):
                    self.say("wrong", text=traceback.format_exc()[-2000:])
                    return False
            except KeyboardInterrupt:
                if not self.halting.is_set() and not self.interrupted:
                    raise
            except Exception:
                self.say("wrong", text=traceback.format_exc()[-2000:])
                return False
        return True

    def recover(self, actions: Actions) -> None:
        """After a helper died: new work is done by a new one; what was made before is dead, and says so."""
        actions.works()
        for thing in actions.kept:
            try:
                if isinstance(thing, nslab.Container | Namespaces | network.Network):  # our descriptors hold the last two
                    thing.run("true", timeout=5)
                elif isinstance(thing, Lab):
                    thing["h1"].run("true", timeout=5)
                elif isinstance(thing, nslab.Process):
                    thing.getpid()
                elif hasattr(thing, "wait"):
                    thing.wait(1)
            except nslab.CommandTimeout:
                assert thing._child.spawner.alive, "what the one that died ran has ended, and says so"
            except (nslab.SpawnerError, nslab.DeadNamespace, nslab.SpecError):
                pass
            ends = [getattr(thing, name) for name in ("close", "destroy", "end", "stop") if hasattr(thing, name)]
            for end in ends[:1]:  # a socket or a capture too; not all have one
                end()
        actions.kept.clear()


def main(folder: str, seed: str, threads: int, interrupted: int, doing: str) -> None:
    if doing == "hold":
        from tests.crash.holding import Holding

        Victim(folder, seed, threads, bool(interrupted), Holding).live()
    victim = Victim(folder, seed, threads, bool(interrupted))
    if doing == "deploy":
        victim.deploy_for_ever()
    victim.live()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
