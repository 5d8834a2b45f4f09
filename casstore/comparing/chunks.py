"""Which chunks of two disks are not the same ones at the same place. Maps tell most of it: a run that both have needs
no more. Of the others the packs' directories are read, and no content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from casstore.artifact import Artifact, Placed
from casstore.diskmap import DiskMap, Runs
from casstore.spec import BLOCK

EVERYTHING: Final = (1 << 63) - BLOCK
"""Bytes of the largest disks that can be compared."""
_MOST_KEYS: Final = 1 << 23
"""Chunks of one disk that are counted at a time; 8 bytes each."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What differs from byte `start` to byte `end`, which are multiples of a block: chunks of A and of B that the other
    has not in the same place. Some may reach over the edges.
    """

    start: int
    end: int
    a: Placed
    b: Placed


class _Ahead:
    """Chunks of one disk that have been located and not been dealt with; those up to byte `known` are complete."""

    def __init__(self, artifact: Artifact, disk: DiskMap) -> None:
        self._more = artifact.chunks(disk)
        self.placed = Placed(np.empty(0, np.int64), artifact.directories.locate(*[np.empty(0, np.int64)] * 2))
        self.known = 0

    def pull(self) -> None:
        placed = next(self._more, None)
        if placed is None:
            self.known = EVERYTHING
            return
        self.known = int(placed.offset[-1] + placed.located.length[-1])
        self.placed = _joined(self.placed, placed) if len(self.placed) else placed

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        self.placed = taken(self.placed, rows)


def differing(a: Artifact, b: Artifact, disks: tuple[DiskMap, DiskMap]) -> Iterator[Window]:
    """Windows in the disks' order, each of at most some ten thousand chunks.

    Raises:
        NotFound, SizeMismatch, DigestMismatch: a pack is missing or damaged.
        DocumentError: a directory breaks its rules.
    """
    sides = [_Ahead(*side) for side in zip((a, b), _without_common_runs(a, b, disks), strict=True)]
    done = 0
    while done < EVERYTHING:
        behind = min(sides, key=lambda side: side.known)
        end = behind.known // BLOCK * BLOCK
        if end <= done:
            behind.pull()
            continue
        near = [taken(side.placed, side.placed.offset < end) for side in sides]
        other = _unlike(*near), _unlike(*reversed(near))
        yield Window(done, end, taken(near[0], other[0]), taken(near[1], other[1]))
        for side, rows in zip(sides, other, strict=True):
            keep = np.ones(len(side.placed), np.bool_)
            keep[: len(rows)] = rows & (_ends(side.placed)[: len(rows)] > end)
            side.keep(keep)
        done = end


def taken(placed: Placed, rows: npt.NDArray[np.bool_]) -> Placed:
    """Some of the chunks."""
    return Placed(placed.offset[rows], placed.located.take(rows))


def _ends(placed: Placed) -> npt.NDArray[np.int64]:
    return placed.offset + placed.located.length


def _joined(one: Placed, other: Placed) -> Placed:
    both = type(one.located).empty(len(one) + len(other))
    both.put(np.arange(len(one)), one.located)
    both.put(np.arange(len(one), len(both)), other.located)
    return Placed(np.concatenate([one.offset, other.offset]), both)


def _unlike(some: Placed, others: Placed) -> npt.NDArray[np.bool_]:
    """Which of some chunks are not at the same place among the others."""
    if not len(others):
        return np.ones(len(some), np.bool_)
    at = np.minimum(np.searchsorted(others.offset, some.offset), len(others) - 1)
    alike = (others.offset[at] == some.offset) & (others.located.ids[at] == some.located.ids)
    unlike: npt.NDArray[np.bool_] = ~alike
    return unlike


def _without_common_runs(a: Artifact, b: Artifact, disks: tuple[DiskMap, DiskMap]) -> list[DiskMap]:
    """The disks without the runs that both have at the same place."""
    numbers = {entry.digest: n for n, entry in enumerate(a.map.packs)}
    for entry in b.map.packs:
        numbers.setdefault(entry.digest, len(numbers))
    offsets, columns = [], []
    for artifact, disk in zip((a, b), disks, strict=True):
        runs = disk.runs
        length = runs.length.astype(np.int64)
        pack = np.array([numbers[entry.digest] for entry in artifact.map.packs], np.int64)[runs.pack]
        offsets.append(np.cumsum(runs.gap.astype(np.int64) + length) - length)
        columns.append((length, pack, runs.first, runs.count))
    _, in_a, in_b = np.intersect1d(offsets[0], offsets[1], assume_unique=True, return_indices=True)
    alike = np.ones(len(in_a), np.bool_)
    for mine, theirs in zip(*columns, strict=True):
        alike &= mine[in_a] == theirs[in_b]
    return [
        _without(disk, offset, rows[alike]) for disk, offset, rows in zip(disks, offsets, (in_a, in_b), strict=True)
    ]


def _without(disk: DiskMap, offset: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> DiskMap:
    """A disk without some of its runs, which begin at `offset`."""
    kept = np.ones(len(offset), np.bool_)
    kept[rows] = False
    offset, runs = offset[kept], disk.runs
    ends = offset + runs.length[kept].astype(np.int64)
    gap = offset - np.concatenate([[0], ends[:-1]])[: len(offset)]
    left = Runs(gap.astype(np.uint64), runs.length[kept], runs.pack[kept], runs.first[kept], runs.count[kept])
    return DiskMap(disk.name, disk.size, disk.extents, left)


def count_chunks(a: Artifact, b: Artifact, disks: tuple[DiskMap, DiskMap]) -> tuple[int, int, int]:
    """How many different chunks are in both disks, only in A, and only in B. Reads the directories of all packs, of
    very large disks several times.

    Raises:
        As `differing`.
    """
    passes = 1 + max(int(disk.runs.count.sum(dtype=np.int64)) for disk in disks) // _MOST_KEYS
    shared = only_a = only_b = 0
    for n in range(passes):
        keys_a, keys_b = (_keys(artifact, disk, n, passes) for artifact, disk in zip((a, b), disks, strict=True))
        both = len(np.intersect1d(keys_a, keys_b, assume_unique=True))
        shared, only_a, only_b = shared + both, only_a + len(keys_a) - both, only_b + len(keys_b) - both
    return shared, only_a, only_b


def _keys(artifact: Artifact, disk: DiskMap, n: int, passes: int) -> npt.NDArray[np.uint64]:
    """64 bits of the digest of each chunk, each once; in the `n`th of `passes` those whose turn it is."""
    parts = [np.empty(0, np.uint64)]
    for table, used in zip(artifact.directories.tables(), artifact.used(disk), strict=True):
        keys = np.ascontiguousarray(table.ids[used]).view("<u8").reshape(-1, 4)[:, 0]
        parts.append(np.unique(keys[keys % np.uint64(passes) == n]))
    return np.unique(np.concatenate(parts))
