"""Containers: a root process in namespaces of its own, and commands that enter.

``run`` is one command in new namespaces, gone when it ends. ``Container`` stays, and commands and functions enter it.
``Stepper`` makes a container one op at a time.
"""

from nslab.container.container import Container, live
from nslab.container.creating import Namespaces, create
from nslab.container.mounts import Bind, Overlay, Tmpfs
from nslab.container.oneshot import run
from nslab.container.stepper import Stepper

__all__ = ["Bind", "Container", "Namespaces", "Overlay", "Stepper", "Tmpfs", "create", "live", "run"]
