"""What can keep somebody from making namespaces, each with the command that lifts it.

A check that fails is enough to forbid all; one that is met in part takes something away, or binds others only.
"""

from __future__ import annotations

from collections.abc import Iterator

from nslab.machines.machine import Machine
from nslab.machines.report import Check

# Mount points inside /proc that are empty folders, and hide nothing.
HARMLESS = {"autofs", "binfmt_misc", "nfsd"}


def blockers(machine: Machine) -> Iterator[Check]:
    """The checks of everything that is known to forbid user namespaces or a part of them."""
    yield from _limits(machine)
    yield _apparmor(machine)
    yield from _switch(machine)
    yield from _chroot(machine)
    yield from _seccomp(machine)
    yield from _masked(machine)


def _binding(machine: Machine) -> str:
    """The status of what binds ordinary users only."""
    return "partly" if machine.is_privileged else "no"


def _limits(machine: Machine) -> Iterator[Check]:
    limit = machine.sysctl("user.max_user_namespaces")
    if limit == "0":
        yield Check(
            "max-user-namespaces", _binding(machine), "user.max_user_namespaces is 0: nobody may make a user namespace",
            "as root: sysctl user.max_user_namespaces=15000",
        )  # fmt: skip
    else:
        yield Check("max-user-namespaces", "yes", f"user.max_user_namespaces is {limit or 'not there'}")
    for kind in ("mnt", "uts", "ipc", "pid", "net", "cgroup", "time"):
        name = f"user.max_{kind}_namespaces"
        if machine.sysctl(name) == "0":
            yield Check(
                f"max-{kind}-namespaces", "partly", f"{name} is 0: nobody may make that kind", f"as root: sysctl {name}=15000"
            )


def _apparmor(machine: Machine) -> Check:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    if machine.sysctl(name) != "1":
        return Check("apparmor-userns", "yes", "AppArmor does not restrict user namespaces")
    return Check(
        "apparmor-userns", _binding(machine), f"{name} is 1: AppArmor takes the rights away that ordinary users have inside",
        f"as root: sysctl {name}=0, or a profile with 'userns,' for this Python in /etc/apparmor.d",
    )  # fmt: skip


def _switch(machine: Machine) -> Iterator[Check]:
    name = "kernel.unprivileged_userns_clone"  # of Debian's kernels
    if machine.sysctl(name) == "0":
        yield Check(
            "userns-clone", _binding(machine), f"{name} is 0: ordinary users may not make user namespaces",
            f"as root: sysctl {name}=1",
        )  # fmt: skip


def _chroot(machine: Machine) -> Iterator[Check]:
    if machine.mounts and not any(mount.target == "/" for mount in machine.mounts):
        yield Check(
            "chroot", _binding(machine), "this process was chrooted, and the kernel refuses user namespaces there (EPERM)",
            "start it outside, or enter the folder with pivot_root(8) in a mount namespace, as container runtimes do",
        )  # fmt: skip


def _seccomp(machine: Machine) -> Iterator[Check]:
    if machine.status.get("Seccomp") == "2":
        yield Check(
            "seccomp", "partly", "a seccomp filter binds this process, as in a container; it may refuse unshare and clone",
            "start the container with --security-opt seccomp=unconfined (docker, podman), or seccompProfile: Unconfined",
        )  # fmt: skip
    else:
        yield Check("seccomp", "yes", "no seccomp filter binds this process")
    if machine.status.get("NoNewPrivs") == "1":
        yield Check(
            "no-new-privs", "partly", "no_new_privs is set: newuidmap has no power, so one id inside is all there is",
            "start it without: no-new-privileges (docker), allowPrivilegeEscalation: false, NoNewPrivileges= (systemd)",
        )  # fmt: skip


def _masked(machine: Machine) -> Iterator[Check]:
    if not machine.status:
        yield Check("proc", "no", "there is no /proc, which tells all that nslab knows", "as root: mount -t proc proc /proc")
        return
    covered = [mount.target for mount in machine.mounts if mount.target.startswith("/proc/") and mount.fstype not in HARMLESS]
    if covered:
        some = ", ".join(covered[:3]) + (" ..." if len(covered) > 3 else "")
        yield Check(
            "proc", "partly", f"parts of /proc are covered ({some}), so that no new one can be mounted in a user namespace: "
            "use proc='old', with which ps shows the machine",
            "start the container with --security-opt systempaths=unconfined (docker), --security-opt unmask=ALL (podman)",
        )  # fmt: skip
    else:
        yield Check("proc", "yes", "nothing covers parts of /proc")
