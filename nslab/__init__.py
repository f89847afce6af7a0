"""nslab: build Linux isolation by hand, on the real kernel, and see every system call of it.

The rooms, from the lowest up; a module imports only from rooms above its own in this list, never sideways or upwards:

    errors model          what can go wrong; what is talked about
    trace procfs          what was done; what /proc says
    hints                 what an errno means here
    syscalls netlink      one function, one system call; requests of rtnetlink
    ops                   operations and plans, as data
    spawner               the process that makes namespaces
    ipc                   System V and POSIX objects, made, used, listed and removed
    namespaces            handles, and a process to steer by hand
    container network     run, Container, Stepper; interfaces, addresses, routes
    observe               every namespace on the machine, and what changed
    render                pictures
    topology              networks of nodes, on paper and deployed
    labs                  labs that a process of their own holds
    widgets               what answers a click
    lessons machines      predictions; what this machine allows
    recordings            what the course shows where nothing is allowed
    magics cli            %ns and %%ns; the command line

Names are loaded when they are first used: ``import nslab`` starts nothing and imports next to nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nslab.container import Bind, Container, Overlay, Stepper, Tmpfs, create, run
    from nslab.errors import (
        CommandError,
        CommandTimeout,
        DeadNamespace,
        NslabError,
        Refused,
        SpawnerError,
        SpecError,
        SyscallError,
        Unavailable,
    )  # fmt: skip
    from nslab.labs.attached import attach
    from nslab.lessons import predict
    from nslab.machines import doctor
    from nslab.namespaces import Namespace, Process, Result, process
    from nslab.observe import diff, discover, watch
    from nslab.render import draw
    from nslab.topology import Topology
    from nslab.trace import Trace, record

__version__ = "0.1.0"

_HOME = {
    "Bind": "container", "Overlay": "container", "Tmpfs": "container",
    "Container": "container", "Stepper": "container", "create": "container", "run": "container",
    "CommandError": "errors", "CommandTimeout": "errors", "DeadNamespace": "errors", "NslabError": "errors",
    "Refused": "errors", "SpawnerError": "errors", "SpecError": "errors", "SyscallError": "errors", "Unavailable": "errors",
    "attach": "labs.attached",
    "doctor": "machines",
    "predict": "lessons",
    "Namespace": "namespaces", "Process": "namespaces", "Result": "namespaces", "process": "namespaces",
    "diff": "observe", "discover": "observe", "watch": "observe",
    "draw": "render",
    "Topology": "topology",
    "Trace": "trace", "record": "trace",
    "syscalls": "", "ops": "", "ipc": "",
}  # fmt: skip

__all__ = [
    "Bind", "CommandError", "CommandTimeout", "Container", "DeadNamespace", "Namespace", "NslabError", "Overlay", "Process",
    "Refused", "Result", "SpawnerError", "SpecError", "Stepper", "SyscallError", "Tmpfs", "Topology", "Trace", "Unavailable",
    "attach", "create", "diff", "discover", "doctor", "draw", "ipc", "ops", "predict", "process", "record", "run", "syscalls",
    "watch",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nslab' has no attribute {name!r}")
    room = _HOME[name]
    return getattr(import_module(f"nslab.{room}"), name) if room else import_module(f"nslab.{name}")


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext nslab``: the magics %ns and %%ns."""
    from nslab.magics import load_ipython_extension as load

    load(shell)


def __dir__() -> list[str]:
    return __all__


def _arm_notebook() -> None:
    """In a notebook, see to it that the course can be read also where nothing is allowed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if hasattr(shell, "kernel"):
        from nslab.recordings import arm

        arm(shell)


_arm_notebook()
