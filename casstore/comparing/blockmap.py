"""A disk as some cells of equal size, each with how much of it is a hole, the same, changed, added and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from casstore.byteranges import Coverage, Rows, union
from casstore.comparing.disks import ChangeKind, DiskDifference
from casstore.errors import UsageError
from casstore.spec import BLOCK

Kind = Literal["changed", "added", "removed", "same", "hole"]
CHANGES: Final[tuple[Kind, ...]] = ("changed", "added", "removed")
"""What bytes that differ can be."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Some bytes of the disk, from `offset` on; the five counts add up to its `length`."""

    offset: int
    length: int
    hole: int
    """Allocated on neither disk."""
    same: int
    """Allocated on one of them at least, and equal."""
    changed: int
    added: int
    removed: int

    @property
    def differing(self) -> int:
        """Bytes of it that differ."""
        return self.changed + self.added + self.removed

    @property
    def kind(self) -> Kind:
        """What it shows: what most of the bytes that differ are, however few these are; else `same`, if any are."""
        if self.differing:
            return max(CHANGES, key=lambda kind: getattr(self, kind))
        return "same" if self.same else "hole"


def cell_size(size: int, cells: int) -> int:
    """Bytes per cell, a power of two of at least a block, for a disk of `size` bytes in at most so many cells."""
    length = BLOCK
    while length * cells < size:
        length *= 2
    return length


def block_map(difference: DiskDifference, allocated_a: Rows, allocated_b: Rows, cells: int) -> list[Cell]:
    """The longer disk in at most `cells` cells, from its first byte to its last; all but the last have the length of
    `cell_size`. `allocated_a` and `allocated_b`: the extents of the disks, as rows (offset, length).

    Raises:
        UsageError: `cells` is not positive.
    """
    if cells < 1:
        raise UsageError(f"block map: expected one cell or more, got {cells}")
    size = max(difference.size)
    edges = np.append(np.arange(0, size, cell_size(size, cells), dtype=np.int64), size)
    start, end = edges[:-1], edges[1:]
    used = Coverage(union(allocated_a, allocated_b, difference.ranges)).within(start, end)
    kinds = [
        Coverage(difference.ranges[difference.kinds == kind]).within(start, end)
        for kind in (ChangeKind.CHANGED, ChangeKind.ADDED, ChangeKind.REMOVED)
    ]
    columns = (start, end - start, end - start - used, used - sum(kinds), *kinds)
    return [Cell(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
