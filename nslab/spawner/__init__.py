"""The process that makes namespaces, so that the notebook does not have to.

A notebook kernel has a dozen threads and cannot unshare or enter anything itself (user_namespaces(7), setns(2)). So it
starts, by exec, a small single-threaded Python, and talks to it over a socket:

    notebook ── watchdog ── spawner ── init of a container ── what runs in it
                                    └─ supervisor ── a command that entered a container

``client`` is the notebook's side, with a ``handle`` for each process made, ``watchdog`` and ``server`` the two helpers,
``child`` the life of what they make, ``launch``, ``functions`` and ``steer`` the three sorts of work: a program, a Python
function, orders one by one.
Whoever dies, what is below dies: the watchdog ends its orphans when the notebook or the spawner is gone, the spawner
when the watchdog is, and each process of ours when its channel to the notebook is closed.

The spawner imports little, and nothing here that it does not run: each page that it has makes a fork slower.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nslab.spawner.client import Spawner, ensure, running_pids, shutdown
    from nslab.spawner.descriptor import Descriptor
    from nslab.spawner.handle import Child
    from nslab.spawner.messages import Call, Steer

_HOME = {
    "Call": "messages", "Steer": "messages", "Child": "handle", "Descriptor": "descriptor", "Spawner": "client",
    "ensure": "client", "running_pids": "client", "shutdown": "client",
}  # fmt: skip

__all__ = ["Call", "Child", "Descriptor", "Spawner", "Steer", "ensure", "running_pids", "shutdown"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
