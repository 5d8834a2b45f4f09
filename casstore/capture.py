"""Turns a disk into packs and a map: scan -> hash -> place -> make deltas -> compress -> pack -> settle.

Each stage is a generator over the one before. What costs time runs in threads, with a bounded lead: hashing, deltas and
compressing in a pool, writing in a thread of its own, syncing in another. So memory is bounded, and the result is the
same for any number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import blake3
import numpy as np

from casstore import frame, spec
from casstore.base import Base, DeltaBase, Stretch
from casstore.digest import ChunkId, Digest
from casstore.disk import DiskSource
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap
from casstore.errors import CasstoreError
from casstore.frame import FrameKind
from casstore.locality import Known
from casstore.newchunks import NewChunk, NewChunks
from casstore.oci import Descriptor
from casstore.pack import PackDirectory, Place, StoredPack
from casstore.packer import BlobWriter, EncodedFrame, Packer, Stream
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.runs import Part, Row, RunRecorder, settle
from casstore.scan import WINDOW, PlainChunk, Scan, Window

_MOST_AHEAD = 6
"""Windows between two stages, at the most, for any number of workers. So memory stays below 200 MiB."""
_TRIES = 4
"""Deltas to be tried in one go."""
_PAYS = 0.5
"""A delta is kept if it takes less than this part of what the chunk takes in full: it costs a second decode."""


class Storage(Protocol):
    """What is stored already, and a place for what is new."""

    def new_blob(self) -> BlobWriter:
        """Start a blob."""
        ...

    @property
    def scratch(self) -> str:
        """A directory for files that do not outlive the capture."""
        ...

    def lookup(
        self, ids: Sequence[ChunkId], /, *, prefer: Collection[Digest] = (), full: bool = False
    ) -> Mapping[ChunkId, Place]:
        """Which of these chunks are stored already, and stay stored until the snapshot is committed.

        Of several places one in the packs `prefer` is taken; `full` asks for places in full frames only.
        """
        ...

    def directory(self, pack: StoredPack, /) -> PackDirectory:
        """The directory of a stored pack.

        Raises:
            CorruptContent, NotFound: it is damaged or gone.
        """
        ...

    def read_range(self, descriptor: Descriptor, offset: int, length: int, /) -> bytes:
        """A part of a stored pack."""
        ...


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """zstd `level` (1 to 19) and number of threads; the result depends on the level only."""

    level: int = frame.DEFAULT_LEVEL
    workers: int = 0
    """0: one per processor."""


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """What a capture cost; all in bytes but the counts."""

    allocated: int
    chunks: int
    new_chunks: int
    new_plain: int
    new_stored: int
    """Bytes of the packs that were written."""
    deltas: int = 0
    """How many of the new chunks are deltas."""
    copied: int = 0
    """Stored bytes of the frames that were copied from packs of which too little was used to list them."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A captured disk: its map, the packs in the map's order, and what they cost."""

    map: SnapshotMap
    packs: tuple[Descriptor, ...]
    stats: CaptureStats
    made: Mapping[Digest, Collection[int]]
    """Per pack of this capture, the chunks that were made of the disk's bytes; the others were copied, unseen."""
    dissolved: tuple[Digest, ...] = ()
    """The packs that they were copied from."""


@dataclass(slots=True)
class _Chunk:
    """A chunk of the disk, and what is known of it so far."""

    id: ChunkId
    plain: PlainChunk
    place: Place | None = None
    base: DeltaBase | None = None
    delta: bytes | None = None


def capture(
    source: DiskSource,
    disk_name: str,
    *,
    storage: Storage,
    base: Base | None = None,
    options: CaptureOptions,
    meter: Meter,
) -> Capture:
    """Read `source` once and store what is new of it.

    Raises:
        SourceError: the disk cannot be read or changed while it was read.
        StorageError: the packs cannot be written.
        CorruptContent: a pack that the snapshot would rely on is damaged.
    """
    workers = options.workers or default_workers()
    ahead = min(workers, _MOST_AHEAD) + 1
    frames_ahead = 6 * min(workers, _MOST_AHEAD)
    new = NewChunks(os.path.join(storage.scratch, "new-chunks"))
    with (
        ThreadPoolExecutor(1, "sync") as syncing,
        ThreadPoolExecutor(1, "write") as writing,
        ThreadPoolExecutor(workers, "capture") as pool,
    ):
        try:
            scan = Scan(source, meter, pool, ahead=ahead, guide=base)
            packer = Packer(storage.new_blob, syncing)
            plan = _Plan(storage, base, new)
            hashed = ordered_map(pool, _hash, scan.windows(), ahead=ahead)
            tried = _try_deltas(pool, plan.place(hashed), base, options, ahead=2 * ahead)
            encoded = ordered_map(pool, _encoder(options), _frames(plan.record(tried)), ahead=frames_ahead)
            for _ in ordered_map(writing, packer.add, encoded, ahead=frames_ahead):
                pass
            settled = _Settled.of(plan, storage, packer)
        finally:
            new.close()
    disk = DiskMap(disk_name, scan.size, np.array(scan.extents, np.int64).reshape(-1, 2), settled.runs)
    entries = tuple(PackEntry(pack.descriptor.digest, pack.directory) for pack in settled.packs)
    stats = CaptureStats(
        allocated=disk.allocated,
        chunks=plan.chunks,
        new_chunks=len(new),
        new_plain=plan.plain[Stream.FULL] + plan.plain[Stream.DELTA],
        new_stored=sum(pack.descriptor.size for pack in settled.new),
        deltas=plan.count[Stream.DELTA],
        copied=settled.copied,
    )
    packs = tuple(pack.descriptor for pack in settled.packs)
    return Capture(SnapshotMap(entries, (disk,)), packs, stats, settled.made, settled.dissolved)


