"""Big pictures: past some sixty nodes what is alike is folded into one, "40 more hosts". The table beside it keeps them all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

MOST = 60  # nodes that a person can look at
UNFOLD = "most=None draws each"
Item = TypeVar("Item")


def fold(items: Sequence[Item], alike: Callable[[Item], Hashable], most: int | None = MOST, keep: int = 2) -> list[list[Item]]:
    """Items in their order, each in a list of its own or, past ``most``, with those that are ``alike``; None folds nothing.

    The largest of such groups are folded first, and only as many as are needed. The first ``keep`` of a group stay as
    examples, then comes the rest of it in one list. Where that is not enough, the end of all is one list, alike or not.
    """
    if most is None or len(items) <= most:
        return [[item] for item in items]
    groups: dict[Hashable, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(alike(item), []).append(number)
    count, hidden = len(items), {}
    for members in sorted(groups.values(), key=len, reverse=True):
        rest = members[keep:]
        if count <= most or len(rest) < 2:
            break
        hidden[rest[0]] = rest
        count -= len(rest) - 1
    inside = {number for rest in hidden.values() for number in rest[1:]}
    folded = [[items[i] for i in hidden.get(number, [number])] for number in range(len(items)) if number not in inside]
    return folded if len(folded) <= most else [*folded[: most - 1], [item for group in folded[most - 1 :] for item in group]]


def names(group: Sequence[str], longest: int = 20) -> str:
    """Those that were folded, for a tooltip, and how to see each."""
    more = f" and {len(group) - longest} more" if len(group) > longest else ""
    return f"{', '.join(group[:longest])}{more}; {UNFOLD}"
