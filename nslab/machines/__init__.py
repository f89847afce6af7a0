"""The machine: what it allows, and what to do about what it does not.

``blockers`` knows what can forbid namespaces, ``equipment`` what else there has to be; ``checkup`` tries, and says it all.
"""

from nslab.machines.checkup import doctor
from nslab.machines.report import Check, Report

__all__ = ["Check", "Report", "doctor"]
