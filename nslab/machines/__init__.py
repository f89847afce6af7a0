"""The machine: what it allows, and what to do about what it does not."""

from nslab.machines.checkup import Check, Report, doctor

__all__ = ["Check", "Report", "doctor"]
