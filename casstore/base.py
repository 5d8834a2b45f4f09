"""The base of a capture: a snapshot that is like the disk, asked from front to back for what it has at a place.

A chunk that is the base's at the same place needs no look-up. One that differs may be stored as a delta: of the base's
chunk at that place or, where that is a delta itself, of its base, so that no chunk is more than two decodes away.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from casstore.artifact import Artifact, Placed
from casstore.digest import ChunkId
from casstore.directories import Located
from casstore.diskmap import DiskMap
from casstore.pack import Place, StoredPack
from casstore.spec import BLOCK, MIB

_ID = 32
_BACK = 16 * MIB
"""Bytes; more than what a window of a scan takes."""


@dataclass(frozen=True, slots=True)
class DeltaBase:
    """A chunk in a full frame that a delta may be made of."""

    id: ChunkId
    place: Place
    located: Located
    """The same, as one row."""
    shift: int
    """Bytes from the place of the new chunk to that of the base's chunk there."""
    promising: bool
    """They start or end at the same place. An edit moves no boundary but those that it hits, while of other content
    that took the place few boundaries are where they were."""


class Stretch(NamedTuple):
    """Chunks that follow each other on the disk, from `offset` on and `length` bytes long, and in a pack."""

    offset: int
    length: int
    pack: StoredPack
    first: int
    chunks: int


class Base:
    """A disk of a stored snapshot. Offsets (bytes) are asked in ascending order: by `expect`, and some time later by
    `same`; `near` may go back by _BACK. `plain` is for any thread.
    """

    def __init__(self, artifact: Artifact, disk: DiskMap) -> None:
        self._artifact = artifact
        self.packs: Sequence[StoredPack] = artifact.packs
        self._windows: Iterator[Placed] = artifact.chunks(disk)
        self._held = deque([_Window(None)])

    def expect(self, start: int, stop: int) -> tuple[int, _Expected | None]:
        """See scan.Guide. Expected is what the base has there, in whole chunks."""
        window, row = self._find(start)
        if row < 0 or window.ends[row] <= start:
            row += 1
        end = bisect_left(window.offsets, stop)
        if row >= end or window.offsets[row] < start:
            return stop, None
        limit = stop
        if window.ends[end - 1] > stop:
            end -= 1
            limit = window.offsets[end]
        elif end == len(window.offsets):
            limit = window.end  # what follows is in the next window
        if limit <= start or (limit % BLOCK and limit != stop):
            return stop, None
        return limit, _Expected(self.packs, window, row, end) if end > row else None

    def same(self, offset: int, chunk_id: ChunkId) -> Place | None:
        """Where the chunk is stored, if the base has it at the same place."""
        while len(self._held) > 1 and self._held[0].end + _BACK <= offset:
            self._held.popleft()
        window, row = self._find(offset)
        if row < 0 or window.offsets[row] != offset or window.ids[row * _ID : row * _ID + _ID] != chunk_id:
            return None
        return Place(self.packs[window.packs[row]], window.chunks[row])

    def near(self, offset: int, length: int) -> DeltaBase | None:
        """What to make a delta of a chunk of: the base's chunk that lies at most of its place, or that one's base."""
        best, most = None, 0
        window, row = self._find(offset)
        row = max(row, 0)
        while row < len(window.offsets) and window.offsets[row] < offset + length:
            common = min(offset + length, window.ends[row]) - max(offset, window.offsets[row])
            if common > most:
                best, most = row, common
            row += 1
        if best is None or window.located is None:
            return None
        full = self._artifact.frames.with_bases(window.located.take(np.array([best])))
        start, end = window.offsets[best], window.ends[best]
        promising = start == offset or end == offset + length
        place = Place(self.packs[int(full.pack[0])], int(full.chunk[0]))
        return DeltaBase(ChunkId(full.ids[0].tobytes()), place, full, start - offset, promising)

    def plain(self, base: DeltaBase) -> memoryview:
        """Its plain bytes, checked.

        Raises:
            CorruptContent, NotFound, StorageError: it cannot be read.
        """
        return self._artifact.frames.chunks(base.located)[0]

    def _find(self, offset: int) -> tuple[_Window, int]:
        """The last row that starts at or before `offset`; -1: the first one of its window starts after it."""
        held = self._held
        while offset >= held[-1].end and (following := next(self._windows, None)) is not None:
            held.append(_Window(following))
        n = len(held) - 1
        while n > 0 and offset < held[n].offsets[0]:
            n -= 1
        if n + 1 < len(held) and held[n].end <= offset:
            return held[n + 1], -1  # between two windows, or before the first one
        return held[n], bisect_right(held[n].offsets, offset) - 1


class _Window:
    """Some chunks of the disk, in lists: single items of numpy's arrays are slow to get."""

    def __init__(self, placed: Placed | None) -> None:
        self.located = None if placed is None else placed.located
        self.offsets: list[int] = [] if placed is None else placed.offset.tolist()
        self.ends: list[int] = [] if placed is None else (placed.offset + placed.located.length).tolist()
        self.packs: list[int] = [] if placed is None else placed.located.pack.tolist()
        self.chunks: list[int] = [] if placed is None else placed.located.chunk.tolist()
        self.ids = b"" if placed is None else placed.located.ids.tobytes()
        self.end = self.ends[-1] if self.ends else -1
        self.breaks: list[int] = [] if placed is None else _breaks(placed)
        """The rows that do not follow the row before, in the pack and on the disk."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """Rows of a window, from `row` to `end`, and zeros around them."""

    packs: Sequence[StoredPack]
    window: _Window
    row: int
    end: int

    def match(self, data: memoryview, offset: int) -> Sequence[Stretch]:
        """See scan.Expected."""
        window, at = self.window, offset
        for row in range(self.row, self.end):
            start, at = at, window.ends[row]
            first = window.offsets[row]
            if start < first and not _is_zero(data[start - offset : first - offset]):
                return ()
            digest = blake3(data[first - offset : at - offset]).digest()
            if digest != window.ids[row * _ID : row * _ID + _ID]:
                return ()
        return self._stretches() if _is_zero(data[at - offset :]) else ()

    def _stretches(self) -> Sequence[Stretch]:
        window, row, end = self.window, self.row, self.end
        edges = [row, *window.breaks[bisect_right(window.breaks, row) : bisect_left(window.breaks, end)], end]
        return [
            Stretch(
                window.offsets[a],
                window.ends[b - 1] - window.offsets[a],
                self.packs[window.packs[a]],
                window.chunks[a],
                b - a,
            )
            for a, b in pairwise(edges)
        ]


def _is_zero(data: memoryview) -> bool:
    return not np.frombuffer(data, np.uint8).any()


def _breaks(placed: Placed) -> list[int]:
    pack, chunk = placed.located.pack, placed.located.chunk
    breaks = (pack[1:] != pack[:-1]) | (chunk[1:] != chunk[:-1] + 1)
    breaks |= placed.offset[1:] != placed.offset[:-1] + placed.located.length[:-1]
    rows: list[int] = (np.flatnonzero(breaks) + 1).tolist()
    return rows
