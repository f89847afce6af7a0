"""What besides permission there has to be: cgroup controllers, programs, subordinate ids, inotify instances."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator

from nslab import procfs
from nslab.container import limits
from nslab.errors import Unavailable
from nslab.machines.machine import Machine
from nslab.machines.report import Check
from nslab.namespaces import privilege

CONTROLLERS = ("pids", "memory", "cpu")
TOOLS = (
    ("busybox", "busybox-static", "the root filesystem 'busybox'"),
    ("bash", "bash", "cells with %%ns"),
    ("zstd", "zstd", "images and archives that it has compressed"),
    ("slirp4netns", "slirp4netns", "a lab's way out of the machine"),
    ("unshare", "util-linux", "the shell scripts that trace.shell() prints"),
)


def equipment(machine: Machine) -> Iterator[Check]:
    for controller in CONTROLLERS:
        yield _controller(machine, controller)
    yield from _id_maps(machine)
    yield from _watches(machine)
    for tool, package, use in TOOLS:
        if machine.find(tool):
            yield Check(tool, "yes", f"{tool} is here, for {use}")
        else:
            yield Check(tool, "partly", f"{tool} is not here; it is needed for {use}", f"apt-get install {package}")


def _controller(machine: Machine, name: str) -> Check:
    """Whether limits= could be held here: what it would do itself, without making anything."""
    try:
        return Check(f"cgroup.{name}", "yes", f"v2, in {limits.place((name,), machine.root)}")
    except Unavailable as error:
        return Check(f"cgroup.{name}", "partly", " ".join(error.requirement.split()), error.how_to_get_it)
    except OSError as error:
        return Check(
            f"cgroup.{name}", "partly", f"not known: {error}", "as root: mount -t proc proc /proc, which shows cgroups"
        )


def _id_maps(machine: Machine) -> Iterator[Check]:
    use = "more than one id in a user namespace, without being root"
    missing = [tool for tool in ("newuidmap", "newgidmap") if not machine.find(tool)]
    if missing:
        yield Check(
            "newuidmap", "partly", f"{' and '.join(missing)} not here; needed for {use}", "as root: apt-get install uidmap"
        )
    elif not _has_power(machine.find("newuidmap")):
        yield Check(
            "newuidmap", "partly", f"newuidmap is neither setuid nor has file capabilities; needed for {use}",
            "as root: chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap, on a filesystem mounted without nosuid",
        )  # fmt: skip
    else:
        yield Check("newuidmap", "yes", f"newuidmap is here, for {use}")
    ranges = privilege.subordinate("uid", machine.path("etc"))
    if ranges:
        text = ", ".join(f"{count} from {first}" for first, count in ranges)
        yield Check("subordinate-ids", "yes", f"subordinate uids: {text}")
    elif not machine.is_privileged:
        yield Check(
            "subordinate-ids", "partly", "this user has no subordinate ids: one id inside is all there is",
            f"as root: {_give_subordinate_ids()}",
        )  # fmt: skip


def _watches(machine: Machine) -> Iterator[Check]:
    """How much is left of what ends as "too many open files" while there are few: instances of inotify(7), counted by user."""
    most = int(machine.sysctl("fs.inotify.max_user_instances") or 0)
    if not most:
        return
    used = sum(_instances(f"{machine.proc}/{pid}") for pid in procfs.pids(machine.proc))
    finding = f"{used} of {most} inotify instances of this user are in use"
    if used * 10 > most * 9:
        yield Check(
            "inotify", "partly", f"{finding}; past that, programs say 'Too many open files'",
            f"as root: sysctl fs.inotify.max_user_instances={max(1024, 2 * most)}",
        )  # fmt: skip
    else:
        yield Check("inotify", "yes", finding)


def _instances(process: str) -> int:
    """Those of one process of this user."""
    count = 0
    with contextlib.suppress(OSError):  # it has ended
        for fd in os.listdir(f"{process}/fd") if os.stat(process).st_uid == os.geteuid() else ():
            with contextlib.suppress(OSError):  # it has closed this one
                count += os.readlink(f"{process}/fd/{fd}") == "anon_inode:inotify"
    return count


def _give_subordinate_ids() -> str:
    """The command for this user, who may have no name."""
    try:
        return f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"echo {os.getuid()}:100000:65536 | tee -a /etc/subuid /etc/subgid"


def _has_power(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_ISUID or "security.capability" in os.listxattr(path))
    except OSError:
        return False
