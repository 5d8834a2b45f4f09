"""Two disks that are much alike, read as one: what is equal on both is read of one of them only."""

from __future__ import annotations

from typing import Final

from casstore.byteranges import clip
from casstore.comparing.disks import DiskDifference
from casstore.filesystem.reader import DiskReader

_TOUCH: Final = 1 << 16
"""Bytes: a read that is not longer is done in one go."""


class AlikeReader:
    """The disk `own`, of which all that `other` has in the same place is read there; a DiskReader.

    `difference` is that between the two, in either order.
    """

    def __init__(self, own: DiskReader, other: DiskReader, difference: DiskDifference) -> None:
        self._own, self._other, self._rows = own, other, difference.ranges
        self._ends = difference.ranges.sum(axis=1)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._own.size

    def read_at(self, offset: int, length: int, /) -> bytes:
        """See DiskReader."""
        end = offset + length
        first, stop = self._ends.searchsorted(offset, "right"), self._rows[:, 0].searchsorted(end, "left")
        differing = clip(self._rows[first:stop], offset, end).tolist()
        if not differing:
            return self._alike(offset, length)
        if length <= _TOUCH:
            return self._own.read_at(offset, length)
        parts, at = [], offset
        for start, count in differing:
            parts += [self._alike(at, start - at), self._own.read_at(start, count)]
            at = start + count
        return b"".join([*parts, self._alike(at, end - at)])

    def _alike(self, offset: int, length: int) -> bytes:
        """Bytes that are the same on both disks; behind the end of the other they are zeros."""
        there = max(0, min(length, self._other.size - offset))
        return (self._other.read_at(offset, there) if there else b"") + bytes(length - there)
