"""How the snapshots of a store came one from another, and what each step added: a forest.

A parent is what a snapshot's manifest says, and nobody has checked that. One that is not here has no node, but its
children stay together. Ids are hashes, so no snapshot can be its own ancestor by id; names that are not made of the
content may say so all the same, and such a circle is cut at its oldest snapshot.

Nothing here recurses: a history may be ten thousand steps deep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from casstore.digest import Digest
from casstore.manifest import Manifest, created_time

if TYPE_CHECKING:
    from datetime import datetime

    from casstore.catalog import Catalog
    from casstore.queries import Entry, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A snapshot in the forest. Sizes in bytes."""

    entry: Entry
    parent: Digest | None
    """The digest of its parent, where that is here."""
    missing: str | None
    """What it calls its parent, where that is not here, or where this one is among its parent's ancestors."""
    added: int
    """Bytes of the blobs that its parent has not; of one without a parent here, of all its blobs."""
    new: int
    """Bytes of the blobs that no snapshot from before it has."""

    @property
    def digest(self) -> Digest:
        """The digest of the artifact."""
        return self.entry.digest

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in the store."""
        return self.entry.names

    @property
    def id(self) -> Digest:
        """sha256 of the snapshot manifest's canonical bytes."""
        return self.entry.id

    @property
    def manifest(self) -> Manifest:
        """The snapshot manifest."""
        return self.entry.manifest

    @property
    def created(self) -> datetime | None:
        """When it was captured; None where what is recorded cannot be read."""
        return created_time(self.manifest.created_at)

    @property
    def size(self) -> int:
        """Apparent bytes of the disk."""
        return self.manifest.upper.size_bytes

    @property
    def allocated(self) -> int:
        """Bytes in extents of its disks."""
        return self.entry.allocated

    @property
    def stored(self) -> int:
        """Bytes of all its blobs."""
        return self.entry.stored

    @property
    def unique(self) -> int:
        """Bytes of the blobs that no other snapshot in the store uses."""
        return self.entry.unique


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a drawing: a snapshot, or a parent that is not here."""

    lane: int
    """The column of its mark, from 0. A line passes in every column left of it."""
    above: int | None
    """The row of its parent; None where a lineage starts."""
    branches: bool
    """Whether it starts a column of its own, right of its parent's."""
    node: Node | None
    missing: str = ""
    """Without a node: what its children call it."""


