"""Turns a disk into packs and a map: scan -> hash -> place -> make deltas -> compress -> pack -> settle.

Each stage is a generator over the one before. What costs time runs in threads, with a bounded lead: hashing, deltas and
compressing in a pool, writing in a thread of its own, syncing in another. So memory is bounded, and the result is the
same for any number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import blake3
import numpy as np

from casstore import frame, locality, spec
from casstore.base import Base, Stretch
from casstore.dedup import Batch, Chunk, Placing
from casstore.deltas import try_deltas
from casstore.digest import ChunkId, Digest
from casstore.disk import DiskSource
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap
from casstore.frame import FrameKind
from casstore.newchunks import NewChunks
from casstore.oci import Descriptor
from casstore.pack import StoredPack
from casstore.packer import BlobWriter, EncodedFrame, Packer, Stream
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.runs import Part, Row, settle
from casstore.scan import Scan, Window
from casstore.tee import Tee

_MOST_AHEAD = 6
"""Windows between two stages, at the most, for any number of workers. So memory stays below 200 MiB."""


class Storage(locality.Storage, Protocol):
    """What is stored already, and a place for what is new."""

    def new_blob(self) -> BlobWriter:
        """Start a blob."""
        ...

    @property
    def scratch(self) -> str:
        """A directory for files that do not outlive the capture."""
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
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of the content, by algorithm, in integrity.ALGORITHMS' spelling: those that could be computed on the way."""


def capture(
    source: DiskSource,
    disk_name: str,
    *,
    storage: Storage,
    base: Base | None = None,
    options: CaptureOptions,
    meter: Meter,
    algorithms: Sequence[str] = (),
) -> Capture:
    """Read `source` once and store what is new of it; compute those `algorithms` that can be meanwhile.

    Raises:
        SourceError: the disk cannot be read or changed while it was read.
        StorageError: the packs cannot be written.
        CorruptContent: a pack that the snapshot would rely on is damaged.
    """
    workers = options.workers or default_workers()
    ahead = min(workers, _MOST_AHEAD) + 1
    frames_ahead = 6 * min(workers, _MOST_AHEAD)
    tee = Tee(algorithms)
    new = NewChunks(os.path.join(storage.scratch, "new-chunks"))
    with (
        ThreadPoolExecutor(1, "sync") as syncing,
        ThreadPoolExecutor(1, "write") as writing,
        ThreadPoolExecutor(workers, "capture") as pool,
    ):
        try:
            scan = Scan(source, meter, pool, ahead=ahead, guide=base, tap=tee if algorithms else None)
            packer = Packer(storage.new_blob, syncing)
            plan = Placing(storage, base, new)
            hashed = ordered_map(pool, _hash, scan.windows(), ahead=ahead)
            tried = try_deltas(pool, plan.place(hashed), base, options.level, ahead=2 * ahead)
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
    disk_map = SnapshotMap(entries, (disk,))
    return Capture(disk_map, packs, stats, settled.made, settled.dissolved, tee.digests())


def _hash(window: Window[Stretch]) -> Batch:
    return Batch([Chunk(ChunkId(blake3.blake3(chunk.data).digest()), chunk) for chunk in window.chunks], window.known)


def _frames(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Put consecutive new chunks together, up to FRAME_PLAIN bytes; each delta stays alone."""
    together: list[Chunk] = []
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


def _encoder(options: CaptureOptions) -> Callable[[list[Chunk]], EncodedFrame]:
    def encode(chunks: list[Chunk]) -> EncodedFrame:
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
    def of(cls, plan: Placing, storage: Storage, packer: Packer) -> _Settled:
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
