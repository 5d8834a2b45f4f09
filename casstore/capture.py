"""Turns a disk into packs and a map: scan -> hash -> look up -> compress -> pack.

Each stage is a generator over the one before; hashing and compressing run in threads with a bounded lead, so memory
is bounded and the result is the same for any number of workers. New chunks are packed in the order in which the disk
first shows them: a new chunk's number in that order is its place, whichever pack it ends up in.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import blake3
import numpy as np

from casstore import frame, spec
from casstore.digest import ChunkId
from casstore.disk import DiskSource
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap
from casstore.frame import Buffer, FrameKind
from casstore.oci import Descriptor
from casstore.pack import PackWriter
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.scan import PlainChunk, Scan

_NEW = -1
"""Stands for "a pack of this capture" while the packs do not exist yet."""

_PACKS_OF_A_SIZE = 1024
"""A manifest of 4 MiB names 28,000 packs. Each 1024 packs are PACK_TARGET larger than the 1024 before: 8192 packs hold
1.1 TiB, 28,000 hold 12 TiB.
"""


class StoredPack(NamedTuple):
    """A pack that is stored: its descriptor and the stamp of its directory."""

    descriptor: Descriptor
    directory: bytes


class Place(NamedTuple):
    """Where a stored chunk lies."""

    pack: StoredPack
    chunk: int


class BlobWriter(Protocol):
    """A blob that is being written; it exists, under its digest, once it is finished."""

    def write(self, data: Buffer, /) -> object:
        """Append all of `data`."""
        ...

    def finish(self, media_type: str, /) -> Descriptor:
        """Close and stage the blob."""
        ...


Lookup = Callable[[Sequence[ChunkId]], Mapping[ChunkId, Place]]
"""Which of these chunks are stored already, and stay stored until the snapshot is committed."""


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


@dataclass(frozen=True, slots=True)
class Capture:
    """A captured disk: its map, the packs in the map's order, and what they cost."""

    map: SnapshotMap
    packs: tuple[Descriptor, ...]
    stats: CaptureStats


class _Frame(NamedTuple):
    chunks: list[tuple[ChunkId, int]]
    parts: list[memoryview]


def capture(
    source: DiskSource,
    disk_name: str,
    *,
    lookup: Lookup,
    new_blob: Callable[[], BlobWriter],
    options: CaptureOptions,
    meter: Meter,
) -> Capture:
    """Read `source` once and store what is new of it.

    Raises:
        SourceError: the disk cannot be read or changed while it was read.
        StorageError: the packs cannot be written.
    """
    workers = options.workers or default_workers()
    scan = Scan(source, meter)
    plan = _Plan(lookup)
    packer = _Packer(new_blob)
    with ThreadPoolExecutor(workers, "capture") as pool:
        hashed = ordered_map(pool, _hash, scan.windows(), ahead=workers + 1)
        frames = _frames(plan.place(hashed))

        def encode(new: _Frame) -> tuple[_Frame, FrameKind, bytes]:
            return new, *frame.encode(new.parts, options.level)

        for new, kind, stored in ordered_map(pool, encode, frames, ahead=2 * workers):
            packer.add(kind, stored, new.chunks)
    packer.close()
    packs, runs = plan.finish(packer)
    extents = np.array(scan.extents, np.int64).reshape(-1, 2)
    disk = DiskMap(disk_name, scan.size, extents, runs)
    entries = tuple(PackEntry(pack.descriptor.digest, pack.directory) for pack in packs)
    stats = CaptureStats(
        allocated=disk.allocated,
        chunks=plan.chunks,
        new_chunks=len(plan.new),
        new_plain=packer.plain,
        new_stored=sum(pack.descriptor.size for pack in packer.packs),
    )
    return Capture(SnapshotMap(entries, (disk,)), tuple(pack.descriptor for pack in packs), stats)


def _hash(chunks: list[PlainChunk]) -> list[tuple[ChunkId, PlainChunk]]:
    return [(ChunkId(blake3.blake3(chunk.data).digest()), chunk) for chunk in chunks]


