"""Which nodes of a large topology are drawn: of those that are alike, two, and how many more there are.

Alike are nodes on one neighbour with the same role, the same limits on their link, and alike nodes behind them: hosts on a
switch, branches of a tree. Alike are also nodes in a row, as in a ring: of a long row both ends are drawn.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nslab.model.layout import Layout, LinkLayout

KEPT = 2  # of those that are alike; in a row, at either end
LEAST = 2  # one more is drawn rather than counted

End = tuple[str, str]  # a node and the name of its interface


@dataclass(frozen=True)
class More:
    """Nodes that are not drawn: ``hidden`` all of them, ``alike`` those of them that are like the drawn ones ``beside`` which,
    or between which and ``before``, they are."""

    beside: str
    before: str
    alike: tuple[str, ...]
    hidden: tuple[str, ...]
    counts: tuple[tuple[str, int], ...]  # of the hidden, by role

    def says(self) -> str:
        """ "40 more hosts"."""
        return ", ".join(f"{count:,} more {role}{_plural(role, count)}" for role, count in self.counts)

    def names(self) -> str:
        """ "h3 … h42"."""
        return f"{self.alike[0]} … {self.alike[-1]}" if len(self.alike) > 1 else self.alike[0]


@dataclass(frozen=True)
class Folded:
    """What is drawn of a layout: these links and nodes, and for the rest how many more there are."""

    links: tuple[LinkLayout, ...]
    nodes: tuple[str, ...]
    more: tuple[More, ...]


def fold_layout(
    layout: Layout, down: Collection[End] = (), unfold: Collection[str] = (), containers: Mapping[str, str] | None = None
) -> Folded:
    """Fold a layout; what is ``down``, or a container, is alike only to what is too, a node in ``unfold`` to none, nor are
    those on it.
    """
    folding = _Folding(layout, down, unfold, containers or {})
    branches = folding.branches()
    more = [*branches, *folding.rows()]
    nodes = tuple(name for name in layout.nodes if name not in folding.hidden)
    links = tuple(link for link in layout.links if not any(end.node in folding.hidden for end in link.ends))
    return Folded(links, nodes, tuple(each for each in more if each.beside not in folding.hidden))


class _Folding:
    def __init__(self, layout: Layout, down: Collection[End], unfold: Collection[str], containers: Mapping[str, str]):
        self.layout, self.down, self.unfold, self.containers = layout, down, unfold, containers
        self.links: dict[str, list[tuple[str, LinkLayout]]] = {name: [] for name in layout.nodes}
        for link in layout.links:
            one, two = (end.node for end in link.ends)
            self.links[one].append((two, link))
            self.links[two].append((one, link))
        self.hidden: set[str] = set()
        self.numbers: dict[Hashable, int] = {}  # of looks
        self.place = {name: place for place, name in enumerate(layout.nodes)}

    def branches(self) -> list[More]:
        """Hide branches that are alike. Leaves are taken off until only what lies in loops, or one node, is left."""
        degree = {name: len(links) for name, links in self.links.items()}
        behind: dict[str, dict[str, int]] = defaultdict(dict)  # what hangs on a node, and what that is like
        bare = [name for name in self.links if degree[name] == 1]
        taken: set[str] = set()
        for name in bare:  # grows while it is walked
            if degree[name] != 1:
                continue  # the last one
            taken.add(name)
            ((parent, link),) = [pair for pair in self.links[name] if pair[0] not in taken]
            behind[parent][name] = self._number(name, link, behind[name].values())
            degree[parent] -= 1
            if degree[parent] == 1:
                bare.append(parent)
        found = []
        for parent in self.links:
            alike: dict[int, list[str]] = defaultdict(list)
            for name in sorted(behind[parent], key=self.place.__getitem__):
                alike[behind[parent][name]].append(name)
            for names in alike.values():
                if parent not in self.unfold and len(names) >= KEPT + LEAST:
                    found.append(self._hide(parent, "", names[KEPT:], behind))
        return found

    def rows(self) -> list[More]:
        """Hide the middle of long rows of nodes that are alike, each with alike leaves."""
        leaves = {name for name, links in self.links.items() if len(links) == 1}
        inner = {name: [pair for pair in links if pair[0] not in leaves] for name, links in self.links.items()}
        look = {
            name: self._number(
                name, None, [self._number(other, link, ()) for other, link in self.links[name] if other in leaves]
            )
            for name, links in inner.items()
            if name not in leaves and len(links) <= 2 and name not in self.hidden
        }
        found, seen = [], set[str]()
        for start in look:
            if start in seen:
                continue
            row = self._row(start, look, inner)
            seen.update(row)
            middle = row[KEPT:-KEPT]
            if len(middle) >= LEAST:
                behind = {
                    name: dict.fromkeys((other for other, _ in self.links[name] if other in leaves), 0) for name in middle
                }
                found.append(self._hide(row[KEPT - 1], row[-KEPT], middle, behind))
        return found

    def _row(self, start: str, look: dict[str, int], inner: dict[str, list[tuple[str, LinkLayout]]]) -> list[str]:
        """The nodes like ``start`` in a row with it, from one end to the other; in a ring it is the first."""
        row, members = deque([start]), {start}
        for grow in (row.append, row.appendleft):
            at: str | None = start
            while at is not None:
                following = (other for other, _ in inner[at] if look.get(other) == look[start] and other not in members)
                if (at := next(following, None)) is not None:
                    members.add(at)
                    grow(at)
        return list(row)

    def _number(self, name: str, link: LinkLayout | None, behind: Iterable[int]) -> int:
        """A number for what a node, its link and all behind it are like: the same for those that are alike."""
        wire: tuple[Hashable, ...] = ()
        if link:
            down = (end.node == name for end in link.ends if (end.node, end.interface) in self.down)
            wire = (link.rate, link.delay, link.loss, link.outside, tuple(sorted(down)))
        node = (self.layout.nodes[name], self.containers.get(name, ""))
        key = (node, wire, tuple(sorted(behind)), name if name in self.unfold else "")
        return self.numbers.setdefault(key, len(self.numbers))

    def _hide(self, beside: str, before: str, names: Sequence[str], behind: dict[str, dict[str, int]]) -> More:
        hidden = list(names)
        for name in hidden:  # grows while it is walked
            hidden += behind.get(name, ())
        self.hidden.update(hidden)
        counts = Counter(self.layout.nodes[name] for name in hidden)
        return More(
            beside, before, tuple(names), tuple(hidden), tuple(sorted(counts.items(), key=lambda item: item[0] == "host"))
        )


def _plural(role: str, count: int) -> str:
    return "" if count == 1 else "es" if role == "switch" else "s"


def depths(layout: Layout) -> dict[str, int]:
    """How far below the top each node stands: on top, of each part of it, the first router in the middle, or else the first
    router, or the first switch.
    """
    neighbours: dict[str, dict[str, None]] = {name: {} for name in layout.nodes}
    for link in layout.links:
        one, two = (end.node for end in link.ends)
        neighbours[one][two] = neighbours[two][one] = None
    middle = _middle(neighbours)
    found: dict[str, int] = {}
    rank = {"router": 0, "nat": 0, "switch": 1, "host": 2}
    for top in sorted(layout.nodes, key=lambda name: (rank[layout.nodes[name]], name not in middle)):
        todo = [] if top in found else [top]
        found.setdefault(top, 0)
        for name in todo:  # grows while it is walked: those next to a node are one below it
            below = [other for other in neighbours[name] if other not in found]
            found |= dict.fromkeys(below, found[name] + 1)
            todo += below
    return found


def _middle(neighbours: Mapping[str, Iterable[str]]) -> set[str]:
    """What is left when the outermost nodes are taken off again and again: the middle of a tree, and all that lies in loops."""
    left = {name: set(others) for name, others in neighbours.items()}
    outermost = [name for name, others in left.items() if len(others) == 1]
    while outermost:
        following = []
        for name in outermost:
            for other in left.pop(name) & left.keys():
                left[other].discard(name)
                if len(left[other]) == 1:
                    following.append(other)
        # Two that are left as each other's only neighbour are both in the middle.
        outermost = [name for name in following if not left[name] <= set(following)]
    return set(left)
