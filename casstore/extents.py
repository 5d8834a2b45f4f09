"""A disk's extents, for cutting ranges of the disk along them. All bytes of a disk outside of its extents are zero."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from casstore.byteranges import Coverage
from casstore.diskmap import DiskMap
from casstore.errors import CorruptContent


class Extents:
    """A disk's extents, for cutting pieces of the disk along them."""

    def __init__(self, disk: DiskMap) -> None:
        # Columns of numbers, not lists: a fragmented disk has millions of extents.
        self._coverage = Coverage(disk.extents)
        self._starts, self._ends = self._coverage.starts, self._coverage.ends

    def within(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """(offset, length) of the allocated parts of a range of the disk."""
        end = offset + length
        n = max(int(np.searchsorted(self._starts, offset, side="right")) - 1, 0)
        while n < len(self._starts) and self._starts[n] < end:
            a, b = max(offset, int(self._starts[n])), min(end, int(self._ends[n]))
            if a < b:
                yield a, b - a
            n += 1

    def parts(self, offset: int, data: memoryview) -> list[tuple[int, memoryview]]:
        """The allocated parts of a chunk.

        Raises:
            CorruptContent: what lies outside the extents is not zero.
        """
        inside = list(self.within(offset, len(data)))
        if len(inside) == 1 and inside[0] == (offset, len(data)):
            return [(offset, data)]
        edges = [offset, *(edge for a, length in inside for edge in (a, a + length)), offset + len(data)]
        for a, b in list(pairwise(edges))[::2]:
            if np.frombuffer(data[a - offset : b - offset], np.uint8).any():
                raise CorruptContent(f"the disk's bytes {a} to {b}: expected zeros outside of its extents, got others")
        return [(a, data[a - offset : a - offset + length]) for a, length in inside]

    def stick_out(self, offset: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the ranges are not wholly allocated."""
        sticking: npt.NDArray[np.bool_] = self.allocated(offset, length) < length
        return sticking

    def allocated(self, offset: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many bytes of each of the ranges are allocated."""
        return self._coverage.within(offset, offset + length)
