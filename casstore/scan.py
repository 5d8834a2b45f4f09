"""Reads a disk once, front to back, and gives its chunks: extents -> regions -> windows -> cuts.

A region is a run of extents with holes shorter than CHUNK_MIN between them; holes between regions are never read.
A region is read in parts of some MiB. A window is such a part, with the blocks that the cutter left over of the one
before.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from casstore import chunker
from casstore.digest import ChunkId
from casstore.disk import DiskSource, Extent
from casstore.pool import ordered_map
from casstore.progress import Meter
from casstore.spec import BLOCK, CHUNK_MIN, MAX_DISK, MIB

WINDOW = 4 * MIB
"""Bytes that are read in one go."""
_SAMPLES = 32
_SAMPLE = MIB


_NOTHING = memoryview(b"")
_NO_HASHES, _NO_ZEROS = np.empty(0, np.uint64), np.empty(0, np.bool_)

Known = TypeVar("Known")
Known_co = TypeVar("Known_co", covariant=True)


class PlainChunk(NamedTuple):
    """A chunk of a disk: where it lies, and its bytes."""

    offset: int
    data: memoryview


@dataclass(slots=True)
class Window(Generic[Known]):
    """A part of a disk: its chunks; or, if it is as it was expected to be, what is known of it."""

    chunks: list[PlainChunk]
    known: Sequence[Known] = ()


class Expected(Protocol[Known_co]):
    """What a part of the disk may well be."""

    def match(self, data: memoryview, offset: int) -> Sequence[Known_co]:
        """What is known of the disk's bytes from `offset` on, if `data` is as expected; else nothing. Any thread."""
        ...


class Guide(Protocol[Known_co]):
    """Knows beforehand what a disk may be like."""

    def expect(self, start: int, stop: int) -> tuple[int, Expected[Known_co] | None]:
        """What the disk may be like from `start` on, and how far: at most to `stop`. Asked in the disk's order."""
        ...


class _Part(NamedTuple, Generic[Known]):
    """What is read in one go: bytes `start` to `stop` of the disk."""

    start: int
    stop: int
    last: bool
    """A chunk must end here."""
    expected: Expected[Known] | None


class _Read(NamedTuple, Generic[Known]):
    """A part in memory, with room before it for what the cutter leaves over of the part before."""

    offset: int
    buffer: npt.NDArray[np.uint8]
    """LOOKAHEAD blocks of room, then the disk's bytes, filled up with zeros to a whole block."""
    length: int
    """Bytes that there were."""
    hashes: npt.NDArray[np.uint64]
    zero: npt.NDArray[np.bool_]
    last: bool
    """A chunk must end here."""
    plain: memoryview
    """The disk's bytes, if somebody else wants them, too."""
    known: Sequence[Known] = ()
    """If there is something, it is all that there is."""


class Tap(Protocol):
    """Gets all that is read of a disk, in its order, while it is captured; what it does not get is zero."""

    def begin(self, size: int | None, extents: Sequence[Extent] | None, /) -> object:
        """Before anything else: the bytes of the disk, and what is allocated of them, as far as that is known."""
        ...

    def __call__(self, offset: int, data: memoryview, /) -> object:
        """The disk's bytes from `offset` on."""
        ...


