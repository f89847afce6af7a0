"""Namespaces as objects, and processes in them.

``Namespace`` is a handle on one namespace, ``Process`` a live process that is steered by hand, one system call at a time;
``privilege`` knows what this user may do and which id maps follow from that; ``running`` starts commands and collects what
they write.
"""

from nslab.namespaces.handle import Namespace
from nslab.namespaces.running import Result, Running
from nslab.namespaces.starting import process
from nslab.namespaces.steered import Process

__all__ = ["Namespace", "Process", "Result", "Running", "process"]
