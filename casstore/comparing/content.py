"""Whether a file has the same content in two file systems, with as little reading as the disks' difference permits.

A file whose bytes lie in the same places, where the disks are equal, is the same. One of whose blocks the disks differ
has changed. Only what is left, as files that were written anew in another place, is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from casstore.comparing.disks import DiskDifference
from casstore.filesystem.ext import ExtFilesystem, FileExtent
from casstore.filesystem.inode import Node
from casstore.spec import BLOCK, MIB

_PART: Final = MIB


class _Piece(NamedTuple):
    """Bytes of a file, `start` to `end`, which lie together on both disks. A place is None for what is in no place of
    its own, _HOLE for a hole.
    """

    start: int
    end: int
    a: int | None
    b: int | None


_HOLE: Final = -1


class Contents:
    """Compares the content of files of A and B; `changed` is the difference of their disks, if that is known."""

    def __init__(self, a: ExtFilesystem, b: ExtFilesystem, changed: DiskDifference | None) -> None:
        self._a, self._b, self._changed = a, b, changed
        self._linked: dict[tuple[int, int], bool] = {}
        if changed is not None:
            self._starts, self._ends = changed.ranges[:, 0], changed.ranges.sum(axis=1)

    def same(self, a: Node, b: Node) -> bool:
        """Whether two files, or two symlinks, have the same content.

        Raises:
            UnreadableFilesystem: one of them is damaged, or encrypted where that leaves it open.
        """
        if a.size != b.size:
            return False
        if a.inline is not None and b.inline is not None:
            return a.inline == b.inline
        key = (a.inode, b.inode)
        if key in self._linked:
            return self._linked[key]
        same = self._same(a, b)
        if a.links > 1 and b.links > 1:
            self._linked[key] = same
        return same

    def _same(self, a: Node, b: Node) -> bool:
        unsure = []
        for piece in _pieces(list(self._a.extents(a)), list(self._b.extents(b)), a.size):
            if piece.a == piece.b == _HOLE:
                continue
            if self._changed is not None and piece.a == piece.b and piece.a is not None:
                end = piece.a + piece.end - piece.start
                if not self._differ(piece.a, end):
                    continue
                # Rows are whole blocks. Of one that the file has only a part of, something else may have changed.
                if self._changed.exact and self._differ(-(-piece.a // BLOCK) * BLOCK, end // BLOCK * BLOCK):
                    return False
            unsure.append(piece)
        return all(self._reads_same(a, b, piece) for piece in unsure)

    def _differ(self, start: int, end: int) -> bool:
        """Whether the disks differ anywhere from byte `start` to `end`; not where that is nothing."""
        if start >= end:
            return False
        n = int(self._ends.searchsorted(start, "right"))
        return n < len(self._starts) and int(self._starts[n]) < end

    def _reads_same(self, a: Node, b: Node, piece: _Piece) -> bool:
        for start in range(piece.start, piece.end, _PART):
            length = min(_PART, piece.end - start)
            if self._a.read(a, start, length) != self._b.read(b, start, length):
                return False
        return True


def _pieces(a: Sequence[FileExtent], b: Sequence[FileExtent], size: int) -> Iterator[_Piece]:
    """A file cut where any extent begins or ends."""
    edges = {0, size}
    for extent in (*a, *b):
        edges |= {extent.offset, extent.offset + extent.length}
    starts = [extent.offset for extent in a], [extent.offset for extent in b]
    for start, end in pairwise(sorted(edges)):
        yield _Piece(start, end, _place(a, starts[0], start), _place(b, starts[1], start))


def _place(extents: Sequence[FileExtent], starts: Sequence[int], at: int) -> int | None:
    """Where a byte of the file lies on the disk."""
    n = bisect_right(starts, at) - 1
    if n < 0 or at >= extents[n].offset + extents[n].length:
        return _HOLE
    place = extents[n].disk
    return None if place is None else place + at - extents[n].offset
