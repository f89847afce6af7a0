"""Nodes that are containers: with more of their own than a network and a host name, and an init that stands for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nslab.container import Container, mounts, plans
from nslab.container.plans import Request
from nslab.errors import DeadNamespace
from nslab.model import KINDS
from nslab.namespaces import privilege
from nslab.ops import NewNamespaces, Op, Plan, spec
from nslab.ops.nodes import RewriteTexts, ShowTexts
from nslab.topology import naming

if TYPE_CHECKING:
    from nslab.topology.node import Node

OWN = ("uts", "net")  # what each node has of its own
WHY_NAMES = "so that the names of the nodes resolve inside"
NO_SEARCH = {"net.ipv6.conf.default.accept_dad": 0}  # as network.create() has it


def checked(
    isolate: str | Iterable[str], rootfs: spec.Folder | None, wanted: Iterable[Any], limits: Mapping[str, Any] | None,
    hardened: bool,
) -> dict[str, Any]:  # fmt: skip
    """The keywords of Container that are given, and none for a node that is no container; SpecError for what cannot be."""
    kinds = spec.kinds(isolate)
    given: dict[str, Any] = {
        "isolate": " ".join(kind for kind in KINDS if kind in kinds and kind not in OWN), "rootfs": rootfs,
        "mounts": [*wanted], "limits": dict(limits or {}), "hardened": bool(hardened),
    }  # fmt: skip
    asked = {key: value for key, value in given.items() if value}
    if asked:
        Request.checked(**_arguments(asked))
    return asked


def _arguments(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {**asked, "isolate": [*OWN, *spec.kinds(asked.get("isolate", ""))]}


class NodeContainer(Container):
    """The container of a node. Where it has the machine's own mount table, each command gets what those of other nodes do."""

    def __init__(self, node: Node, sysctls: Mapping[str, int | str], inside: Callable[[], tuple[Op, ...]]):
        self._each = inside
        self._shown: Mapping[str, str] = {}
        more = {**sysctls, **(NO_SEARCH if os.path.exists("/proc/sys/net/ipv6") else {})}
        super().__init__(node.name, hostname=node.name, loopback=True, sysctls=more, **_arguments(node.asked))

    def inside(self) -> tuple[Op, ...]:
        return () if "mnt" in self.kinds else self._each()

    def show(self, texts: Mapping[str, str]) -> None:
        """Let these files have these texts inside; nothing when it has ended, or each command gets them."""
        if "mnt" not in self.kinds or texts == self._shown:
            return
        first = not self._shown
        with contextlib.suppress(DeadNamespace):
            self._perform(self._first(texts) if first else (RewriteTexts(tuple(texts.items()), implied=WHY_NAMES),))
        self._shown = dict(texts)

    def _first(self, texts: Mapping[str, str]) -> tuple[Op, ...]:
        """A root filesystem has its own /sys already, and may lack the files; a hardened container has it too."""
        if self._request.rootfs:
            return (ShowTexts(tuple(texts.items()), make=True, implied=WHY_NAMES),)
        there = tuple((path, text) for path, text in texts.items() if os.path.isfile(path))
        return (
            *([] if self._request.hardened else [naming.SYSFS]),
            ShowTexts(there, mounts.choose_stage(path for path, _ in there), implied=WHY_NAMES),
        )

    def _perform(self, ops: tuple[Op, ...]) -> None:
        """Have a process enter, with all rights that there are inside, and do this."""
        pidfd = self._must_live()
        enter = plans.entering(self._members, self.pid, privilege.maps_of(self._plan.ops))
        if "pid" in self._members:  # whose /proc shows members only, which is what a new process is
            enter += (NewNamespaces(()),)
        with self._recorded():
            child = self._spawner.start(Plan((*enter, *ops)), fds={"init": pidfd}, borrowed=self._borrowed, stay=True)
            try:
                child.settle()
            finally:
                child.end()

    def _dead(self) -> DeadNamespace:
        return DeadNamespace(
            f"node {self.name!r}: its init (PID {self.pid}) has ended, and with it what ran in it; the lab goes on.\n"
            f"  what to do: lab.remove({self.name!r}) and name it again."
        )


def as_code(value: Any) -> str:
    """The Python for an option of a node: mounts are classes of nslab."""
    if isinstance(value, list):
        return f"[{', '.join(repr(each) if isinstance(each, str) else f'nslab.{each!r}' for each in value)}]"
    return repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
