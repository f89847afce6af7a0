"""The machine: what it allows, and what to do about what it does not; and a kernel of one's own, where it allows nothing.

``blockers`` knows what can forbid namespaces, ``equipment`` what else there has to be; ``checkup`` tries, and says it all.

A kernel of one's own is a user-mode Linux, an ordinary process that needs no rights:

    notebook server, or nslab vm ── warden ─┬─ linux.uml ── init (``inside``) ── the notebook's Python, or a command
      ``own``, ``provisioner``              └─ slirp4netns: its network, and ports on 127.0.0.1

``needs`` says what it takes, ``words`` what they say to each other, ``preload`` what both programs lack, ``slirp`` how the
network is told what to do, ``leftovers`` how the killed are cleaned up after; ``kernelspecs`` offers it in Jupyter.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nslab.machines.checkup import doctor
    from nslab.machines.needs import own_kernel_check
    from nslab.machines.own import BootError, OwnKernel, run_in_own_kernel
    from nslab.machines.report import Check, Report

_HOME = {
    "BootError": "own", "Check": "report", "OwnKernel": "own", "Report": "report", "doctor": "checkup",
    "own_kernel_check": "needs", "run_in_own_kernel": "own",
}  # fmt: skip

__all__ = ["BootError", "Check", "OwnKernel", "Report", "doctor", "own_kernel_check", "run_in_own_kernel"]


def __getattr__(name: str) -> Any:
    """A name is loaded when it is first used: the warden and the first process inside need none of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
