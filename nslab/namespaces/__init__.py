"""Namespaces as objects, and processes in them.

``Namespace`` is a handle on one namespace, ``Process`` a live process that is steered by hand, one system call at a time;
``privilege`` knows what this user may do and which id maps follow from that; ``running`` starts commands, ``streams``
carries what they read and write.
"""

from nslab.namespaces.handle import Namespace
from nslab.namespaces.result import Result
from nslab.namespaces.running import Running
from nslab.namespaces.starting import process
from nslab.namespaces.steered import Process

__all__ = ["Namespace", "Process", "Result", "Running", "process"]
