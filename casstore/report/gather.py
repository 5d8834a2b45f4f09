"""What a report tells, as plain data: read from the store once, and drawn by the other modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from casstore.errors import CorruptContent, NotFound, StorageError, UsageError
from casstore.growth import Forest, Node
from casstore.progress import Progress, silent
from casstore.report.blockmapchart import CELLS

if TYPE_CHECKING:
    from casstore.stats import Usage
    from casstore.store import Store


@dataclass(frozen=True, slots=True)
class Pair:
    """How a snapshot's disk differs from another's. Sizes in bytes."""

    names: tuple[str, str]
    size: int
    """Of the longer disk."""
    hole: int
    same: int
    changed: int
    added: int
    removed: int
    chunks: tuple[int, int, int]
    """In both, only in the first, only in the second."""
    new_stored: int
    """Bytes of the blobs of the second that the first has not."""
    cells: Sequence[str]
    """The kind of each part of the disk, as Cell has it."""
    cell: int
    """Bytes that a cell stands for."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a report tells."""

    forest: Forest
    total: Usage
    dedup: dict[str, float | None]
    """By digest, as text."""
    compression: dict[str, float | None]
    pair: Pair | None
    no_pair: str = ""
    """Why there is none."""
    broken: Sequence[str] = ()
    """Names that lead to no usable snapshot."""


def gather(store: Store, pair: tuple[str, str] | None, progress: Progress = silent) -> Contents:
    """Read it; without a `pair` the newest snapshot that has its parent here is compared with that.

    Raises:
        NotFound, UsageError: the pair is not in the store.
        UnreadableFilesystem, CorruptContent: the pair that was asked for cannot be compared.
    """
    found, forest = store.stats(), store.tree()
    compared, why = None, ""
    if pair is not None:
        compared = _compare(store, pair, pair, progress)
    else:
        newest = next((node for node in forest.newest_first() if node.parent is not None), None)
        if newest is None or newest.parent is None:
            why = "No snapshot here has its parent here, so there is nothing to compare."
        else:
            parent = forest.nodes[newest.parent]
            digests, names = (str(parent.digest), str(newest.digest)), (_name(parent), _name(newest))
            try:
                compared = _compare(store, digests, names, progress)
            except (CorruptContent, NotFound, StorageError, UsageError):
                # Why it is would tell paths of this machine.
                why = f"{names[1]} cannot be compared with {names[0]}; casstore diff {names[0]} {names[1]} says why."
    return Contents(
        forest,
        found.total,
        {str(each.digest): each.usage.dedup for each in found.snapshots},
        {str(each.digest): each.usage.compression for each in found.snapshots},
        compared,
        why,
        [problem.name for problem in store.problems()],
    )


def _name(node: Node) -> str:
    return node.names[0] if node.names else node.digest.short


def _compare(store: Store, pair: tuple[str, str], names: tuple[str, str], progress: Progress) -> Pair:
    from casstore.comparing.blockmap import block_map, cell_size
    from casstore.comparing.disks import compare_disks

    with store.look_into(pair[0]) as a, store.look_into(pair[1]) as b:
        difference = compare_disks(a.artifact, b.artifact, progress=progress)
        extents = [opened.artifact.map.newest.extents for opened in (a, b)]
        cells = block_map(difference, extents[0], extents[1], CELLS)
    return Pair(
        names=names,
        size=max(difference.size),
        hole=sum(cell.hole for cell in cells),
        same=sum(cell.same for cell in cells),
        changed=sum(cell.changed for cell in cells),
        added=sum(cell.added for cell in cells),
        removed=sum(cell.removed for cell in cells),
        chunks=difference.chunks,
        new_stored=difference.new_stored_bytes,
        cells=[cell.kind for cell in cells],
        cell=cell_size(max(difference.size), CELLS),
    )
