"""The directories of a snapshot's packs: where each chunk lies in its pack, and where the base of a delta lies.

A snapshot of a large disk has thousands of packs and millions of chunks. So directories are read when they are needed,
and only some MiB of them are kept. What is asked of many chunks is asked in columns, and answered pack by pack.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, overload

import blake3
import numpy as np
import numpy.typing as npt

from casstore import spec
from casstore.content import RangeReader
from casstore.digest import ChunkId
from casstore.diskmap import PackEntry
from casstore.errors import CorruptContent, DigestMismatch, DocumentError
from casstore.frame import FrameKind
from casstore.oci import Descriptor
from casstore.pack import FOOTER_SIZE, PackDirectory, directory_length
from casstore.spec import MIB

_KEPT = 32 * MIB
"""Bytes of directories in memory: those of about 9 GiB of plain bytes."""

_FEW = 64
"""Bases that are looked for one by one; where more are asked for at once all directories are read."""

Ids = npt.NDArray[np.void]
"""BLAKE3-256 digests, as items of 32 bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Chunks of packs, in columns of equal length: where each lies, and the frame that it lies in."""

    pack: npt.NDArray[np.int64]
    chunk: npt.NDArray[np.int64]
    ids: Ids
    frame: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    """Where the chunk starts in the frame's plain bytes."""
    length: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    """The frame's FrameKind."""
    at: npt.NDArray[np.int64]
    """Where the frame's stored bytes start in the pack."""
    stored: npt.NDArray[np.int64]
    """Stored bytes of the frame."""
    plain: npt.NDArray[np.int64]
    """Plain bytes of the frame."""

    @classmethod
    def empty(cls, count: int) -> Self:
        """`count` rows to be filled in."""
        wide = (np.empty(count, np.int64) for _ in range(8))
        pack, chunk, frame, start, length, at, stored, plain = wide
        ids, kind = np.empty(count, "V32"), np.empty(count, np.uint8)
        return cls(pack, chunk, ids, frame, start, length, kind, at, stored, plain)

    def take(self, rows: npt.NDArray[Any] | slice) -> Self:
        """Some of the rows."""
        return type(self)(*(getattr(self, name)[rows] for name in self.__slots__))

    def put(self, rows: npt.NDArray[Any], others: Located) -> None:
        """Replace some of the rows."""
        for name in self.__slots__:
            getattr(self, name)[rows] = getattr(others, name)

    def __len__(self) -> int:
        return len(self.pack)


class Table:
    """A pack's directory, and what follows from it, in columns."""

    def __init__(self, directory: PackDirectory) -> None:
        self.directory: PackDirectory = directory
        self.ids: Ids = np.frombuffer(directory.ids, "V32")
        self.frame: npt.NDArray[np.uint32] = directory.chunk_frames().astype(np.uint32)
        """Per chunk, the frame that it lies in."""
        starts: npt.NDArray[np.int64] = np.cumsum(directory.lengths, dtype=np.int64) - directory.lengths
        self.start: npt.NDArray[np.uint32] = (starts - starts[directory.first_chunk[:-1]][self.frame]).astype(np.uint32)
        """Per chunk, where it starts in its frame's plain bytes."""
        self.at: npt.NDArray[np.int64] = directory.frame_offsets()
        self.plain: npt.NDArray[np.int64] = directory.plain_lengths()

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        # A chunk's digest and length twice (in the encoded directory, and apart), and the columns.
        return 2048 + 84 * len(self.ids) + 64 * len(self.at) + 2 * len(self.directory.base_ids)

    def deltas(self) -> npt.NDArray[np.bool_]:
        """Per chunk, whether it lies in a delta frame."""
        delta: npt.NDArray[np.bool_] = (self.directory.kinds == FrameKind.DELTA)[self.frame]
        return delta

    def base_ids(self, frames: npt.NDArray[Any]) -> Ids:
        """The bases of some delta frames."""
        ids: Ids = np.frombuffer(self.directory.base_ids, "V32")[self.directory.deltas_before[frames]]
        return ids

    def find_full(self, chunk_id: ChunkId) -> int:
        """The first chunk of this digest in a full frame; -1 where there is none."""
        start = np.frombuffer(self.directory.ids, "<u8")[::4]
        alike = np.flatnonzero(start == np.frombuffer(chunk_id, "<u8", 1)[0])
        full = alike[self.directory.kinds[self.frame[alike]] != FrameKind.DELTA]
        found = full[self.ids[full] == np.frombuffer(chunk_id, "V32")[0]]
        return int(found[0]) if len(found) else -1


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """Where the base of each delta lies: in a full frame of one of the packs."""

    ids: Ids
    """Sorted, each once."""
    pack: npt.NDArray[np.int32]
    """-1: in no full frame of these packs."""
    chunk: npt.NDArray[np.int32]

    @classmethod
    def find(cls, tables: Callable[[], Iterable[Table]]) -> Self:
        """Look for every base that a delta names; of several places the first counts. Goes through all tables twice."""
        named = [table.directory.base_ids for table in tables() if table.directory.base_ids]
        ids: Ids = np.unique(np.frombuffer(b"".join(named), "V32"))
        pack, chunk = np.full(len(ids), -1, np.int32), np.full(len(ids), -1, np.int32)
        for n, table in enumerate(tables() if len(ids) else ()):
            row = np.searchsorted(ids, table.ids)
            row[row == len(ids)] = 0
            full = np.flatnonzero((ids[row] == table.ids) & ~table.deltas())[::-1]  # the first one is assigned last
            full = full[pack[row[full]] < 0]
            chunk[row[full]] = full
            pack[row[full]] = n
        return cls(ids, pack, chunk)

    def rows(self, ids: Ids) -> npt.NDArray[np.int64]:
        """The row of each base, which must be named by a delta of these packs."""
        rows: npt.NDArray[np.int64] = np.searchsorted(self.ids, ids)
        return rows