@dataclass(slots=True)
class _Window:
    """Some chunks, in the disk's order, and what is known of them so far; or where all of them are stored."""

    chunks: list[_Chunk]
    stored: Sequence[Stretch] = ()


def _hash(window: Window[Stretch]) -> _Window:
    return _Window(
        [_Chunk(ChunkId(blake3.blake3(chunk.data).digest()), chunk) for chunk in window.chunks], window.known
    )


class _Plan:
    """Decides for each chunk whether it is new, and writes down the runs."""

    def __init__(self, storage: Storage, base: Base | None, new: NewChunks) -> None:
        self._storage, self._base, self._new = storage, base, new
        self.known = Known(() if base is None else (pack.descriptor.digest for pack in base.packs))
        self.runs = RunRecorder()
        self.chunks = 0
        self.count = dict.fromkeys(Stream, 0)
        self.plain = dict.fromkeys(Stream, 0)
        self.bases: dict[ChunkId, Place] = {}
        """Of the new deltas."""

    def place(self, windows: Iterable[_Window]) -> Iterator[_Window]:
        """Find out what is stored already, and what to make deltas of."""
        for window in windows:
            self._place_each(window.chunks)
            # Number the packs now: `record` is some windows behind, how many may vary.
            for place in (*window.stored, *(chunk.place for chunk in window.chunks)):
                if place is not None:
                    self.known.number(place.pack)
            yield window

    def _place_each(self, chunks: list[_Chunk]) -> None:
        base = self._base
        if base is not None:
            for chunk in chunks:
                chunk.place = base.same(chunk.plain.offset, chunk.id)
        unknown = {chunk.id: None for chunk in chunks if chunk.place is None and self._new.get(chunk.id) is None}
        found = self._storage.lookup(list(unknown), prefer=self.known.preferred) if unknown else {}
        for chunk in chunks:
            if chunk.place is None and chunk.id in unknown:
                chunk.place = found.get(chunk.id)
                if chunk.place is None and base is not None:
                    chunk.base = base.near(chunk.plain.offset, len(chunk.plain.data))

    def record(self, windows: Iterable[_Window]) -> Iterator[_Chunk]:
        """Write down the runs; give out the chunks that are new, once each."""
        for window in windows:
            for run in window.stored:
                self.chunks += run.chunks
                self.runs.add(run.offset, run.length, self.known.number(run.pack), run.first, chunks=run.chunks)
            new: list[_Chunk] = []
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
                    self.count[stream] += 1
                    self.plain[stream] += length
                    if chunk.base is not None and chunk.delta is not None:
                        self.bases[chunk.base.id] = chunk.base.place
                    new.append(chunk)
                self.runs.add(offset, length, *found)
            yield from _without_window(new)


def _without_window(chunks: list[_Chunk]) -> list[_Chunk]:
    """A chunk keeps all of the window in memory that it was read with. Where the new ones are the lesser part of it
    they are copied: a frame may take one from each of many windows.
    """
    if 2 * sum(len(chunk.plain.data) for chunk in chunks) <= WINDOW:
        for chunk in chunks:
            chunk.plain = PlainChunk(chunk.plain.offset, memoryview(bytes(chunk.plain.data)))
    return chunks


def _try_deltas(
    pool: Executor, windows: Iterable[_Window], base: Base | None, options: CaptureOptions, *, ahead: int
) -> Iterable[_Window]:
    """Make a delta of each chunk that has a base, where that pays."""
    if base is None:
        return windows
    few = (part for window in windows for part in _parts(window))

    def attempt(chunk: _Chunk) -> None:
        if chunk.base is None:
            return
        try:
            plain = base.plain(chunk.base)
        except CasstoreError:
            return  # whatever is wrong with it: the chunk is stored in full
        data = chunk.plain.data
        if not chunk.base.promising and not _resembles(data, plain, chunk.base.shift):
            return
        delta = frame.encode_delta(data, plain, options.level)
        if len(delta) < _PAYS * len(data) and len(delta) < _PAYS * len(frame.encode([data], options.level)[1]):
            chunk.delta = delta

    def attempt_all(window: _Window) -> _Window:
        for chunk in window.chunks:
            attempt(chunk)
        return window

    return ordered_map(pool, attempt_all, few, ahead=ahead)


