"""A disk of a snapshot, read at any offset: the bytes that a restore would write there, with no more read than needed.

The map says which runs of chunks a range touches, the directories of their packs which frames these chunks lie in. Only
these frames are read, and each chunk is checked against its digest. What lies side by side in a pack is read in one go.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from casstore.artifact import Artifact
from casstore.decoding import in_order
from casstore.diskmap import DiskMap
from casstore.errors import DocumentError, UsageError
from casstore.spec import KIB, MIB

_SMALL: Final = 64 * KIB
"""Bytes of a read whose chunks are kept: the blocks of a file system's metadata are read one by one."""
_KEPT: Final = 4 * MIB
"""Bytes of chunks that are kept."""
_DECODED: Final = 8 * MIB
"""Plain bytes of frames that are decoded in one go; the stored bytes of neighbours among them are read together."""
_AROUND: Final = 16
"""Runs before and after a read whose packs are looked at first for the bases of its deltas."""
_EDGES: Final = 128 * KIB
"""Chunks of which it is kept where they begin; at 8 bytes each."""


class _Part(NamedTuple):
    """Chunks of one run that a read touches."""

    pack: int
    first: int
    """The first of them, in the pack."""
    edges: npt.NDArray[np.int64]
    """Where each begins on the disk, and where the last one ends."""


class StoredDisk:
    """The disk `disk` of a snapshot; a DiskReader. Threads may share it."""

    def __init__(self, artifact: Artifact, disk: DiskMap) -> None:
        self._artifact, self._disk = artifact, disk
        lengths = disk.runs.length.astype(np.int64)
        self._ends: npt.NDArray[np.int64] = np.cumsum(disk.runs.gap.astype(np.int64) + lengths)
        self._starts: npt.NDArray[np.int64] = self._ends - lengths
        named = {int(pack) for each in artifact.map.disks for pack in np.unique(each.runs.pack)}
        self._only_bases = [pack for pack in range(len(artifact.manifest.packs)) if pack not in named]
        self._lock = threading.Lock()
        self._edges: OrderedDict[int, npt.NDArray[np.int64]] = OrderedDict()
        self._edges_kept = 0
        self._chunks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes of the disk, its holes included."""
        return self._disk.size

    def read_at(self, offset: int, length: int, /) -> bytes:
        """The `length` bytes from byte `offset`, all within the size; holes are zeros.

        Raises:
            UsageError: they are not within the size.
            NotFound, CorruptContent: a blob is missing or damaged.
            RegistryError, StorageError: it cannot be read.
        """
        end = offset + length
        if not 0 <= offset <= end <= self.size:
            raise UsageError(f"{self._subject}: expected a range within {self.size} bytes, got {offset} to {end}")
        first, stop = (
            int(np.searchsorted(self._ends, offset, "right")),
            int(np.searchsorted(self._starts, end, "left")),
        )
        parts = [self._part(run, offset, end) for run in range(first, stop)] if length else []
        if length <= _SMALL:
            return self._read_small(parts, offset, end, self._near(first, stop))
        data = bytearray(length)
        self._read_into(data, parts, offset, self._near(first, stop))
        return bytes(data)

    @property
    def _subject(self) -> str:
        return f"snapshot {self._artifact.digest}: disk {self._disk.name}"

    def _near(self, first: int, stop: int) -> list[int]:
        """The packs where the bases of deltas in these runs may well be: those of the runs beside them, then those that
        are there for bases only.
        """
        around = self._disk.runs.pack[max(0, first - _AROUND) : stop + _AROUND]
        return [*dict.fromkeys(around.tolist()), *self._only_bases]

    def _part(self, run: int, offset: int, end: int) -> _Part:
        """The chunks of a run that lie in a range that it has bytes of."""
        edges, runs = self._run_edges(run), self._disk.runs
        low = int(np.searchsorted(edges, offset, "right")) - 1 if offset > edges[0] else 0
        high = int(np.searchsorted(edges, end, "left"))
        return _Part(int(runs.pack[run]), int(runs.first[run]) + low, edges[low : high + 1])

    def _run_edges(self, run: int) -> npt.NDArray[np.int64]:
        """Where the chunks of a run begin on the disk, and where the last one ends.

        Raises:
            DocumentError: the map says otherwise than the directory.
        """
        with self._lock:
            edges = self._edges.get(run)
            if edges is not None:
                self._edges.move_to_end(run)
                return edges
        runs = self._disk.runs
        first, count = int(runs.first[run]), int(runs.count[run])
        lengths = self._artifact.directories.table(int(runs.pack[run])).directory.lengths
        if first + count > len(lengths):
            raise DocumentError(self._subject, "a run goes past the end of its pack", at="runs")
        edges = np.empty(count + 1, np.int64)
        edges[0] = self._starts[run]
        np.cumsum(lengths[first : first + count], dtype=np.int64, out=edges[1:])
        edges[1:] += edges[0]
        if edges[-1] != self._ends[run]:
            raise DocumentError(self._subject, "a run's length is not that of its chunks", at="runs")
        with self._lock:
            if run not in self._edges:
                self._edges[run] = edges
                self._edges_kept += len(edges)
            while self._edges_kept > _EDGES:
                self._edges_kept -= len(self._edges.popitem(last=False)[1])
        return edges

    def _read_small(self, parts: list[_Part], offset: int, end: int, near: list[int]) -> bytes:
        """A read of few chunks, which are kept for the next ones."""
        found: list[bytes] = []
        at = offset
        for part in parts:
            for n in range(len(part.edges) - 1):
                start, stop = int(part.edges[n]), int(part.edges[n + 1])
                low, high = max(at, start), min(end, stop)
                plain = self._chunk(part.pack, part.first + n, near)
                found += [bytes(low - at), plain[low - start : high - start]]
                at = high
        return b"".join([*found, bytes(end - at)])

    def _chunk(self, pack: int, chunk: int, near: list[int]) -> bytes:
        key = (pack, chunk)
        with self._lock:
            data = self._chunks.get(key)
            if data is not None:
                self._chunks.move_to_end(key)
                return data
        own = self._artifact.directories.locate(np.array([pack], np.int64), np.array([chunk], np.int64))
        frames = self._artifact.frames
        data = bytes(frames.chunks(own, frames.with_bases(own, near))[0])
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = data
                self._bytes += len(data)
            while self._bytes > _KEPT and len(self._chunks) > 1:
                self._bytes -= len(self._chunks.popitem(last=False)[1])
        return data

    def _read_into(self, data: bytearray, parts: list[_Part], offset: int, near: list[int]) -> None:
        if not parts:
            return
        counts = [len(part.edges) - 1 for part in parts]
        pack = np.repeat(np.array([part.pack for part in parts], np.int64), counts)
        chunk = np.concatenate([np.arange(part.first, part.first + n) for part, n in zip(parts, counts, strict=True)])
        at = np.concatenate([part.edges[:-1] for part in parts])
        frames, view = self._artifact.frames, memoryview(data)
        for some in in_order(frames, self._artifact.directories.locate(pack, chunk), at, near=near, most=_DECODED):
            for start, plain in zip((some.offset - offset).tolist(), frames.chunks(some.own, some.full), strict=True):
                low, high = max(0, start), min(len(data), start + len(plain))
                view[low:high] = plain[low - start : high - start]
