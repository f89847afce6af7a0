"""What a client of a held lab does until it, or the holder, is killed: up, attach, run, change, look, let go, down."""

from __future__ import annotations

import gc

import nslab
from nslab.labs import bringing, places
from tests.crash.held import NAME
from tests.crash.victim import FOREVER, Actions


class Holding(Actions):
    """As a person does with `nslab up` and so on, from Python: the holder is a process of its own and outlives this one."""

    broken = (nslab.NslabError,)

    def act(self) -> str:
        """Do something with the lab, which is brought up if it is not there; the name of that."""
        name = self.random.choice([name for name in dir(self) if name.startswith("hold_")])
        if not places.held():
            self.bring_up()
        getattr(self, name)()
        if len(self.kept) > 3:
            self.kept.pop(0).close()
        return name

    def bring_up(self) -> None:
        topology = self.random.choice([nslab.Topology.ring(3), nslab.Topology.star(6), nslab.Topology.tree(depth=2, fanout=2)])
        topology.name = NAME
        bringing.bring_up(topology)

    def attached(self) -> nslab.labs.AttachedLab:
        lab = nslab.attach(NAME)
        if self.random.random() < 0.5:
            self.kept.append(lab)
        return lab

    def hold_run(self) -> None:
        lab = self.attached()
        lab["h1"].popen(self.litter() + f"\n{FOREVER}")
        lab["h1"].run(self.litter("cat /etc/hosts"))

    def hold_look(self) -> None:
        lab = self.attached()
        lab.capture("h1")
        lab.ping_all(timeout=0.05)

    def hold_change(self) -> None:
        lab = self.attached()
        for number in range(self.random.randint(1, 3)):
            name = f"late{number}"
            if name in {node.name for node in lab.topology}:
                lab.topology[name].remove()
                continue
            isolated = self.random.random() < 0.5  # then it is entered by its holder only
            late = lab.topology.host(name, isolate="pid mnt" if isolated else ())
            lab.topology.link(late, lab.topology["h1"], rate="10mbit")
            if not isolated:
                lab[name].popen(self.litter() + f"\n{FOREVER}")

    def hold_leave(self) -> None:
        with nslab.attach(NAME) as lab:
            lab["h1"].popen(self.litter() + f"\n{FOREVER}")

    def hold_down(self) -> None:
        if self.random.random() < 0.5:
            self.attached().destroy()
        else:
            bringing.take_down(NAME)

    def drop(self) -> None:
        super().drop()
        gc.collect()
        bringing.take_down(NAME)

    def works(self) -> None:
        self.bring_up()
        with nslab.attach(NAME) as lab:
            assert lab["h1"].run("hostname", timeout=5).stdout == "h1\n"
        assert bringing.take_down(NAME)
