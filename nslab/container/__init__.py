"""Containers: a root process in namespaces of its own, and commands that enter.

``run`` is one command in new namespaces, gone when it ends. ``Container`` stays, and commands and functions enter it.
``Stepper`` makes a container one op at a time.
"""

from nslab.container.container import Container, Stepper, live, run
from nslab.container.creating import Namespaces, create
from nslab.container.mounts import Bind, Overlay, Tmpfs

__all__ = ["Bind", "Container", "Namespaces", "Overlay", "Stepper", "Tmpfs", "create", "live", "run"]