class Forest:
    """Snapshots and their lineage."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes: Mapping[Digest, Node] = {node.digest: node for node in sorted(nodes, key=_age)}
        """By digest, the oldest first."""
        children: dict[Digest | str, list[Digest]] = {}
        roots: dict[Digest | str, None] = {}
        for node in self.nodes.values():
            above = node.parent or node.missing
            if above is not None:
                children.setdefault(above, []).append(node.digest)
            if above is None or node.missing is not None:
                roots[above or node.digest] = None
        self._children = children
        self.roots: Sequence[Digest | str] = tuple(roots)
        """Where a lineage starts, that of the oldest snapshot first: a digest, or what a parent is called that is not
        here.
        """

    def __len__(self) -> int:
        return len(self.nodes)

    def newest_first(self) -> Iterator[Node]:
        """All snapshots, in the order of `list`."""
        return (self.nodes[digest] for digest in reversed(list(self.nodes)))

    def children(self, of: Digest | str) -> Sequence[Digest]:
        """Those that name a snapshot, or a parent that is not here, as their parent; the oldest first."""
        return self._children.get(of, ())

    def ancestors(self, digest: Digest) -> list[Node]:
        """The nearest first."""
        found: list[Node] = []
        above = self.nodes[digest].parent
        while above is not None:
            found.append(self.nodes[above])
            above = found[-1].parent
        return found

    def only(self, wanted: Collection[Digest]) -> Forest:
        """Those snapshots, and all that they come from."""
        kept: dict[Digest, Node] = {}
        for digest in wanted:
            above: Digest | None = digest
            while above is not None and above not in kept:
                kept[above] = self.nodes[above]
                above = kept[above].parent
        return Forest(kept.values())

    def around(self, digest: Digest) -> Forest:
        """A snapshot, all that it comes from, and all that comes from it."""
        found, todo = {digest}, [digest]
        while todo:
            for child in self.children(todo.pop()):
                found.add(child)
                todo.append(child)
        return self.only(found)

    def newest(self, most: int) -> Forest:
        """So many of the newest; the older ones are as if they were not here."""
        kept = {digest: self.nodes[digest] for digest in list(self.nodes)[-most:]}
        return Forest(
            node if node.parent is None or node.parent in kept else replace(node, parent=None, missing=str(node.parent))
            for node in kept.values()
        )

    def rows(self) -> Iterator[Row]:
        """How to draw it, every parent above its children, and each lineage in one piece.

        Of a snapshot's children the one from which most snapshots come goes on in the same column, below all others;
        each of these starts a column further right. So a chain stays in its column, and of n snapshots none is
        further right than the logarithm of n to the base 2.
        """
        weights = self._weights()
        drawn = 0
        for root in self.roots:
            todo: list[tuple[Digest | str, int, int | None, bool]] = [(root, 0, None, False)]
            while todo:
                at, lane, above, branches = todo.pop()
                if isinstance(at, str):
                    yield Row(lane, above, branches, None, at)
                else:
                    yield Row(lane, above, branches, self.nodes[at])
                here, drawn = drawn, drawn + 1
                children = self.children(at)
                if children:
                    # Of equally heavy ones the newest is the main line.
                    main = max(reversed(children), key=lambda child: weights[child])
                    todo.append((main, lane, here, False))
                    others = [child for child in reversed(children) if child != main]
                    todo += [(child, lane + 1, here, True) for child in others]

    def _weights(self) -> dict[Digest, int]:
        """How many snapshots come from each, with itself."""
        order: list[Digest] = []
        todo = [
            child for root in self.roots for child in ((root,) if isinstance(root, Digest) else self.children(root))
        ]
        while todo:
            order.append(todo.pop())
            todo += self.children(order[-1])
        weights = dict.fromkeys(order, 1)
        for digest in reversed(order):
            parent = self.nodes[digest].parent
            if parent is not None:
                weights[parent] += weights[digest]
        return weights


def absent_text(missing: str) -> str:
    """A parent that is not here, for people: of an id as much as of a digest; other forms may be longer."""
    short = missing[:19] if missing.startswith("sha256:") else missing[:40]
    return f"{short} (not here)"


def tree(catalog: Catalog) -> Forest:
    """All snapshots of a store."""
    return grow(*catalog.steps())


def grow(entries: Iterable[Entry], steps: Mapping[Digest, Step]) -> Forest:
    """The forest of some entries; `steps` has what each adds."""
    nodes = {}
    for entry in entries:
        step = steps[entry.digest]
        missing = entry.manifest.parent if step.parent is None else None
        nodes[entry.digest] = Node(entry=entry, parent=step.parent, missing=missing, added=step.added, new=step.new)
    for digest in _closing(nodes):
        node = nodes[digest]
        nodes[digest] = replace(node, parent=None, missing=node.manifest.parent, added=node.stored)
    return Forest(nodes.values())


def _closing(nodes: Mapping[Digest, Node]) -> list[Digest]:
    """The oldest of each circle."""
    found: list[Digest] = []
    known: set[Digest] = set()
    for start in nodes:
        line: dict[Digest, None] = {}
        at: Digest | None = start
        while at is not None and at not in known and at not in line:
            line[at] = None
            at = nodes[at].parent
        if at is not None and at in line:
            circle = list(line)[list(line).index(at) :]
            found.append(min(circle, key=lambda each: _age(nodes[each])))
        known.update(line)
    return found


def _age(node: Node) -> tuple[float, str, str]:
    """What to sort by, the oldest first; a time that cannot be read comes before all others."""
    created = node.created
    seconds = float("-inf") if created is None else created.timestamp()
    return seconds, node.manifest.created_at, node.digest.hex
