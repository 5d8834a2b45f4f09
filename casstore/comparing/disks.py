"""Which blocks of two disks differ.

Where both have the same chunk at the same place nothing is read. The rest is decoded and compared block by block, some
MiB at a time, so what it takes depends on what differs, and memory on neither. Only the list of what differs grows.

A disk reads as zeros in its holes and behind its end; a hole and zeros that are allocated are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from casstore.artifact import Artifact, Placed
from casstore.byteranges import Coverage, Rows, clip, union
from casstore.comparing.chunks import EVERYTHING, Window, count_chunks, differing, taken
from casstore.decoding import jobs
from casstore.diskmap import DiskMap
from casstore.errors import CorruptContent, UsageError
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter, Progress, silent
from casstore.spec import BLOCK, MIB

_PART: Final = 16 * MIB
"""Bytes of each of the disks that are compared in one go."""


class ChangeKind(IntEnum):
    """What happened to bytes that differ."""

    CHANGED = 1
    """Both disks have data there."""
    ADDED = 2
    """A has a hole there, or has ended."""
    REMOVED = 3
    """B has a hole there, or has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class DiskDifference:
    """How disk B differs from disk A. Sizes and places are in bytes."""

    size: tuple[int, int]
    """Of A and of B."""
    ranges: Rows
    """Rows (offset, length) of what differs, sorted and separate: whole blocks of 4096 bytes of which at least one byte
    differs; the last one may be cut off by the end of the longer disk."""
    kinds: npt.NDArray[np.uint8]
    """The ChangeKind of each row. A block that is allocated in part is not a hole."""
    chunks: tuple[int, int, int]
    """Different chunks: in both, only in A, only in B."""
    new_stored_bytes: int
    """Stored bytes of the blobs of B that A has not: what B costs where A is already."""
    extents: tuple[int, int]
    """How many A and B have."""
    exact: bool = True
    """Whether what differs was compared. If not, the ranges are those of chunks that differ somewhere."""

    @property
    def changed_bytes(self) -> int:
        """Bytes in ranges that are CHANGED."""
        return self._bytes(ChangeKind.CHANGED)

    @property
    def added_bytes(self) -> int:
        """Bytes in ranges that are ADDED."""
        return self._bytes(ChangeKind.ADDED)

    @property
    def removed_bytes(self) -> int:
        """Bytes in ranges that are REMOVED."""
        return self._bytes(ChangeKind.REMOVED)

    def _bytes(self, kind: ChangeKind) -> int:
        return int(self.ranges[self.kinds == kind, 1].sum())

    @property
    def same_bytes(self) -> bool:
        """Whether the disks have the same size and read the same."""
        return self.size[0] == self.size[1] and not len(self.ranges)


class _Blocks(NamedTuple):
    """Blocks that differ, in columns: sorted numbers, and the ChangeKind of each."""

    number: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]


class _Part(NamedTuple):
    """What is compared in one go: ranges of whole blocks, and the chunks of A and B that reach into them."""

    rows: Rows
    a: Placed
    b: Placed


def compare_disks(
    a: Artifact,
    b: Artifact,
    *,
    exact: bool = True,
    workers: int = 0,
    progress: Progress = silent,
) -> DiskDifference:
    """Compare the newest disk of each of two snapshots.

    Without `exact` no content is read, and the ranges are those of all chunks that are not the same: all that differs,
    and more.

    Raises:
        UsageError: a disk is so large that the end of its last block has no number.
        NotFound, StorageError: a blob is missing, or cannot be read.
        CorruptContent: a blob is damaged, or two of them contradict each other.
    """
    disks = (a.map.newest, b.map.newest)
    for artifact, disk in zip((a, b), disks, strict=True):
        if disk.size > EVERYTHING:
            raise UsageError(
                f"snapshot {artifact.digest}: disk {disk.name}: expected at most {EVERYTHING} bytes to compare, got"
                f" {disk.size}"
            )
    for artifact in (a, b):
        artifact.check_runs()  # of what is elsewhere nobody has done that
    rows, kinds = _ranges(a, b, disks, exact=exact, workers=workers, progress=progress)
    stored = a.manifest.needs
    return DiskDifference(
        size=(disks[0].size, disks[1].size),
        ranges=rows,
        kinds=kinds,
        chunks=count_chunks(a, b, disks),
        new_stored_bytes=sum(size for digest, size in b.manifest.needs.items() if digest not in stored),
        extents=(len(disks[0].extents), len(disks[1].extents)),
        exact=exact,
    )


