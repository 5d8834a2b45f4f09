"""Chunks that a disk may hold, found by their digest: where a snapshot's map says, or anywhere by cutting the disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from casstore.artifact import Artifact
from casstore.digest import ChunkId
from casstore.disk import DiskSource
from casstore.diskmap import DiskMap
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.scan import PlainChunk, Scan

_SAMPLES = 64
"""Chunks that are compared to tell whether a disk is that of a snapshot."""
_MOST_CHUNKS = 4_000_000
"""Chunks that are found by cutting the disk (about 90 GiB of it), so that memory does not grow with the disk."""
_PLACES = 4
"""Places of one chunk that are looked at."""


class _Index(NamedTuple):
    """The chunks that a disk is cut into, ordered by key."""

    key: npt.NDArray[np.uint64]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


class OnDisk:
    """A disk as a source of chunks. For one thread at a time."""

    def __init__(self, disk: DiskSource, meter: Meter, *, workers: int = 0) -> None:
        self._disk, self._meter, self._workers = disk, meter, workers or default_workers()
        self._places: dict[ChunkId, list[tuple[int, int]]] = {}
        self._index: _Index | None = None

    def likeness(self, artifact: Artifact) -> float | None:
        """How many of a snapshot's chunks the disk has at their places, from 0 to 1, by a sample; None where there is
        none to compare.

        Raises:
            SourceError: the disk cannot be read.
        """
        disk = artifact.map.disks[0]
        if disk.size != self._disk.size:
            return 0.0
        runs = disk.runs
        rows = np.unique(np.linspace(0, len(runs) - 1, min(_SAMPLES, len(runs))).astype(np.int64))
        starts = np.cumsum(runs.gap.astype(np.int64) + runs.length.astype(np.int64)) - runs.length.astype(np.int64)
        located = artifact.directories.locate(runs.pack[rows].astype(np.int64), runs.first[rows].astype(np.int64))
        places = zip(located.ids.tolist(), starts[rows].tolist(), located.length.tolist(), strict=True)
        found = [self._read(ChunkId(chunk_id), offset, length) is not None for chunk_id, offset, length in places]
        return sum(found) / len(found) if found else None

    def look_for(self, wanted: Collection[ChunkId], where: Iterable[tuple[Artifact, DiskMap]]) -> None:
        """Note where these disks, which this one may be, have the chunks that are `wanted` from now on."""
        self._places = {}
        keys = np.unique(_keys(np.frombuffer(b"".join(wanted), "V32")))
        for artifact, disk in where:
            for placed in artifact.chunks(disk):
                found = np.flatnonzero(np.isin(_keys(placed.located.ids), keys))
                ids, offsets = placed.located.ids[found].tolist(), placed.offset[found].tolist()
                for chunk_id, *place in zip(ids, offsets, placed.located.length[found].tolist(), strict=True):
                    places = self._places.setdefault(ChunkId(chunk_id), [])
                    if len(places) < _PLACES:
                        places.append((place[0], place[1]))

    def chunk(self, chunk_id: ChunkId) -> memoryview | None:
        """The plain bytes of a chunk, checked; None where the disk has them not, or not as a chunk.

        Raises:
            SourceError: the disk cannot be read, or changed since it was opened.
        """
        for place in self._places.get(chunk_id, ()):
            if (data := self._read(chunk_id, *place)) is not None:
                return data
        index = self._cut()
        key = _keys(np.frombuffer(chunk_id, "V32"))[0]
        start, end = np.searchsorted(index.key, key, "left"), np.searchsorted(index.key, key, "right")
        for n in range(int(start), min(int(end), int(start) + _PLACES)):
            if (data := self._read(chunk_id, int(index.offset[n]), int(index.length[n]))) is not None:
                return data
        return None

    def _read(self, chunk_id: ChunkId, offset: int, length: int) -> memoryview | None:
        if offset + length > (self._disk.size or 0):
            return None
        data = memoryview(bytearray(length))
        self._disk.read_into(data, offset)
        return data if blake3(data).digest() == chunk_id else None

    def _cut(self) -> _Index:
        """What the disk is cut into, on first need."""
        if self._index is None:
            parts: list[_Index] = []
            count = 0
            with ThreadPoolExecutor(self._workers, "chunks") as pool:
                scan: Scan[object] = Scan(self._disk, self._meter, pool, ahead=self._workers + 1)
                windows = (window.chunks for window in scan.windows())
                for part in ordered_map(pool, _hash, windows, ahead=self._workers + 1):
                    parts.append(part)
                    count += len(part.key)
                    if count >= _MOST_CHUNKS:
                        break
            key, offset, length = (np.concatenate(columns) for columns in zip(_hash([]), *parts, strict=True))
            order = np.argsort(key, kind="stable")
            self._index = _Index(key[order], offset[order], length[order])
        return self._index


def _hash(chunks: list[PlainChunk]) -> _Index:
    ids = b"".join(blake3(chunk.data).digest() for chunk in chunks)
    offset = np.array([chunk.offset for chunk in chunks], np.int64)
    return _Index(_keys(np.frombuffer(ids, "V32")), offset, np.array([len(chunk.data) for chunk in chunks], np.int64))


def _keys(ids: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """64 bits of each digest: enough to find by, and what is found is checked."""
    keys: npt.NDArray[np.uint64] = np.ascontiguousarray(ids).view("<u8").reshape(-1, 4)[:, 0]
    return keys.astype(np.uint64)
