"""Seeing: every namespace on the machine at one moment, and what changed between two.

A namespace is seen when something that /proc shows leads to it: a process or thread in it, a descriptor, a bind mount, or
another namespace that it owns or is the parent of. What that costs is in ``procfs.walk``; owners, parents and numbers are asked
of the kernel. What could not be seen is said, and a process that ends meanwhile is normal.
"""

from __future__ import annotations

from nslab.observe.differing import diff
from nslab.observe.discovering import discover
from nslab.observe.watching import watch

__all__ = ["diff", "discover", "watch"]