def _ranges(
    a: Artifact, b: Artifact, disks: tuple[DiskMap, DiskMap], *, exact: bool, workers: int, progress: Progress
) -> tuple[Rows, npt.NDArray[np.uint8]]:
    size = max(disk.size for disk in disks)
    allocated = Coverage(disks[0].extents), Coverage(disks[1].extents)
    meter = Meter(progress, "comparing", size)
    workers = workers or default_workers()

    def compare(part: _Part) -> tuple[Rows, npt.NDArray[np.uint8]]:
        numbers = _numbers(part.rows)
        if exact:
            numbers = numbers[_unequal(_plain(a, part.a, part.rows), _plain(b, part.b, part.rows))]
        start = numbers * BLOCK
        in_a, in_b = (each.within(start, start + BLOCK) > 0 for each in allocated)
        used = in_a | in_b
        if exact and not used.all():
            at = int(start[~used][0])
            raise CorruptContent(
                f"the disks' bytes {at} to {at + BLOCK}: expected zeros outside of extents, got others"
            )
        kinds = np.where(in_a & in_b, ChangeKind.CHANGED, np.where(in_b, ChangeKind.ADDED, ChangeKind.REMOVED))
        return _joined(_Blocks(numbers[used], kinds[used].astype(np.uint8)))

    def parts() -> Iterator[_Part]:
        for window in differing(a, b, disks):
            yield from _parts(window)
            meter.add(max(0, min(window.end, size) - window.start))

    rows, kinds = [np.empty((0, 2), np.int64)], [np.empty(0, np.uint8)]
    with ThreadPoolExecutor(workers, "compare") as pool:
        for some, their_kinds in ordered_map(pool, compare, parts(), ahead=workers + 1):
            rows.append(some)
            kinds.append(their_kinds)
    found, kind = _adjacent_joined(np.concatenate(rows), np.concatenate(kinds))
    found[:, 1] = np.minimum(found.sum(axis=1), size) - found[:, 0]
    return found, kind


def _parts(window: Window) -> Iterator[_Part]:
    """A window's blocks that may differ, in parts of at most _PART bytes."""
    rows = clip(union(_blocks_of(window.a), _blocks_of(window.b)), window.start, window.end)
    ends = np.cumsum(rows[:, 1])
    for start in range(0, int(ends[-1]) if len(ends) else 0, _PART):
        # Bytes `start` to `end` of all rows, one behind the other.
        end = min(start + _PART, int(ends[-1]))
        begins = ends - rows[:, 1]
        near = slice(*np.searchsorted(ends, [start, end], side="right").tolist())
        near = slice(near.start, min(near.stop + 1, len(rows)))
        skip = np.maximum(start - begins[near], 0)
        length = np.minimum(ends[near], end) - np.maximum(begins[near], start)
        mine = np.stack([rows[near, 0] + skip, length], axis=1)[length > 0]
        low, high = int(mine[0, 0]), int(mine[-1].sum())
        yield _Part(mine, _reaching_into(window.a, low, high), _reaching_into(window.b, low, high))


def _blocks_of(placed: Placed) -> Rows:
    """The blocks that chunks touch."""
    start = placed.offset // BLOCK * BLOCK
    end = -(-(placed.offset + placed.located.length) // BLOCK) * BLOCK
    return np.stack([start, end - start], axis=1)


def _reaching_into(placed: Placed, low: int, high: int) -> Placed:
    return taken(placed, (placed.offset < high) & (placed.offset + placed.located.length > low))


def _plain(artifact: Artifact, placed: Placed, rows: Rows) -> npt.NDArray[np.uint8]:
    """The bytes of the rows, one behind the other; zeros where there is no chunk."""
    plain = np.zeros(int(rows[:, 1].sum()), np.uint8)
    starts, begins = rows[:, 0].tolist(), (np.cumsum(rows[:, 1]) - rows[:, 1]).tolist()
    lengths = rows[:, 1].tolist()
    for job in jobs(artifact.frames, placed.located, placed.offset):
        for offset, data, _ in job.run():
            n = max(int(np.searchsorted(rows[:, 0], offset, side="right")) - 1, 0)
            # A chunk touches one row; of a row that was divided a part of it may lie outside.
            low, high = max(offset, starts[n]), min(offset + len(data), starts[n] + lengths[n])
            if low < high:
                at = begins[n] + low - starts[n]
                plain[at : at + high - low] = np.frombuffer(data[low - offset : high - offset], np.uint8)
    return plain


def _unequal(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which blocks are not equal."""
    words = a.view("<u8") != b.view("<u8")
    unequal: npt.NDArray[np.bool_] = words.reshape(-1, BLOCK // 8).any(axis=1)
    return unequal


def _numbers(rows: Rows) -> npt.NDArray[np.int64]:
    """The numbers of the blocks in rows of whole blocks."""
    counts = rows[:, 1] // BLOCK
    firsts = np.cumsum(counts) - counts
    numbers: npt.NDArray[np.int64] = np.arange(int(counts.sum())) + np.repeat(rows[:, 0] // BLOCK - firsts, counts)
    return numbers


def _joined(blocks: _Blocks) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """Blocks as rows of bytes."""
    rows = np.stack([blocks.number * BLOCK, np.full(len(blocks.number), BLOCK)], axis=1)
    return _adjacent_joined(rows, blocks.kind)


def _adjacent_joined(rows: Rows, kinds: npt.NDArray[np.uint8]) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """The same with neighbours of one kind made one."""
    if not len(rows):
        return rows, kinds
    first = np.concatenate([[True], (rows[1:, 0] != rows[:-1].sum(axis=1)) | (kinds[1:] != kinds[:-1])])
    starts = rows[first, 0]
    ends = rows.sum(axis=1)[np.concatenate([first[1:], [True]])]
    return np.stack([starts, ends - starts], axis=1), kinds[first]