class _Buffers:
    """Memory for windows, used again when nothing refers to a window any more. Fresh memory costs a page fault per
    page, a fifth of what reading costs.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []

    def take(self) -> npt.NDArray[np.uint8]:
        try:
            memory = self._free.pop()
        except IndexError:
            memory = bytearray(self._size)
        window = np.frombuffer(memory, np.uint8)  # what is made of it, slices and memoryviews, refers to it
        weakref.finalize(window, self._free.append, memory).atexit = False
        return window


class Scan(Generic[Known]):
    """One pass over a disk. `size` (bytes) and `extents` are complete when `windows` is exhausted.

    Reading and hashing the blocks is done in the threads of `pool`, some parts ahead; a pipe is read by the caller's.
    With a `guide`, parts end where the guide says, chunks end where parts do, and what is as expected is not cut.
    A `tap` is called in a thread of its own, with what is read.
    """

    def __init__(
        self,
        source: DiskSource,
        meter: Meter,
        pool: Executor,
        *,
        ahead: int,
        guide: Guide[Known] | None = None,
        tap: Tap | None = None,
    ) -> None:
        self._source, self._meter, self._pool, self._ahead, self._guide = source, meter, pool, ahead, guide
        self._tap = tap
        self._buffers = _Buffers((chunker.LOOKAHEAD * BLOCK) + WINDOW)
        self.size: int = 0
        self.extents: list[Extent] = []

    def windows(self) -> Iterator[Window[Known]]:
        """The chunks, window by window. Their memory stays valid for as long as it is referred to.

        Raises:
            SourceError: an I/O error, or the disk changed while it was read.
        """
        if self._source.holes_are_known():
            self.size = self._source.size or 0
            data = list(self._source.extents())
            look_in = intersect(data, self._source.unwritten())
            self.extents = subtract(data, look_in)
            regions = list(_regions(data, self.size))
        else:
            end = MAX_DISK if self._source.size is None else self._source.size
            look_in = regions = [(0, end)]
        if self._tap is not None:
            self._tap.begin(self._source.size, None if look_in else list(self.extents))
        yield from self._cut(self._tapped(self._reads(regions, look_in)), look_in)
        self.extents = merge(self.extents)
        self._source.check_unchanged()

    def _reads(self, regions: Iterable[tuple[int, int]], look_in: list[Extent]) -> Iterator[_Read[Known]]:
        parts = (part for start, end in regions for part in _parts(start, end, self._guide))
        # Where the extents are not known every block is looked at.
        parts = (part._replace(expected=None) if _near(look_in, part.start, part.stop) else part for part in parts)
        if not self._source.in_order:
            yield from ordered_map(self._pool, self._read, parts, ahead=self._ahead)
            return
        for part in parts:
            yield (read := self._read(part))
            if read.length < part.stop - part.start:  # the end of a pipe
                return

    def _tapped(self, reads: Iterable[_Read[Known]]) -> Iterator[_Read[Known]]:
        if self._tap is None:
            yield from reads
            return
        tap = self._tap

        def pass_on(read: _Read[Known]) -> _Read[Known]:
            tap(read.offset, read.plain)
            return read._replace(plain=_NOTHING)

        with ThreadPoolExecutor(1, "tap") as tapping:
            yield from ordered_map(tapping, pass_on, reads, ahead=self._ahead)

    def _read(self, part: _Part[Known]) -> _Read[Known]:
        room, wanted = chunker.LOOKAHEAD * BLOCK, part.stop - part.start
        buffer = self._buffers.take()
        got = self._source.read_into(buffer.data[room : room + wanted], part.start)
        plain = _NOTHING if self._tap is None else buffer.data[room : room + got]
        if part.expected is not None and got == wanted:
            known = part.expected.match(buffer.data[room : room + got], part.start)
            if known:
                return _Read(part.start, buffer[:0], got, _NO_HASHES, _NO_ZEROS, part.last, plain, known)
        blocks = -(-got // BLOCK)
        buffer[room + got : room + blocks * BLOCK] = 0
        buffer = buffer[: room + blocks * BLOCK]
        hashes = chunker.block_hashes(buffer[room:])
        zero = chunker.zero_blocks(buffer[room:], hashes)
        return _Read(part.start, buffer, got, hashes, zero, part.last or got < wanted, plain)

    def _cut(self, reads: Iterable[_Read[Known]], look_in: list[Extent]) -> Iterator[Window[Known]]:
        """In the ranges `look_in` the extents are not known: there they are the non-zero blocks."""
        left = np.empty(0, np.uint8)
        hashes, zero = _NO_HASHES, _NO_ZEROS
        for read in reads:
            self._meter.add(read.length)
            self.size = max(self.size, read.offset + read.length)
            if read.known:
                yield Window([], read.known)
                continue
            if look_in:
                self._note_extents(read.zero, read.offset, look_in)
            start = chunker.LOOKAHEAD * BLOCK - len(left)  # what is left over goes in front, into the room
            read.buffer[start : start + len(left)] = left
            hashes, zero = np.concatenate([hashes, read.hashes]), np.concatenate([zero, read.zero])
            at = read.offset - len(left)
            view = read.buffer.data[start:][: len(left) + read.length]
            cut = chunker.cut(hashes, zero, last=read.last)
            yield Window([PlainChunk(at + a * BLOCK, view[a * BLOCK : b * BLOCK]) for a, b in cut.chunks])
            left = read.buffer[start + cut.done * BLOCK :]
            hashes, zero = hashes[cut.done :], zero[cut.done :]

    def _note_extents(self, zero: npt.NDArray[np.bool_], offset: int, look_in: list[Extent]) -> None:
        near = _near(look_in, offset, offset + len(zero) * BLOCK)
        edges = np.flatnonzero(np.diff(~zero, prepend=False, append=False)).reshape(-1, 2)
        runs = [(offset + a * BLOCK, min((b - a) * BLOCK, self.size - offset - a * BLOCK)) for a, b in edges.tolist()]
        self.extents += intersect(runs, near)


def _near(extents: list[Extent], start: int, end: int) -> list[Extent]:
    """The extents that reach into a range, by look-up: a fragmented disk has as many of them as it has windows."""
    first = max(bisect_right(extents, start, key=itemgetter(0)) - 1, 0)
    if first < len(extents) and sum(extents[first]) <= start:
        first += 1
    return extents[first : bisect_left(extents, end, key=itemgetter(0))]


def _parts(start: int, end: int, guide: Guide[Known] | None) -> Iterator[_Part[Known]]:
    """A region in parts of at most WINDOW bytes."""
    while True:
        stop, expected = min(start + WINDOW, end), None
        if guide is not None and stop > start:
            stop, expected = guide.expect(start, stop)
        yield _Part(start, stop, guide is not None or stop == end, expected)
        start = stop
        if start >= end:
            return


def sample(source: DiskSource) -> list[ChunkId]:
    """The digests of some hundred chunks from all over a disk; none of one that can be read once only.

    Raises:
        SourceError: an I/O error, or the disk was truncated.
    """
    if source.size is None or source.in_order:
        return []
    data = list(source.extents()) if source.holes_are_known() else [(0, source.size)]
    total = sum(length for _, length in data)
    wanted = [total * n // _SAMPLES for n in range(_SAMPLES)]  # these bytes of the allocated ones
    ids: dict[ChunkId, None] = {}
    before = 0
    for offset, length in data:
        while wanted and wanted[0] < before + length:
            start = (offset + wanted.pop(0) - before) // BLOCK * BLOCK
            size = min(_SAMPLE, offset + length - start) // BLOCK * BLOCK
            if size > 0:
                window = np.empty(size, np.uint8)
                source.read_into(window.data, start)
                hashes = chunker.block_hashes(window)
                cut = chunker.cut(hashes, chunker.zero_blocks(window, hashes), last=False)
                # The first one starts anywhere, and not where a chunk does.
                ids |= dict.fromkeys(
                    ChunkId(blake3(window.data[a * BLOCK : b * BLOCK]).digest()) for a, b in cut.chunks[1:]
                )
        before += length
    return list(ids)


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