def _parts(window: _Window) -> Iterator[_Window]:
    """Split a window so that nowhere many deltas have to be made, one after the other, while other threads wait."""
    start = tries = 0
    for n, chunk in enumerate(window.chunks):
        tries += chunk.base is not None
        if tries == _TRIES:
            yield replace(window, chunks=window.chunks[start : n + 1])
            start, tries = n + 1, 0
    yield replace(window, chunks=window.chunks[start:])


def _resembles(data: memoryview, base: memoryview, shift: int) -> bool:
    """Whether a quarter of the words of `data` that are not zero are those of `base` at the same place of the disk."""
    start, end = max(shift, 0), min(len(data), shift + len(base))
    words = (end - start) // 8
    if words <= 0:
        return False
    mine = np.frombuffer(data, np.uint64, words, start)
    theirs = np.frombuffer(base, np.uint64, words, start - shift)
    filled = mine != 0
    return bool(4 * np.count_nonzero((mine == theirs) & filled) >= np.count_nonzero(filled))


def _frames(chunks: Iterable[_Chunk]) -> Iterator[list[_Chunk]]:
    """Put consecutive new chunks together, up to FRAME_PLAIN bytes; each delta stays alone."""
    together: list[_Chunk] = []
    plain = 0
    for chunk in chunks:
        if chunk.delta is not None:
            yield [chunk]
            continue
        if together and plain + len(chunk.plain.data) > spec.FRAME_PLAIN:
            yield together
            together, plain = [], 0
        together.append(chunk)
        plain += len(chunk.plain.data)
    if together:
        yield together


def _encoder(options: CaptureOptions) -> Callable[[list[_Chunk]], EncodedFrame]:
    def encode(chunks: list[_Chunk]) -> EncodedFrame:
        names = [(chunk.id, len(chunk.plain.data)) for chunk in chunks]
        first = chunks[0]
        if first.delta is not None and first.base is not None:
            return EncodedFrame(FrameKind.DELTA, first.delta, names, first.base.id)
        return EncodedFrame(*frame.encode([chunk.plain.data for chunk in chunks], options.level), names)

    return encode


@dataclass(frozen=True, slots=True)
class _Settled:
    """Where everything is in the end."""

    packs: list[StoredPack]
    """In the map's order: those that runs name, by number; then those for bases only, by digest."""
    new: list[StoredPack]
    runs: Runs
    made: Mapping[Digest, Collection[int]]
    dissolved: tuple[Digest, ...]
    copied: int
    """Stored bytes of frames."""

    @classmethod
    def of(cls, plan: _Plan, storage: Storage, packer: Packer) -> _Settled:
        """Decide which packs are listed, copy what is needed of the others, and lay out the runs.

        Raises:
            CorruptContent: the base of a delta is in no stored pack.
        """
        known = plan.known
        known.need(plan.runs, plan.bases, storage)
        moved = known.dissolve(packer, storage)
        new = packer.finish()
        packs = [*known.packs, *new]
        first_new = len(packs) - len(new)

        def place(row: Row) -> Iterator[Part]:
            if row.pack >= 0 and row.pack not in moved:
                yield Part(row.length, row.pack, row.first, row.chunks)
                return
            if row.pack >= 0:
                parts: Iterable[Part] = moved[row.pack].find(row)
            else:
                parts = packer.find(Stream(row.pack), row.first, row.position, row.length, row.chunks)
            for part in parts:
                yield part._replace(pack=first_new + part.pack)

        runs = settle(plan.runs, place)
        named = np.flatnonzero(np.bincount(runs.pack)).tolist()
        spare = set(range(len(packs))) - set(named) - moved.keys()
        order = [*named, *sorted(spare, key=lambda n: str(packs[n].descriptor.digest))]
        numbers = np.zeros(len(packs), np.uint32)
        numbers[order] = np.arange(len(order))
        made: list[Collection[int]] = [range(count) for count in packer.counts]
        for each in moved.values():
            for n, chunks in each.copies().items():
                made[n] = set(made[n]).difference(chunks)
        return cls(
            packs=[packs[n] for n in order],
            new=new,
            runs=Runs(runs.gap, runs.length, numbers[runs.pack], runs.first, runs.count),
            made={pack.descriptor.digest: chunks for pack, chunks in zip(new, made, strict=True)},
            dissolved=tuple(packs[n].descriptor.digest for n in moved),
            copied=sum(each.stored for each in moved.values()),
        )
