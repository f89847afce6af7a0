"""python -m tests.crash ROUNDS [--seed S] [--json] [--user UID] [--way NAME]: kill things, count what is left."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.crash.hosts import ROOT, User
from tests.crash.oracle import Machine, become_subreaper, end_everything
from tests.crash.rounds import WAYS, Outcome, Round
from tests.elsewhere import AS_NOBODY, NOBODY, Elsewhere


def main() -> int:
    args = arguments()
    say = (lambda *_, **__: None) if args.json else print
    become_subreaper()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What a shell starts in the background ignores them, and so would the victims that are to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    ways = [way for way in WAYS if not args.way or fnmatch(way.name, args.way)]
    outcomes: list[Outcome] = []
    begin = time.monotonic()
    try:
        with user(args.user) as who:
            say(f"{args.rounds} rounds, --seed {args.seed}, {'as uid ' + str(args.user) if args.user else 'as you'}")
            warm_up(who)
            machine = Machine()
            for number in range(args.rounds):
                way = ways[number % len(ways)]
                outcome = Round(way, number, f"{args.seed}/{number}", who).play()
                outcome.machine = machine.changes()
                outcomes.append(outcome)
                failed = sum(not outcome.ok for outcome in outcomes)
                if not outcome.ok:
                    say(f"\n{number}: {way.name}, after {' '.join(outcome.doings)}")
                    say("".join(f"  left: {line}\n" for line in outcome.left), *outcome.wrong, sep="\n")
                    say("".join(f"  machine: {line}\n" for line in outcome.machine))
                say(f"\r{number + 1}/{args.rounds} rounds, {failed} bad, {time.monotonic() - begin:.0f} s ", end="", flush=True)
    except KeyboardInterrupt:
        say("\ninterrupted")
        args.interrupted = True
    finally:
        end_everything()
    rows = table(outcomes)
    bad = [outcome for outcome in outcomes if not outcome.ok]
    if args.json:
        print(json.dumps({"seed": args.seed, "ways": rows, "bad": [vars(outcome) for outcome in bad]}))
    else:
        heads = ("rounds", "left over", "machine differs", "wrong", "slowest", "processes")
        print(f"\n\n{'what died':22}", *(f"{head:>9}" for head in heads))
        for row in rows:
            print("{way:22} {rounds:9} {left:9} {machine:15} {wrong:9} {slowest_ms:6} ms {processes:9}".format(**row))
        if midway := sum(outcome.midway for outcome in outcomes):
            print(f"\n{midway} of these died in the middle of a deploy of thirty nodes.")
    return 1 if bad or args.interrupted or len(outcomes) < args.rounds else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__.partition(": ")[2])
    parser.add_argument("rounds", type=int, help="how many victims to start and kill")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="repeat the random choices of a run")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--user", type=int, metavar="UID", help="as root: victims of this user (65534, for example)")
    parser.add_argument("--way", metavar="PATTERN", help=f"only these: {', '.join(way.name for way in WAYS)}")
    args = parser.parse_args()
    args.interrupted = False
    if args.user is not None and os.geteuid() != 0:
        parser.error("--user needs root")
    if args.way and not any(fnmatch(way.name, args.way) for way in WAYS):
        parser.error(f"no way to die is called {args.way}")
    return args


@contextlib.contextmanager
def user(uid: int | None) -> Iterator[User]:
    """Oneself, or another user with a copy of the checkout that he can read."""
    if not uid:
        yield User.oneself()
        return
    with contextlib.closing(Elsewhere(ROOT)) as elsewhere:
        command, env = elsewhere.command(Path(sys.executable), [])
        python = [word.replace(str(NOBODY), str(uid)) for word in command[: len(AS_NOBODY)]] + command[len(AS_NOBODY) :]
        yield User(python, env, elsewhere.copy, uid)


def warm_up(who: User) -> None:
    """Have the kernel load what it loads for a first lab: with a module come sysctls."""
    code = "import nslab; nslab.Topology.star(2).deploy().destroy(); nslab.Topology.single(2).deploy().destroy()"
    subprocess.run([*who.python, "-c", code], cwd=who.checkout, env={**who.env}, check=True)


def table(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """A row for each way to die, and one for all."""
    groups = [(way.name, [outcome for outcome in outcomes if outcome.way == way.name]) for way in WAYS]
    return [
        {
            "way": title,
            "rounds": len(group),
            "left": sum(bool(outcome.left) for outcome in group),
            "machine": sum(bool(outcome.machine) for outcome in group),
            "wrong": sum(bool(outcome.wrong) for outcome in group),
            "processes": round(sum(outcome.processes for outcome in group) / len(group)),  # when it died, on average
            "slowest_ms": round(1000 * max(outcome.slowest for outcome in group)),
        }
        for title, group in [*groups, ("all", outcomes)]
        if group
    ]


if __name__ == "__main__":
    sys.exit(main())
