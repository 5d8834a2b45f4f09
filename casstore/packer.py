"""Writes the frames of a capture into packs, and knows afterwards where each chunk lies.

New chunks come in two streams: those in full frames and those in delta frames, each numbered in the order in which the
disk first shows them. Deltas are small; they are gathered and written together behind the full frames of their pack, so
that these stay side by side for readers. Frames that are copied from other packs have no numbers; `copy` tells their
place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from enum import IntEnum
from operator import attrgetter
from typing import NamedTuple, Protocol

from casstore import spec
from casstore.digest import ChunkId
from casstore.frame import Buffer, FrameKind
from casstore.oci import Descriptor
from casstore.pack import PackWriter, StoredPack
from casstore.runs import Part
from casstore.spec import MIB

PACKS_OF_A_SIZE = 1024
"""A manifest of 4 MiB names 28,000 packs. Each 1024 packs are PACK_TARGET larger than the 1024 before: 8192 packs hold
1.1 TiB, 28,000 hold 12 TiB.
"""
_GATHERED = 4 * MIB
"""Stored bytes of deltas that are kept in memory."""
_UNSYNCED = 4
"""Packs that are being synced at a time. More would only fill the page cache."""


class Stream(IntEnum):
    """A numbered sequence of new chunks; also stands for "a pack of this capture" where a pack has no number yet."""

    FULL = -1
    DELTA = -2


class EncodedFrame(NamedTuple):
    """A frame as it is stored, its chunks (digest, plain bytes), and the base of a delta."""

    kind: FrameKind
    stored: Buffer
    chunks: Sequence[tuple[ChunkId, int]]
    base: ChunkId | None = None


class BlobWriter(Protocol):
    """A blob that is being written; it exists, under its digest, once it is finished."""

    def write(self, data: Buffer, /) -> object:
        """Append all of `data`."""
        ...

    def finish(self, media_type: str, /) -> Descriptor:
        """Close and stage the blob."""
        ...


class _Segment(NamedTuple):
    """From this chunk of a stream on, its chunks follow each other in a pack."""

    number: int
    position: int
    pack: int
    chunk: int


class _Numbering:
    """Where the chunks of one stream are."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._number = self._position = 0
        self._follows = (-1, -1)

    def put(self, frame: EncodedFrame, pack: int, chunk: int) -> None:
        """The next chunks of the stream are those of `frame`, at this place."""
        if (pack, chunk) != self._follows:
            self._segments.append(_Segment(self._number, self._position, pack, chunk))
        self._follows = (pack, chunk + len(frame.chunks))
        self._number += len(frame.chunks)
        self._position += sum(length for _, length in frame.chunks)

    def find(self, number: int, position: int, length: int, count: int) -> Iterator[Part]:
        """Some consecutive chunks of the stream, which take `length` plain bytes from `position` on."""
        n = bisect_right(self._segments, number, key=attrgetter("number")) - 1
        while count:
            segment = self._segments[n]
            n += 1
            end = self._segments[n] if n < len(self._segments) else None
            part = count if end is None else min(count, end.number - number)
            size = length if end is None or part == count else end.position - position
            yield Part(size, segment.pack, segment.chunk + number - segment.number, part)
            number, position, length, count = number + part, position + size, length - size, count - part


class Packer:
    """Writes packs of about PACK_TARGET bytes; of a very large disk, larger ones after a while. For one thread at a
    time. Finished packs are synced by the threads of `finishing`.
    """

    def __init__(self, new_blob: Callable[[], BlobWriter], finishing: Executor) -> None:
        self._new_blob, self._finishing = new_blob, finishing
        self._open: tuple[BlobWriter, PackWriter] | None = None
        self._packs: list[tuple[Future[Descriptor], bytes]] = []
        self._numbering = {stream: _Numbering() for stream in Stream}
        self._deltas: list[EncodedFrame] = []
        self._gathered = 0
        self.stored: int = 0
        """Bytes of all frames."""
        self.counts: list[int] = []
        """Chunks of each finished pack."""

    def add(self, frame: EncodedFrame) -> None:
        """The next frame of its stream."""
        self.stored += len(frame.stored)
        if frame.kind is FrameKind.DELTA:
            self._deltas.append(frame)
            self._gathered += len(frame.stored)
            if self._gathered >= _GATHERED:
                self._write_deltas()
        else:
            self._numbering[Stream.FULL].put(frame, *self._write(frame))
        self._close_if_full()

    def copy(self, frame: EncodedFrame) -> tuple[int, int]:
        """A frame from another pack; returns its pack, and its first chunk there. All new frames must be there."""
        self._write_deltas()
        place = self._write(frame)
        self._close_if_full()
        return place

    def find(self, stream: Stream, number: int, position: int, length: int, count: int) -> Iterator[Part]:
        """Where some new chunks are, after `finish`."""
        return self._numbering[stream].find(number, position, length, count)

    def finish(self) -> list[StoredPack]:
        """The packs, all of them staged.

        Raises:
            StorageError: one of them could not be.
        """
        self._write_deltas()
        self._close()
        return [StoredPack(future.result(), stamp) for future, stamp in self._packs]

    def _write(self, frame: EncodedFrame) -> tuple[int, int]:
        if self._open is None:
            blob = self._new_blob()
            self._open = blob, PackWriter(blob)
        return len(self._packs), self._open[1].add(frame.kind, frame.stored, frame.chunks, frame.base)

    def _write_deltas(self) -> None:
        for frame in self._deltas:
            self._numbering[Stream.DELTA].put(frame, *self._write(frame))
        self._deltas, self._gathered = [], 0

    def _close_if_full(self) -> None:
        size = (self._open[1].size if self._open else 0) + self._gathered
        if size >= spec.PACK_TARGET * (1 + len(self._packs) // PACKS_OF_A_SIZE):
            self._write_deltas()
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            blob, writer = self._open
            directory = writer.finish()
            self._open = None
            self.counts.append(len(directory))
            self._packs.append((self._finishing.submit(blob.finish, spec.MEDIA_PACK), directory.stamp))
            if len(self._packs) > _UNSYNCED:
                self._packs[-1 - _UNSYNCED][0].result()
