"""nslab run: one command in new namespaces."""

from __future__ import annotations

import contextlib
import os
from typing import Annotated

import typer

from nslab.cli import common
from nslab.container import run as run_command
from nslab.container.listing import find
from nslab.container.mounts import SHORT
from nslab.model import KINDS
from nslab.namespaces.privilege import MapRequest


def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", show_default=False)],
    isolate: Annotated[
        str | None,
        typer.Option(
            "--isolate", "-i", help="Kinds of namespace that are new: 'uts pid', 'all'; all, but those joined, by default."
        ),
    ] = None,
    hostname: Annotated[str | None, typer.Option(help="The host name inside (needs uts).")] = None,
    uid_map: Annotated[
        str, typer.Option(help="'single', 'subordinate', or lines INSIDE:OUTSIDE:COUNT with commas between.")
    ] = "single",
    gid_map: Annotated[str | None, typer.Option(help="The same for groups; as --uid-map where that is a word.")] = None,
    clock: Annotated[list[str], typer.Option(help="Offset of a clock (needs time): monotonic=+1d. May be repeated.")] = [],  # noqa: B006
    rootfs: Annotated[
        str | None, typer.Option(help="Its root: 'machine', 'busybox', a folder, a tar file, an OCI image layout.")
    ] = None,
    mount: Annotated[list[str], typer.Option(help=f"What is mounted besides: {SHORT}. May be repeated.")] = [],  # noqa: B006
    limit: Annotated[list[str], typer.Option(help="What it may use: pids=50, memory=256M, cpu=0.5. May be repeated.")] = [],  # noqa: B006
    join: Annotated[
        list[str], typer.Option(help="Share a kind with a container or a process: net=web, net=4711. May be repeated.")
    ] = [],  # noqa: B006
    loopback: Annotated[bool, typer.Option("--loopback", help="Turn lo on (needs net).")] = False,
    env: common.Env = [],  # noqa: B006
    cwd: common.Cwd = None,
    user: common.User = None,
    timeout: common.Timeout = None,
    tty: common.Tty = None,
    hardened: Annotated[bool, typer.Option("--hardened", help="With what namespaces leave open closed; begins at /.")] = False,
    trace: common.Steps = False,
    shell: common.Script = False,
) -> None:
    """Run a command in new namespaces; when it ends, so does everything that it started.

    Standard streams, signals and the exit status are passed on: nslab run -i 'uts user' --hostname web -- hostname
    """
    joined = _joined(join)
    kinds = [kind for kind in KINDS if kind not in joined and os.path.exists(f"/proc/self/ns/{kind}")]
    with common.starting(command, cwd, trace, shell):
        result = run_command(
            command, isolate=kinds if isolate is None else isolate, hostname=hostname, uid_map=_lines("--uid-map", uid_map),
            gid_map=None if gid_map is None else _lines("--gid-map", gid_map),
            clock=_pairs("--clock", "monotonic=+1d", clock), rootfs=rootfs, mounts=mount,
            limits=_limits(limit), join=joined, loopback=loopback,
            hardened=hardened, attach=True, **common.streams(env, cwd, user, timeout, tty),
        )  # fmt: skip
    common.finish(result)


def _lines(option: str, text: str) -> MapRequest:
    """A map as a word, or lines of three numbers."""
    if ":" not in text:
        return text
    try:
        lines = [tuple(int(number) for number in line.split(":")) for line in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not INSIDE:OUTSIDE:COUNT, as in 0:1000:1", param_hint=option) from None
    return lines


def _pairs(option: str, example: str, words: list[str]) -> dict[str, str]:
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not like {example}", param_hint=option)
    return dict(word.split("=", 1) for word in words)


def _limits(words: list[str]) -> dict[str, int | float | str]:
    """What ``limits=`` takes: numbers as numbers."""
    return {name: _number(text) for name, text in _pairs("--limit", "pids=50", words).items()}


def _number(text: str) -> int | float | str:
    """The number that a word says, or the word."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _joined(words: list[str]) -> dict[str, int]:
    """The kinds that are joined, each with the PID of a member: of a process, or of the container of that name."""
    pairs = _pairs("--join", "net=web", words)
    return {kind: int(who) if who.isdigit() else find(who).pid for kind, who in pairs.items()}
