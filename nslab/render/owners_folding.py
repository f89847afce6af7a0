"""Which namespaces of many are drawn: of user namespaces that own the same kinds two, or one; of the rest what fits."""

from __future__ import annotations

from collections.abc import Hashable

from nslab.model import NamespaceId
from nslab.model.snapshot import SeenNamespace, Snapshot

KEPT = (2, 1)  # of those that are alike, the second where the first does not do


class Shown:
    """What is drawn of a snapshot. ``more`` has, by the id of the first, those that are one node; ``rest`` is another one."""

    def __init__(self, snapshot: Snapshot, most: int | None):
        self.owned: dict[NamespaceId | None, list[SeenNamespace]] = {}
        self.children: dict[NamespaceId | None, list[SeenNamespace]] = {}
        known = {each.id for each in snapshot.of_kind("user")}
        for each in snapshot.namespaces:
            above = each.parent if each.kind == "user" else each.owner
            place = self.children if each.kind == "user" else self.owned
            place.setdefault(above if above in known else None, []).append(each)
        self.machine = set(snapshot.machine.values())
        self.left = {each.id: each for each in snapshot.namespaces}  # what is drawn by itself
        self.more: dict[NamespaceId, list[SeenNamespace]] = {}
        self.rest: list[SeenNamespace] = []
        if most is not None:
            self._fold(most)

    def _fold(self, most: int) -> None:
        """Branches that are alike, the largest of them first; then namespaces of one kind and owner; then what comes last."""
        branches = [self._units(each) for each in self._groups(self.children)]
        single = [[[each] for each in group] for group in self._groups(self.owned)]
        for kept, groups in ((kept, groups) for kept in KEPT for groups in (branches, single)):
            for units in sorted(groups, key=lambda units: -sum(map(len, units))):
                unseen = units[kept:]
                if len(self.left) + len(self.more) > most and len(unseen) > 1 and unseen[0][0].id in self.left:
                    self.more[unseen[0][0].id] = [unit[0] for unit in unseen]
                    self._hide(unseen)
        others = [each for each in reversed(self.left.values()) if each.id not in self.machine]
        last = [self._branch(each) for each in others if each.kind == "user"]
        last += [[each] for each in others if each.kind != "user"]
        for unit in last:
            if len(self.left) + len(self.more) >= most and unit[0].id in self.left:
                self.rest += [each for each in unit if each.id in self.left]
                self._hide([unit])

    def _groups(self, places: dict[NamespaceId | None, list[SeenNamespace]]) -> list[list[SeenNamespace]]:
        found: dict[Hashable, list[SeenNamespace]] = {}
        for above, below in places.items():
            for each in below:
                if each.id not in self.machine:
                    found.setdefault((above, self._like(each)), []).append(each)
        return list(found.values())

    def _like(self, namespace: SeenNamespace) -> Hashable:
        """Its kind, and what hangs on it, whatever the order."""
        if namespace.kind != "user":
            return namespace.kind
        return tuple(sorted(each.kind for each in self._branch(namespace)))

    def _units(self, group: list[SeenNamespace]) -> list[list[SeenNamespace]]:
        return [self._branch(each) for each in group]

    def _branch(self, namespace: SeenNamespace) -> list[SeenNamespace]:
        """A namespace with all that it owns and all below it."""
        found = [namespace]
        for each in found:  # grows while it is walked
            if each.kind == "user":
                found += [*self.owned.get(each.id, ()), *self.children.get(each.id, ())]
        return found

    def _hide(self, units: list[list[SeenNamespace]]) -> None:
        for unit in units:
            for each in unit:
                self.left.pop(each.id, None)
                if each.id != units[0][0].id:
                    self.more.pop(each.id, None)
