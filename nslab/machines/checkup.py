"""What this machine allows, found out by looking and by trying, with the remedy for what is missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace

from nslab.errors import NslabError, SyscallError
from nslab.machines.blockers import blockers
from nslab.machines.equipment import equipment
from nslab.machines.machine import Machine
from nslab.machines.needs import own_kernel_check
from nslab.machines.report import Check, Report
from nslab.model import KINDS

Probe = Callable[[str], object]
NOT_TRIED = "nothing was tried"
FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL)  # what seccomp filters answer


def doctor(root: str = "/", *, probe: Probe | None = None) -> Report:
    """Look at this machine, try what can be made here, and say what works and what lifts the rest.

    For a test: ``root`` is a folder with the files of another machine, where nothing is tried unless there is a ``probe``: it
    takes a kind, and raises the NslabError with which making such a namespace fails.
    """
    machine = Machine(root)
    if probe is None and root == "/":
        probe = _try
    known = _kinds(machine)
    failed = _trials(known, probe) if probe else {}
    obstacles = [_suspected(check, failed) for check in blockers(machine)]
    own = own_kernel_check(machine)
    verdict = _verdict(machine, known, failed, obstacles, probe is not None)
    if verdict.status == "no" and root == "/":
        verdict = replace(verdict, remedy=f"{_way_out(own)}; or {verdict.remedy}")
    checks = [verdict, _privilege(machine), _kernel(known)]
    if probe:
        checks += [_trial("userns", ("user",), failed), _trial("trial", tuple(known), failed)]
    return Report([*checks, *obstacles, own, *equipment(machine)])


def _way_out(own: Check) -> str:
    """What somebody can do who may do nothing here."""
    if own.status == "yes":
        return "take a Linux kernel of your own, which needs none of this: 'nslab (own kernel)' in Jupyter, or nslab vm shell"
    return f"have a Linux kernel of your own, which needs none of this: {own.remedy}"


def _try(kind: str) -> object:
    from nslab.container import run

    return run(["/bin/true"], isolate=kind, timeout=10, check=True)


def _trials(kinds: list[str], probe: Probe) -> dict[str, NslabError]:
    """The kinds that could not be made, each with the error."""
    failed = {}
    for kind in kinds:
        try:
            probe(kind)
        except NslabError as error:
            failed[kind] = error
    return failed


def _kinds(machine: Machine) -> list[str]:
    """The kinds that the kernel has; all, where there is no /proc to ask."""
    folder = machine.path("proc/self/ns")
    return [kind for kind in KINDS if os.path.exists(f"{folder}/{kind}")] if os.path.isdir(folder) else list(KINDS)


def _kernel(known: list[str]) -> Check:
    missing = [kind for kind in KINDS if kind not in known]
    if not missing:
        return Check("kinds", "yes", f"this kernel has all {len(KINDS)}: {', '.join(KINDS)}")
    lacking = ", ".join(f"{kind} (Linux {KINDS[kind].since})" for kind in missing)
    options = ", ".join(
        f"CONFIG_{'MNT' if kind == 'mnt' else kind.upper()}_NS" for kind in missing if kind not in ("mnt", "cgroup")
    )
    return Check("kinds", "partly", f"this kernel lacks {lacking}", f"a newer kernel, or one built with {options or 'cgroups'}")


def _privilege(machine: Machine) -> Check:
    if machine.is_privileged:
        return Check("privilege", "yes", f"uid {machine.uid} with CAP_SYS_ADMIN: every kind of namespace directly")
    return Check(
        "privilege", "partly", f"uid {machine.uid} without CAP_SYS_ADMIN: a user namespace first, then the other kinds inside"
    )


def _trial(name: str, kinds: tuple[str, ...], failed: dict[str, NslabError]) -> Check:
    wrong = {kind: failed[kind] for kind in kinds if kind in failed}
    if not wrong:
        return Check(name, "yes", f"made and let go: a namespace of the kind{'s' * (len(kinds) > 1)} {', '.join(kinds)}")
    reasons = "; ".join(dict.fromkeys(str(error).splitlines()[0] for error in wrong.values()))
    status = "no" if len(wrong) == len(kinds) else "partly"
    return Check(name, status, f"could not be made: {', '.join(wrong)} ({reasons})", "see the checks that say no or partly")


def _suspected(check: Check, failed: dict[str, NslabError]) -> Check:
    """A seccomp filter is the culprit when user namespaces are refused as a filter refuses."""
    error = failed.get("user")
    if check.name != "seccomp" or check.status == "yes" or not isinstance(error, SyscallError) or error.errno not in FORBIDDEN:
        return check
    return Check(
        check.name, "no", f"a seccomp filter binds this process, and {error.call} was refused with {error.name}", check.remedy
    )


def _verdict(
    machine: Machine, known: list[str], failed: dict[str, NslabError], obstacles: list[Check], tried: bool
) -> Check:  # fmt: skip
    """The one line that most people read: what works here, and if nothing does, what exactly stands in the way."""
    way = "as root" if machine.is_privileged else "as an ordinary user, inside a user namespace"
    blocking = [check for check in obstacles if check.status == "no"]
    nothing = len(failed) == len(known) if tried else bool(blocking)
    if nothing:
        named = ", ".join(check.name for check in blocking)
        reason = f": {named}" if named else f", for a reason unknown: {next(iter(failed.values()))}".splitlines()[0]
        remedy = "; ".join(check.remedy for check in blocking) or "ask for another machine, or for root on this one"
        return Check("isolation", "no", f"neither root nor user namespaces{reason}", remedy)
    working = [kind for kind in known if kind not in failed]
    note = "" if tried else f" ({NOT_TRIED})"
    if len(working) == len(KINDS):
        return Check("isolation", "yes", f"{way}: all {len(KINDS)} kinds{note}")
    return Check("isolation", "partly", f"{way}: {', '.join(working)}{note}", "see the checks that say no or partly")
