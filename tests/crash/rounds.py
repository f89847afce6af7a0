"""One round: start a victim, let something die at a random point, and look for what is left two seconds later."""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.crash.held import kill_client, kill_holder
from tests.crash.hosts import Client, Host, Notebook, Plain, User
from tests.crash.oracle import Oracle, Recorded, children, command, descendants, end_everything, name, state

LIMIT = 2.0  # seconds from the death to nothing left


@dataclass
class Outcome:
    way: str
    number: int
    seed: str
    processes: int = 0  # how many there were when it died
    slowest: float = 0.0  # seconds to clean up
    left: list[str] = field(default_factory=list)
    machine: list[str] = field(default_factory=list)  # how its own namespaces differ from before
    midway: bool = False  # in the middle of deploying a lab
    wrong: list[str] = field(default_factory=list)
    doings: list[str] = field(default_factory=list)  # the last ones before the end

    @property
    def ok(self) -> bool:
        return not self.left and not self.machine and not self.wrong


class Round:
    """What the ways to die work with."""

    def __init__(self, way: Way, number: int, seed: str, user: User):
        self.random = random.Random(seed)
        threads = 2 if way.ends and way.host is Plain and self.random.random() < 0.4 else 1
        self.host = way.host(user, seed, threads, way.kill in (interrupt, kill_holder), way.doing)
        self.oracle = Oracle(self.host.mark, self.host.temporary, user.uid)
        self.outcome = Outcome(way.name, number, seed)
        self.way = way

    def play(self) -> Outcome:
        try:
            self.host.start()
            if self.wait():
                self.way.kill(self)
            self.outcome.doings = self.host.doings()
        finally:
            end_everything(self.host.bury)
            self.host.listen(0)
            said = [entry["event"] for entry in self.host.heard]
            self.outcome.midway = said.count("deploying") > said.count("deployed")
            self.oracle.recorded.close()
            self.host.close()
        return self.outcome

    def wait(self) -> bool:
        """Up to the random point: in a quarter of the rounds while it all starts, else in the middle of things."""
        if self.way.doing == "anything" and self.random.random() < 0.25:
            self.host.listen(self.random.uniform(0, 0.35))
            return True
        if not self.host.wait_until_said("ready", timeout=30):
            return self.complain(f"the victim did not start: {(self.host.folder / 'terminal').read_text()[-2000:]}")
        end = time.monotonic() + self.random.uniform(0, 1.3)
        if self.way.doing == "deploy":
            begin, ready = self.host.wait_until_said("deploying", timeout=30), self.host.said("ready")
            if not begin or not ready:
                return self.complain("it deployed once, and not again")
            end = begin["time"] + self.random.uniform(0, ready["took"])
        while (left := end - time.monotonic()) > 0:
            self.host.listen(left)
        if said := self.host.said("wrong"):
            return self.complain(said["text"])
        if said := self.host.said("interrupted"):
            return self.complain(f"{said['error']} before anything was killed")
        return True

    def complain(self, text: str) -> bool:
        self.outcome.wrong.append(text)
        return False

    def complain_of_silence(self) -> None:
        """Say where the victim is in its code, or how it ended."""
        doings, before = self.host.doings(), (self.host.folder / "log").stat().st_size
        letter = state(self.host.pid)[0]
        if letter != "Z":
            os.kill(self.host.pid, signal.SIGUSR2)
            deadline = time.monotonic() + 2
            while (self.host.folder / "log").stat().st_size == before and time.monotonic() < deadline:
                time.sleep(0.01)  # polling: a file
        stack = (self.host.folder / "log").read_text()[before:]
        terminal = (self.host.folder / "terminal").read_text()[-2000:]
        self.complain(f"silent after {' '.join(doings)}, in state {letter}; it had said {self.host.heard}\n{stack}{terminal}")

    # -- looking

    def record(self) -> Recorded:
        """Remember what there is, just before something dies."""
        recorded = self.oracle.record()
        self.outcome.processes = max(self.outcome.processes, len(recorded.fds) - 1)
        return recorded

    def clean_after(self, death: Death, allowed: Callable[[], set[int]] = set) -> None:
        """The same for a death that came while this thread was busy."""
        since, gone = death.wait(10)
        before, self.outcome.slowest = self.outcome.slowest, 0.0
        begin = time.monotonic()
        if self.clean(since, allowed) and self.outcome.slowest < begin + 0.02 - since and gone:
            self.outcome.slowest = gone - since  # nothing was left at the first look
        self.outcome.slowest = max(before, self.outcome.slowest)

    def clean(self, since: float, allowed: Callable[[], set[int]] = set) -> bool:
        """Look until nothing is left, or LIMIT seconds after ``since``; a first look may come later, and find nothing."""
        seen = False
        while True:
            begin = time.monotonic()
            self.host.bury()
            left = self.oracle.left(allowed())
            if not left and seen and begin - since > LIMIT + 0.5:  # a look takes a while
                left = [f"something, until {begin - since:.1f} s later"]
            elif not left:
                self.outcome.slowest = max(self.outcome.slowest, begin - since)
                return True
            seen = True
            if begin - since > LIMIT:
                self.outcome.left += left
                return False
            time.sleep(0.002)  # polling: most of these have no descriptor to wait on

    def helper(self, which: str) -> int:
        """The PID of the victim's watchdog, spawner or borrowed spawner; 0 when there is none within five seconds."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            self.host.listen(0.001)
            for watchdog in children(self.host.pid):
                if "nslab.spawner.watchdog" not in command(watchdog) and name(watchdog) != "nslab-watchdog":
                    continue
                if which == "watchdog":
                    return watchdog
                for spawner in children(watchdog):
                    if name(spawner) not in ("nslab-spawner", name(watchdog)):
                        continue
                    borrowed = [pid for pid in children(spawner) if name(pid) == "nslab-borrowed"]
                    if borrowed and self.random.random() < 0.5:
                        return borrowed[0]
                    return spawner
        return 0

    def expect_recovery(self, timeout: float) -> None:
        """The victim says that nslab works, lets go of everything, and has nothing left."""
        said = self.host.wait_until_said("works", "wrong", timeout=timeout)
        if said and said["event"] == "works":
            said = self.host.wait_until_said("let go", "wrong", timeout=5)
            open_still = dict(said.get("descriptors", {}) if said else {})
            for what in self.way.host.own_descriptors:
                open_still.pop(what, None)
            # An interrupt may come between the system call that opens two and the instruction that keeps them.
            if sum(open_still.values()) > (2 if self.way.kill is interrupt else 0):
                self.complain(f"descriptors left open: {open_still}")
            helpers = children(self.host.pid)
            if self.way.kill is interrupt:  # the handle on a watchdog may be lost too, then Python buries it later
                helpers = [pid for pid in helpers if state(pid)[0] != "Z"]
            if said and helpers:
                self.complain(f"after shutdown() there are still {[f'{name(pid)} {state(pid)}' for pid in helpers]}")
        if not said:
            self.complain_of_silence()

    def helpers(self) -> set[int]:
        """The victim with its watchdog and spawners, and the child that each of those keeps ahead."""
        names = ("nslab-watchdog", "nslab-spawner", "nslab-borrowed", "nslab-standby")
        return {self.host.pid, *(pid for pid in descendants(self.host.pid) if name(pid) in names)}

    def own_helpers(self, old: Recorded) -> set[int]:
        """The victim, and what is below a watchdog that it has started since."""
        new = [pid for pid in children(self.host.pid) if pid not in old.fds and state(pid)[0] != "Z"]
        return {self.host.pid, *new, *(pid for watchdog in new for pid in descendants(watchdog))}


# -- ways to die ------------------------------------------------------------------------------------------------------


def kill_notebook(turn: Round) -> None:
    turn.record()
    since = time.monotonic()
    os.kill(turn.host.pid, signal.SIGKILL)  # our child, not waited for: the number is its own
    turn.clean(since)


def kill_group(turn: Round) -> None:
    number = turn.random.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP))
    died = Death(turn.host.pid, turn.record())
    os.killpg(turn.host.pid, number)
    turn.clean_after(died)


def end_script(turn: Round) -> None:
    """Ctrl-C: Python unwinds, and ends as it does at the end of a script."""
    died = Death(turn.host.pid, turn.record())
    for _ in range(5):  # Python loses one that comes while a finalizer runs: press again
        os.kill(turn.host.pid, signal.SIGINT)
        if died.within(1):
            break
    turn.clean_after(died)


def _kill_helper(turn: Round, which: str) -> None:
    helper = turn.helper(which)
    if not helper:
        turn.complain(f"there is no {which}")
        return
    if not turn.host.said("ready"):
        time.sleep(turn.random.uniform(0, 0.05))  # not to wait for anything: the random point
    recorded = turn.record()
    if helper not in recorded.fds:
        turn.complain(f"the {which} had ended before it was killed")
        return
    since = time.monotonic()
    signal.pidfd_send_signal(recorded.fds[helper], signal.SIGKILL)
    select.select([recorded.fds[helper]], [], [], LIMIT)  # until it has really ended
    if not turn.host.said("ready"):
        turn.host.wait_until_said("ready", timeout=5)
    os.kill(turn.host.pid, signal.SIGUSR1)
    turn.clean(since, lambda: turn.own_helpers(recorded))
    said = turn.host.wait_until_said("works", "wrong", timeout=since + 3 - time.monotonic())
    if not said and turn.own_helpers(recorded) != {turn.host.pid}:
        os.kill(turn.host.pid, signal.SIGINT)  # it waits for something that the new spawner runs
        turn.host.wait_until_said("works", "wrong", timeout=3)
    turn.expect_recovery(0)
    if said := turn.host.said("wrong"):
        turn.complain(said["text"])
    kill_notebook(turn)


def kill_spawner(turn: Round) -> None:
    _kill_helper(turn, "spawner")


def kill_watchdog(turn: Round) -> None:
    _kill_helper(turn, "watchdog")


def interrupt(turn: Round) -> None:
    """The stop button, again and again: what was being made is undone, and what is dropped then is gone."""
    if not turn.host.said("ready") and not turn.host.wait_until_said("ready", timeout=30):
        turn.complain("the victim did not start")
        return
    for _ in range(turn.random.randint(1, 8)):
        turn.host.listen(turn.random.uniform(0, 0.2))
        turn.outcome.processes = max(turn.outcome.processes, len(descendants(turn.host.pid)))
        os.kill(turn.host.pid, signal.SIGINT)
    os.kill(turn.host.pid, signal.SIGUSR1)
    os.kill(turn.host.pid, signal.SIGINT)
    if not turn.host.wait_until_said("dropped", "wrong", timeout=1):
        os.kill(turn.host.pid, signal.SIGINT)  # Python loses one that comes while a finalizer runs: press again
    if not turn.host.wait_until_said("dropped", "wrong", timeout=5):
        turn.complain_of_silence()
    elif said := turn.host.said("dropped"):
        turn.oracle.record()
        turn.clean(said["time"], turn.helpers)
        os.kill(turn.host.pid, signal.SIGUSR1)
        turn.expect_recovery(5)
    if said := turn.host.said("wrong"):
        turn.complain(said["text"])
    kill_notebook(turn)


def restart(turn: Round) -> None:
    assert isinstance(turn.host, Notebook) and turn.host.kernel
    kernel = turn.host.kernel
    died = Death(turn.host.pid, turn.record())
    kernel.restart(now=turn.random.random() < 0.5)
    turn.host.pid = kernel.pid
    turn.clean_after(died, lambda: {kernel.pid})
    cell = kernel.run("import nslab; print(nslab.run('hostname', isolate='uts pid', hostname='again').stdout)", 10)
    if cell.stdout.strip() != "again":
        turn.complain(f"the new kernel cannot: {cell}")
    kill_notebook(turn)


def shut_down_now(turn: Round) -> None:
    _shut_down(turn, now=True)


def shut_down(turn: Round) -> None:
    _shut_down(turn, now=False)


def _shut_down(turn: Round, *, now: bool) -> None:
    assert isinstance(turn.host, Notebook) and turn.host.kernel
    died = Death(turn.host.pid, turn.record())
    turn.host.kernel.shutdown(now=now)
    turn.clean_after(died)


class Death:
    """When a process ends, and when all that was recorded with it has: told by a thread, since others are waited for here."""

    def __init__(self, pid: int, recorded: Recorded):
        self._pid, self._recorded = pid, recorded
        self._died = self._gone = 0.0
        self._done = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        left = dict(self._recorded.fds)
        poll = select.poll()
        for fd in left.values():
            poll.register(fd, select.POLLIN)
        died = left[self._pid]
        end = time.monotonic() + 30
        while left and time.monotonic() < end:
            for fd, _ in poll.poll(1000):
                poll.unregister(fd)
                left = {pid: other for pid, other in left.items() if other != fd}
                if fd == died:
                    self._died = time.monotonic()
                    end = self._died + LIMIT
                    self._done.set()
        self._gone = 0.0 if left else time.monotonic()

    def within(self, timeout: float) -> bool:
        """Whether it dies within so many seconds."""
        return self._done.wait(timeout)

    def wait(self, timeout: float) -> tuple[float, float]:
        """The time of its death, and that of the last of them (0 for not yet)."""
        if not self._done.wait(timeout):
            raise TimeoutError(f"the victim still lived {timeout} s after it had been told to end")
        return self._died, self._gone


@dataclass(frozen=True)
class Way:
    name: str
    host: type[Host]
    kill: Callable[[Round], None]
    ends: bool = True  # whether the victim itself dies
    doing: str = "anything"


WAYS = (
    Way("script: SIGKILL", Plain, kill_notebook),
    Way("kernel: SIGKILL", Notebook, kill_notebook),
    Way("script: spawner", Plain, kill_spawner, ends=False),
    Way("kernel: restart", Notebook, restart),
    Way("script: watchdog", Plain, kill_watchdog, ends=False),
    Way("script: stop button", Plain, interrupt, ends=False),
    Way("kernel: spawner", Notebook, kill_spawner, ends=False),
    Way("script: its group", Plain, kill_group),
    Way("kernel: shutdown now", Notebook, shut_down_now),
    Way("kernel: stop button", Notebook, interrupt, ends=False),
    Way("script: Ctrl-C", Plain, end_script),
    Way("kernel: watchdog", Notebook, kill_watchdog, ends=False),
    Way("kernel: its group", Notebook, kill_group),
    Way("kernel: shutdown", Notebook, shut_down),
    Way("script: in deploy", Plain, kill_notebook, doing="deploy"),
    Way("kernel: in deploy", Notebook, kill_notebook, doing="deploy"),
    Way("lab: its holder", Client, kill_holder, ends=False, doing="hold"),
    Way("lab: a client", Client, kill_client, doing="hold"),
)
