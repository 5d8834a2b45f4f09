"""Reads a disk once, front to back, and gives its chunks: extents -> regions -> windows -> cuts.

A region is a run of extents with holes shorter than CHUNK_MIN between them; holes between regions are never read.
A window is what is in memory of a region: some MiB, plus the blocks that the cutter left over from the window before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from casstore import chunker
from casstore.disk import DiskSource, Extent
from casstore.progress import Meter
from casstore.spec import BLOCK, CHUNK_MIN, MAX_DISK, MIB

WINDOW = 4 * MIB
"""New bytes per window."""


class PlainChunk(NamedTuple):
    """A chunk of a disk: where it lies, and its bytes."""

    offset: int
    data: memoryview


class Scan:
    """One pass over a disk. `size` (bytes) and `extents` are complete when `windows` is exhausted."""

    def __init__(self, source: DiskSource, meter: Meter) -> None:
        self._source, self._meter = source, meter
        self.size = 0
        self.extents: list[Extent] = []

    def windows(self) -> Iterator[list[PlainChunk]]:
        """The chunks, window by window. Their memory stays valid for as long as it is referred to.

        Raises:
            SourceError: an I/O error, or the disk changed while it was read.
        """
        if self._source.holes_are_known():
            self.size = self._source.size or 0
            data = list(self._source.extents())
            doubtful = intersect(data, self._source.unwritten())
            self.extents = subtract(data, doubtful)
            for start, end in _regions(data, self.size):
                yield from self._region(start, end, look_in=doubtful)
            self.extents = merge(self.extents)
        else:
            end = MAX_DISK if self._source.size is None else self._source.size
            yield from self._region(0, end, look_in=[(0, end)])
            self.extents = merge(self.extents)
        self._source.check_unchanged()

    def _region(self, start: int, end: int, *, look_in: list[Extent]) -> Iterator[list[PlainChunk]]:
        """Read a region. In the ranges `look_in` the extents are not known: there they are the non-zero blocks."""
        carry = np.empty(0, np.uint8)
        at = start  # where the window (carry first) begins
        last = False
        while not last:
            want = min(WINDOW, end - at - len(carry))
            window = np.zeros(-(-(len(carry) + want) // BLOCK) * BLOCK, np.uint8)
            window[: len(carry)] = carry
            fresh = len(carry)
            got = self._source.read_into(window.data[fresh : fresh + want], at + fresh) if want else 0
            self._meter.add(got)
            filled = fresh + got
            last = got < want or at + filled >= end
            window = window[: -(-filled // BLOCK) * BLOCK]
            hashes = chunker.block_hashes(window)
            zero = chunker.zero_blocks(window, hashes)
            self.size = max(self.size, at + filled)
            if look_in:
                self._note_extents(zero[fresh // BLOCK :], at + fresh, look_in)
            cut = chunker.cut(hashes, zero, last=last)
            view = window.data
            yield [PlainChunk(at + a * BLOCK, view[a * BLOCK : min(b * BLOCK, filled)]) for a, b in cut.chunks]
            carry = window[cut.done * BLOCK :]
            at += cut.done * BLOCK

    def _note_extents(self, zero: npt.NDArray[np.bool_], offset: int, look_in: list[Extent]) -> None:
        # Only those that reach into the window: a fragmented disk has as many of them as it has windows.
        first = max(bisect_right(look_in, offset, key=itemgetter(0)) - 1, 0)
        near = look_in[first : bisect_left(look_in, offset + len(zero) * BLOCK, key=itemgetter(0))]
        edges = np.flatnonzero(np.diff(~zero, prepend=False, append=False)).reshape(-1, 2)
        runs = [(offset + a * BLOCK, min((b - a) * BLOCK, self.size - offset - a * BLOCK)) for a, b in edges.tolist()]
        self.extents += intersect(runs, near)


def intersect(some: list[Extent], others: list[Extent]) -> list[Extent]:
    """The bytes in both of two lists of extents, each in order and without overlaps."""
    result = []
    n = m = 0
    while n < len(some) and m < len(others):
        start = max(some[n][0], others[m][0])
        end = min(sum(some[n]), sum(others[m]))
        if start < end:
            result.append((start, end - start))
        if sum(some[n]) < sum(others[m]):
            n += 1
        else:
            m += 1
    return result


def subtract(some: list[Extent], others: list[Extent]) -> list[Extent]:
    """The bytes in `some` and not in `others`, two lists of extents in order and without overlaps."""
    starts = [0, *(sum(other) for other in others)]
    ends = [*(offset for offset, _ in others), MAX_DISK]
    return intersect(some, [(start, end - start) for start, end in zip(starts, ends, strict=True) if end > start])


def merge(extents: list[Extent]) -> list[Extent]:
    """The same bytes, in order, with adjacent extents made one."""
    result: list[Extent] = []
    for offset, length in sorted(extents):
        if result and sum(result[-1]) == offset:
            result[-1] = (result[-1][0], result[-1][1] + length)
        else:
            result.append((offset, length))
    return result


def _regions(extents: list[Extent], size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the ranges to read, at block boundaries (the last one ends with the disk)."""
    start = end = -1
    for offset, length in extents:
        left, right = offset // BLOCK * BLOCK, min(-(-(offset + length) // BLOCK) * BLOCK, size)
        if start < 0:
            start = left
        elif left - end >= CHUNK_MIN:
            yield start, end
            start = left
        end = right
    if start >= 0:
        yield start, end
