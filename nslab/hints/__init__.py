"""Errors that teach: what an errno means for this call, for this caller, at this moment.

``explain()`` runs in the process that failed, right after it did, and may look at /proc/self. Every hint says the rule,
the fact that broke it, and what to do. An empty string means that the errno says it all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nslab.hints import files, mounts, namespaces, processes
from nslab.hints.ipc import explain_ipc


def explain(call: str, errno: int, **facts: Any) -> str:
    """The hint for ``call`` having failed with ``errno``; ``facts`` are the raw arguments by name."""
    if call.startswith("RTM_"):
        from nslab.hints.network import explain_network  # the spawner has no need of it

        return explain_network(call, errno, **facts)
    rule = _RULES.get(call)
    try:
        return rule(errno, **facts) if rule else explain_ipc(call, errno, **facts)
    except (OSError, ValueError, KeyError):  # /proc hidden or masked: no facts, no hint
        return ""


_RULES: dict[str, Callable[..., str]] = {
    "unshare": namespaces.unshare,
    "clone3": namespaces.new,
    "clone": namespaces.new,
    "setns": namespaces.setns,
    "open": namespaces.opened,
    "sethostname": namespaces.sethostname,
    "setdomainname": namespaces.sethostname,
    "fork": processes.fork,
    "execve": processes.execve,
    "posix_spawn": processes.execve,
    "setgroups": processes.setgroups,
    "setresuid": processes.setid,
    "setresgid": processes.setid,
    "keyctl": processes.keyctl,
    "seccomp": processes.seccomp,
    "mount": mounts.mount,
    "openat2": mounts.openat2,
    "umount2": mounts.umount,
    "pivot_root": mounts.pivot_root,
    "chdir": files.lookup,
    "chroot": files.chroot,
    "write": files.write,
    "read": files.read,
}
