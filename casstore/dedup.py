"""Decides for each chunk of a disk whether it is stored already, and writes down where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from casstore.base import Base, DeltaBase, Stretch
from casstore.digest import ChunkId
from casstore.locality import Known, Storage
from casstore.newchunks import NewChunk, NewChunks
from casstore.pack import Place
from casstore.packer import Stream
from casstore.runs import RunRecorder
from casstore.scan import WINDOW, PlainChunk


@dataclass(slots=True)
class Chunk:
    """A chunk of the disk, and what is known of it so far."""

    id: ChunkId
    plain: PlainChunk
    place: Place | None = None
    base: DeltaBase | None = None
    delta: bytes | None = None


@dataclass(slots=True)
class Batch:
    """Some chunks, in the disk's order, and what is known of them so far; or where all of them are stored."""

    chunks: list[Chunk]
    stored: Sequence[Stretch] = ()


class Placing:
    """Decides for each chunk whether it is new, and writes down the runs."""

    def __init__(self, storage: Storage, base: Base | None, new: NewChunks) -> None:
        self._storage, self._base, self._new = storage, base, new
        self.known: Known = Known(() if base is None else (pack.descriptor.digest for pack in base.packs))
        self.runs: RunRecorder = RunRecorder()
        self.chunks: int = 0
        self.count: dict[Stream, int] = dict.fromkeys(Stream, 0)
        self.plain: dict[Stream, int] = dict.fromkeys(Stream, 0)
        self.bases: dict[ChunkId, Place] = {}
        """Of the new deltas."""
        self._coming: set[ChunkId] = set()
        """The new chunks on their way from `place` to `record`: how many are may vary, what is new may not."""

    def place(self, windows: Iterable[Batch]) -> Iterator[Batch]:
        """Find out what is stored already, and what to make deltas of."""
        for window in windows:
            self._place_each(window.chunks)
            # Number the packs now: `record` is some windows behind, how many may vary.
            for place in (*window.stored, *(chunk.place for chunk in window.chunks)):
                if place is not None:
                    self.known.number(place.pack)
            yield window

    def _place_each(self, chunks: list[Chunk]) -> None:
        base = self._base
        if base is not None:
            for chunk in chunks:
                chunk.place = base.same(chunk.plain.offset, chunk.id)
        unknown = {chunk.id: None for chunk in chunks if chunk.place is None and not self._is_new(chunk.id)}
        found = self._storage.lookup(list(unknown), prefer=self.known.preferred) if unknown else {}
        for chunk in chunks:
            if chunk.place is None and chunk.id in unknown:
                chunk.place = found.get(chunk.id)
                if chunk.place is None and chunk.id not in self._coming:
                    self._coming.add(chunk.id)
                    if base is not None:
                        chunk.base = base.near(chunk.plain.offset, len(chunk.plain.data))

    def _is_new(self, chunk_id: ChunkId) -> bool:
        return chunk_id in self._coming or self._new.get(chunk_id) is not None

    def record(self, windows: Iterable[Batch]) -> Iterator[Chunk]:
        """Write down the runs; give out the chunks that are new, once each."""
        for window in windows:
            for run in window.stored:
                self.chunks += run.chunks
                self.runs.add(run.offset, run.length, self.known.number(run.pack), run.first, chunks=run.chunks)
            new: list[Chunk] = []
            for chunk in window.chunks:
                self.chunks += 1
                offset, length = chunk.plain.offset, len(chunk.plain.data)
                if chunk.place is not None:
                    self.runs.add(offset, length, self.known.number(chunk.place.pack), chunk.place.chunk)
                    continue
                found = self._new.get(chunk.id)
                if found is None:
                    stream = Stream.FULL if chunk.delta is None else Stream.DELTA
                    found = NewChunk(stream, self.count[stream], self.plain[stream])
                    self._new.add(chunk.id, found)
                    self._coming.discard(chunk.id)
                    self.count[stream] += 1
                    self.plain[stream] += length
                    if chunk.base is not None and chunk.delta is not None:
                        self.bases[chunk.base.id] = chunk.base.place
                    new.append(chunk)
                self.runs.add(offset, length, *found)
            yield from _without_window(new)


def _without_window(chunks: list[Chunk]) -> list[Chunk]:
    """A chunk keeps all of the window in memory that it was read with. Where the new ones are the lesser part of it
    they are copied: a frame may take one from each of many windows.
    """
    if 2 * sum(len(chunk.plain.data) for chunk in chunks) <= WINDOW:
        for chunk in chunks:
            chunk.plain = PlainChunk(chunk.plain.offset, memoryview(bytes(chunk.plain.data)))
    return chunks