class Directories(Sequence[PackDirectory]):
    """The directories of `packs`, in their order, each read from `blobs` when it is needed. Threads may share it.

    Whatever is asked for may raise:
        NotFound, SizeMismatch, DigestMismatch: a pack is missing or damaged.
        DocumentError: a directory breaks its rules.
    """

    def __init__(self, blobs: RangeReader, packs: Sequence[Descriptor], entries: Sequence[PackEntry]) -> None:
        self._blobs, self._packs, self._entries = blobs, packs, entries
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Table] = OrderedDict()
        self._bytes = 0
        self._bases: Bases | None = None
        self._looked_at = 0

    def __len__(self) -> int:
        return len(self._packs)

    @overload
    def __getitem__(self, pack: int) -> PackDirectory: ...

    @overload
    def __getitem__(self, pack: slice) -> Sequence[PackDirectory]: ...

    def __getitem__(self, pack: int | slice) -> PackDirectory | Sequence[PackDirectory]:
        if isinstance(pack, slice):
            return [self[n] for n in range(*pack.indices(len(self)))]
        return self.table(range(len(self))[pack]).directory

    def table(self, pack: int) -> Table:
        """The directory of a pack, in columns."""
        with self._lock:
            table = self._kept.get(pack)
            if table is not None:
                self._kept.move_to_end(pack)
                return table
        table = Table(load_directory(self._blobs, self._packs[pack], self._entries[pack].directory))
        with self._lock:
            if pack not in self._kept:
                self._kept[pack] = table
                self._bytes += table.bytes
            while self._bytes > _KEPT and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].bytes
        return table

    def tables(self) -> Iterator[Table]:
        """All of them, in order."""
        return map(self.table, range(len(self)))

    def bases(self) -> Bases:
        """Where the bases of all deltas lie; found on first need."""
        if self._bases is None:
            self._bases = Bases.find(self.tables)
        return self._bases

    def locate(self, pack: npt.NDArray[np.int64], chunk: npt.NDArray[np.int64]) -> Located:
        """Where these chunks lie; they must exist."""
        found = Located.empty(len(pack))
        found.pack[:], found.chunk[:] = pack, chunk
        for n, rows in by_pack(pack):
            table, mine = self.table(n), chunk[rows]
            directory, frame = table.directory, table.frame[mine]
            found.ids[rows] = table.ids[mine]
            found.frame[rows], found.start[rows] = frame, table.start[mine]
            found.length[rows] = directory.lengths[mine]
            found.kind[rows], found.stored[rows] = directory.kinds[frame], directory.stored[frame]
            found.at[rows], found.plain[rows] = table.at[frame], table.plain[frame]
        return found

    def base_places(
        self, pack: npt.NDArray[np.int64], chunk: npt.NDArray[np.int64], near: Sequence[int] = ()
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(pack, chunk) per chunk: its own where it lies in a full frame, in a delta frame those of its base. `near`
        are packs where the bases may well be.

        Raises:
            CorruptContent: a base lies in no full frame of these packs.
        """
        pack, chunk = pack.copy(), chunk.copy()
        for n, rows in by_pack(pack.copy()):
            table = self.table(n)
            if not table.directory.base_ids:
                continue
            mine = chunk[rows]
            delta = table.deltas()[mine]
            frames = table.frame[mine[delta]]
            ids = table.base_ids(frames)
            base_pack, base_chunk = self._places(ids, near)
            if (base_pack < 0).any():
                bad = int(np.flatnonzero(base_pack < 0)[0])
                raise CorruptContent(
                    f"pack {self._packs[n].digest} frame {frames[bad]}: its base chunk"
                    f" {ids[bad].tobytes().hex()} is in none of the snapshot's packs, in a full frame"
                )
            pack[rows[delta]], chunk[rows[delta]] = base_pack, base_chunk
        return pack, chunk

    def _places(self, ids: Ids, near: Sequence[int]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Where these bases lie, which deltas of these packs name; -1 for a pack where there is none."""
        # To look for them one by one must not read more, in the long run, than to go through all directories twice.
        if self._bases is None and len(ids) <= _FEW and self._looked_at <= 2 * len(self):
            return self._look_for(ids, near)
        bases = self.bases()
        found = bases.rows(ids)
        return bases.pack[found], bases.chunk[found]

    def _look_for(self, ids: Ids, near: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """As _places, with no more directories read than it takes."""
        pack, chunk = np.full(len(ids), -1, np.int64), np.full(len(ids), -1, np.int64)
        wanted = {n: ChunkId(each.tobytes()) for n, each in enumerate(ids)}
        with self._lock:
            kept = [*reversed(self._kept)]
        for n in dict.fromkeys((*kept, *near, *range(len(self)))):
            with self._lock:
                self._looked_at += n not in self._kept
            table = self.table(n)
            for row, chunk_id in list(wanted.items()):
                found = table.find_full(chunk_id)
                if found >= 0:
                    pack[row], chunk[row] = n, found
                    del wanted[row]
            if not wanted:
                break
        return pack, chunk


def by_pack(pack: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(pack, its rows in order) for each pack that a column names, in the order of the packs."""
    order: npt.NDArray[np.int64] = np.argsort(pack, kind="stable")
    ordered = pack[order]
    edges = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(pack)]
    for start, end in pairwise(edges):
        if end > start:
            yield int(ordered[start]), order[start:end]


def covered(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """Which of `count` chunks lie in one of these ranges."""
    steps = np.zeros(count + 1, np.int64)
    np.add.at(steps, start, 1)
    np.add.at(steps, end, -1)
    mask: npt.NDArray[np.bool_] = np.cumsum(steps[:-1]) > 0
    return mask


def load_directory(blobs: RangeReader, pack: Descriptor, stamp: bytes) -> PackDirectory:
    """The directory of a pack, which must have this stamp.

    Raises:
        NotFound, SizeMismatch, DigestMismatch: it is missing or damaged.
        DocumentError: it breaks its rules.
    """
    subject = _checked_size(pack)
    digest, length = stamp[:32], int.from_bytes(stamp[32:], "little")
    if not FOOTER_SIZE <= length <= min(pack.size, spec.READ_DIRECTORY):
        raise DocumentError(
            subject, f"expected a directory that fits its pack of {pack.size} bytes, got {length} bytes"
        )
    encoded = blobs.read_range(pack, pack.size - length, length)
    got = blake3.blake3(encoded).digest()
    if got != digest:
        raise DigestMismatch(f"{subject}: directory", expected=f"blake3:{digest.hex()}", got=f"blake3:{got.hex()}")
    return PackDirectory.parse(encoded, pack.size, subject=subject)


def own_directory(blobs: RangeReader, pack: Descriptor) -> PackDirectory:
    """The directory that a pack says it has; only `load_directory` tells whether it is the one that a map means.

    Raises:
        NotFound, SizeMismatch: the pack is missing or damaged.
        DocumentError: the directory breaks its rules.
    """
    subject = _checked_size(pack)
    footer = blobs.read_range(pack, pack.size - FOOTER_SIZE, FOOTER_SIZE)
    length = directory_length(footer, pack.size, subject=subject)
    return PackDirectory.parse(blobs.read_range(pack, pack.size - length, length), pack.size, subject=subject)


def _checked_size(pack: Descriptor) -> str:
    """What errors call a pack, whose size must be that of a pack."""
    subject = f"pack {pack.digest}"
    if pack.size < FOOTER_SIZE or pack.size > spec.READ_PACK:
        raise DocumentError(subject, f"expected a pack of {FOOTER_SIZE} to {spec.READ_PACK} bytes, got {pack.size}")
    return subject
