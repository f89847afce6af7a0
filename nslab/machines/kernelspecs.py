"""The two kernels that nslab offers in Jupyter, installed where they can work."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from nslab.machines import needs
from nslab.machines.provisioner import NAME
from nslab.machines.report import Check

HERE, OWN, NATIVE = "nslab", NAME, "python3"
ICONS = Path(__file__).parent / "icons"
EXPLAINED = {
    HERE: "works on the kernel of this machine, as root or in a user namespace.",
    OWN: "is a Linux kernel that is yours alone. You are its root, it needs no rights here, and it starts clean each time.",
}
SHOWN = {HERE: "nslab (this machine)", OWN: "nslab (own kernel)"}


@dataclass(frozen=True)
class Offer:
    """A kernel, whether it is ``installed``, and where; or why not, with ``remedy``."""

    name: str
    installed: bool
    where: str
    why: str = ""
    remedy: str = ""


def spec(name: str) -> dict[str, Any]:
    """The content of kernel.json."""
    found: dict[str, Any] = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": SHOWN[name],
        "language": "python",
        "metadata": {"debugger": True, "supported_encryption": ["curve"], "nslab": EXPLAINED[name]},
        "kernel_protocol_version": "5.5",
    }
    if name == OWN:
        found["interrupt_mode"] = "message"  # signals do not reach into another kernel
        found["metadata"]["kernel_provisioner"] = {"provisioner_name": NAME, "config": {}}
    return found


def install(
    *,
    isolation: Check | None = None,
    own: Check | None = None,
    user: bool = False,
    prefix: str | None = None,
    default: bool = False,
) -> list[Offer]:
    """Install what can work here, take away what cannot (any more), and say so.

    They go where this Python is (``sys.prefix``), or to another ``prefix``, or to the ``user``'s own folder, also where this
    Python's cannot be written. With ``default`` the notebooks' own kernel, python3, is the own kernel as well.
    ``isolation`` and ``own`` are checks of doctor().
    """
    own = own or needs.own_kernel_check()
    manager = KernelSpecManager()
    if prefix is None and not user:
        user = not os.access(sys.prefix, os.W_OK)
        prefix = None if user else sys.prefix
    offers = []
    for name, check in ((HERE, isolation), (OWN, own)):
        if (check is not None and check.status == "no") or (name == OWN and own.status != "yes"):
            assert check is not None
            _remove(manager, name)
            offers.append(Offer(name, False, "", check.finding, check.remedy))
        else:
            offers.append(Offer(name, True, _put(manager, name, name, user, prefix)))
    if default:
        wanted = OWN if offers[1].installed else HERE
        offers.append(Offer(NATIVE, True, _put(manager, wanted, NATIVE, user, prefix)))
    return offers


def _put(manager: KernelSpecManager, kind: str, name: str, user: bool, prefix: str | None) -> str:
    with tempfile.TemporaryDirectory(prefix="nslab-spec-") as folder:
        Path(folder, "kernel.json").write_text(json.dumps(spec(kind), indent=1) + "\n")
        Path(folder, "logo-svg.svg").write_text((ICONS / f"{kind}.svg").read_text())
        os.chmod(folder, 0o755)
        return str(manager.install_kernel_spec(folder, name, user=user, prefix=prefix))


def _remove(manager: KernelSpecManager, name: str) -> None:
    try:
        found = manager.get_kernel_spec(name)
    except NoSuchKernel:
        return
    if os.access(os.path.dirname(found.resource_dir), os.W_OK):
        manager.remove_kernel_spec(name)