class _Plan:
    """Decides for each chunk whether it is new, and writes down the runs."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._known: dict[StoredPack, int] = {}  # pack -> its number in the runs
        self._rows: list[tuple[int, int, int, int, int]] = []  # gap, length, pack, first, count
        self._end = 0
        self.new: dict[ChunkId, int] = {}
        self.chunks = 0

    def place(self, windows: Iterable[list[tuple[ChunkId, PlainChunk]]]) -> Iterator[tuple[ChunkId, memoryview]]:
        """Place every chunk; give out those that are new, once each."""
        for window in windows:
            unknown = list({chunk_id: None for chunk_id, _ in window if chunk_id not in self.new})
            found = self._lookup(unknown) if unknown else {}
            for chunk_id, chunk in window:
                self.chunks += 1
                if place := found.get(chunk_id):
                    self._run(chunk, self._known.setdefault(place.pack, len(self._known)), place.chunk)
                    continue
                number = self.new.get(chunk_id)
                self._run(chunk, _NEW, len(self.new) if number is None else number)
                if number is None:
                    self.new[chunk_id] = len(self.new)
                    yield chunk_id, chunk.data

    def _run(self, chunk: PlainChunk, pack: int, number: int) -> None:
        gap = chunk.offset - self._end
        self._end = chunk.offset + len(chunk.data)
        if gap == 0 and self._rows:
            before, length, last_pack, first, count = self._rows[-1]
            if pack == last_pack and number == first + count:
                self._rows[-1] = (before, length + len(chunk.data), pack, first, count + 1)
                return
        self._rows.append((gap, len(chunk.data), pack, number, 1))

    def finish(self, packer: _Packer) -> tuple[list[StoredPack], Runs]:
        """The packs in the map's order (those that were there, then the new ones), and the runs over them."""
        rows: list[tuple[int, int, int, int, int]] = []
        for row in self._rows:
            gap, _, pack, first, count = row
            if pack == _NEW:
                for length, new, at, part in packer.split(first, count):
                    rows.append((gap, length, len(self._known) + new, at, part))
                    gap = 0  # only the first part has the run's gap
            else:
                rows.append(row)
        return [*self._known, *packer.packs], Runs.build(rows)


def _frames(chunks: Iterable[tuple[ChunkId, memoryview]]) -> Iterator[_Frame]:
    """Put consecutive new chunks together, up to FRAME_PLAIN bytes."""
    ids: list[tuple[ChunkId, int]] = []
    parts: list[memoryview] = []
    plain = 0
    for chunk_id, data in chunks:
        if parts and plain + len(data) > spec.FRAME_PLAIN:
            yield _Frame(ids, parts)
            ids, parts, plain = [], [], 0
        ids.append((chunk_id, len(data)))
        parts.append(data)
        plain += len(data)
    if parts:
        yield _Frame(ids, parts)


class _Packer:
    """Writes frames into packs of about PACK_TARGET bytes; of a very large disk, into larger ones after a while."""

    def __init__(self, new_blob: Callable[[], BlobWriter]) -> None:
        self._new_blob = new_blob
        self._open: tuple[BlobWriter, PackWriter] | None = None
        self._ends = array("Q", [0])  # plain bytes of the first n new chunks
        self.starts: list[int] = []
        """Per pack, the number of its first chunk."""
        self.packs: list[StoredPack] = []

    @property
    def plain(self) -> int:
        """Plain bytes of all new chunks."""
        return self._ends[-1]

    def add(self, kind: FrameKind, stored: bytes, chunks: Sequence[tuple[ChunkId, int]]) -> None:
        if self._open is None:
            blob = self._new_blob()
            self._open = blob, PackWriter(blob)
            self.starts.append(len(self._ends) - 1)
        writer = self._open[1]
        writer.add(kind, stored, chunks)
        self._ends.extend(accumulate((length for _, length in chunks), initial=self._ends.pop()))
        if writer.size >= spec.PACK_TARGET * (1 + len(self.packs) // _PACKS_OF_A_SIZE):
            self.close()

    def split(self, first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
        """Numbers first .. first+count of the new chunks as runs (length, pack, chunk in it, count)."""
        while count:
            pack = bisect_right(self.starts, first) - 1
            end = self.starts[pack + 1] if pack + 1 < len(self.starts) else first + count
            part = min(count, end - first)
            yield self._ends[first + part] - self._ends[first], pack, first - self.starts[pack], part
            first += part
            count -= part

    def close(self) -> None:
        if self._open is not None:
            blob, writer = self._open
            directory = writer.finish()
            self.packs.append(StoredPack(blob.finish(spec.MEDIA_PACK), directory.stamp))
            self._open = None
