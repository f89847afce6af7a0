"""What is known of the machine while a Snapshot is put together: the walk, by namespace, and what came to it since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nslab.model import KINDS, NamespaceId
from nslab.model.snapshot import Content
from nslab.observe.asking import Answers, identity_of
from nslab.ops.visits import TRIED
from nslab.procfs.found import Raw, Reference, Walk


@dataclass
class Known:
    """``machine`` are the namespaces of this process; ``device`` is that of all namespaces.

    ``found`` is what the kernel said of each, ``labels`` whose each is, ``contents`` what it isolates. Not all may be seen: the
    namespaces ``unread`` isolate what this user may not see, so many ``unasked`` may not be opened, so many sockets were
    ``silent`` about their network, and the kernel lists none, with the errno ``unlisted``.
    """

    walk: Walk
    machine: Mapping[str, NamespaceId]
    device: int
    found: dict[NamespaceId, Answers]
    labels: dict[NamespaceId, str] = field(default_factory=dict)
    contents: dict[NamespaceId, Content] = field(default_factory=dict)
    unread: list[NamespaceId] = field(default_factory=list)
    unasked: int = 0
    silent: int = 0
    unlisted: int = 0

    def __post_init__(self) -> None:
        self.processes: dict[int, Raw] = {each.pid: each for each in self.walk.processes}
        self.kind: dict[NamespaceId, str] = {}
        self.members: dict[NamespaceId, list[int]] = {}
        self.leaders: dict[NamespaceId, tuple[int, int]] = {}  # when the oldest member began, and its PID
        self.kinds: dict[int, Mapping[str, NamespaceId]] = {}  # the namespaces of each process
        self.references: dict[NamespaceId, list[Reference]] = {}
        for links, pids in self.walk.groups().items():
            kinds = {}
            oldest = min((self.processes[pid].start, pid) for pid in pids)
            for kind, link in zip(KINDS, links, strict=True):
                if link is not None:
                    kinds[kind] = identity = identity_of(link, self.device)
                    self.kind[identity] = kind
                    self.members.setdefault(identity, []).extend(pids)
                    self.leaders[identity] = min(self.leaders.get(identity, oldest), oldest)
            self.kinds |= dict.fromkeys(pids, kinds)
        for reference in self.walk.references:
            self.refer(reference)

    def refer(self, reference: Reference) -> None:
        """Something more that names a namespace."""
        identity = identity_of(reference.link, self.device)
        self.kind[identity] = reference.link.partition(":")[0]
        self.references.setdefault(identity, []).append(reference)

    def ways(self, identity: NamespaceId) -> tuple[str, ...]:
        """Paths by which it can be opened."""
        paths = [f"/proc/{pid}/ns/{self.kind[identity]}" for pid in self.members.get(identity, ())[:TRIED]]
        return (*paths, *(each.path for each in self.references.get(identity, ())[:TRIED]))
