"""Reads a disk once, front to back, and gives its chunks: extents -> regions -> windows -> cuts.

A region is a run of extents with holes shorter than CHUNK_MIN between them; holes between regions are never read.
A window is what is in memory of a region: some MiB, plus the blocks that the cutter left over from the window before.
"""

from __future__ import annotations

from collections.abc import Iterator
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
            # All at once: reading a preallocated range can turn it from hole to data.
            self.extents = list(self._source.extents())
            for start, end in _regions(self.extents, self.size):
                yield from self._region(start, end, look_for_extents=False)
        else:
            end = MAX_DISK if self._source.size is None else self._source.size
            yield from self._region(0, end, look_for_extents=True)
        self._source.check_unchanged()

    def _region(self, start: int, end: int, *, look_for_extents: bool) -> Iterator[list[PlainChunk]]:
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
            if look_for_extents:
                self.size = at + filled
                self._note_extents(zero[fresh // BLOCK :], at + fresh)
            cut = chunker.cut(hashes, zero, last=last)
            view = window.data
            yield [PlainChunk(at + a * BLOCK, view[a * BLOCK : min(b * BLOCK, filled)]) for a, b in cut.chunks]
            carry = window[cut.done * BLOCK :]
            at += cut.done * BLOCK

    def _note_extents(self, zero: npt.NDArray[np.bool_], offset: int) -> None:
        """Count runs of non-zero blocks as extents, where the file system cannot tell."""
        edges = np.flatnonzero(np.diff(~zero, prepend=False, append=False)).reshape(-1, 2)
        for a, b in edges.tolist():
            start, end = offset + a * BLOCK, min(offset + b * BLOCK, self.size)
            if self.extents and sum(self.extents[-1]) == start:
                start = self.extents.pop()[0]
            self.extents.append((start, end - start))


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
