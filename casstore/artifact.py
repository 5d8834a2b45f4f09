"""A snapshot's blobs as one thing to read: artifact manifest -> config, map -> pack directories -> frames -> chunks.

Every step is bound to the one before by a digest, so nothing that is read can be other than what the artifact's digest
stands for: the manifest states the sha256 of config and map, the map the BLAKE3 of each pack's directory, the directory
the BLAKE3 of each chunk. Packs need not be read as a whole for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple, Self

import blake3
import numpy as np
import numpy.typing as npt

from casstore import spec
from casstore.content import RangeReader
from casstore.digest import ChunkId, Digest
from casstore.diskmap import DiskMap, Runs, SnapshotMap
from casstore.errors import CorruptContent, DigestMismatch, DocumentError, UnsupportedVersion
from casstore.frame import Buffer, FrameKind, decode
from casstore.manifest import Manifest
from casstore.oci import ArtifactManifest, Descriptor
from casstore.pack import FOOTER_SIZE, PackDirectory
from casstore.pool import ordered_map

_WINDOW = 16384
"""Chunks planned at a time (about 1.4 GiB of disk), so that a plan's memory does not grow with the disk."""


class Piece(NamedTuple):
    """A chunk of a frame, and its place: `start` and `length` in the frame's plain bytes, `offset` on the disk."""

    chunk: int
    start: int
    length: int
    offset: int


class FrameUse(NamedTuple):
    """A frame and the pieces wanted from it."""

    pack: int
    frame: int
    pieces: list[Piece]


@dataclass(frozen=True, slots=True)
class _Placed:
    """The chunks of some runs, in columns."""

    pack: npt.NDArray[np.int64]
    frame: npt.NDArray[np.uint32]
    chunk: npt.NDArray[np.int64]
    start: npt.NDArray[np.uint32]
    length: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]


class _Chunks:
    """All chunks of all packs, in columns: chunk `n` of pack `p` is row `first[p] + n`.

    One table for all packs: what names a million chunks of ten thousand packs is looked up in one step.
    """

    def __init__(self, directories: Sequence[PackDirectory]) -> None:
        self.first = np.cumsum([0, *(len(directory) for directory in directories)], dtype=np.int64)
        """Per pack and one more: the row of its first chunk."""
        self.frame = _column(directory.chunk_frames() for directory in directories)
        """The frame of its pack that the chunk lies in."""
        self.start = _column(_starts(directory) for directory in directories)
        """Where it starts in the frame's plain bytes."""
        self.length = _column(directory.lengths for directory in directories)


def _column(parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.uint32]:
    return np.concatenate([np.empty(0, np.uint32), *(part.astype(np.uint32) for part in parts)])


def _starts(directory: PackDirectory) -> npt.NDArray[np.int64]:
    """Per chunk, where it starts in its frame's plain bytes."""
    starts: npt.NDArray[np.int64] = np.cumsum(directory.lengths, dtype=np.int64) - directory.lengths
    return starts - np.repeat(starts[directory.first_chunk[:-1]], np.diff(directory.first_chunk))


class Artifact:
    """A snapshot whose documents were read and agree with each other. Frames are read when they are asked for."""

    def __init__(
        self,
        blobs: RangeReader,
        manifest: ArtifactManifest,
        config: Manifest,
        disk_map: SnapshotMap,
        directories: tuple[PackDirectory, ...],
    ) -> None:
        self._blobs = blobs
        self.manifest, self.config, self.map, self.directories = manifest, config, disk_map, directories
        self.digest: Digest = manifest.descriptor.digest
        self._chunks = _Chunks(directories)
        self._frame_offsets = [directory.frame_offsets() for directory in directories]
        self._plain_lengths = [directory.plain_lengths() for directory in directories]

    @classmethod
    def load(cls, blobs: RangeReader, descriptor: Descriptor) -> Self:
        """Read and check all documents of the artifact.

        Raises:
            NotFound, SizeMismatch, DigestMismatch: a blob is missing or damaged.
            DocumentError: a document breaks its rules, or two of them contradict each other.
        """
        manifest, config = load_documents(blobs, descriptor)
        subject = f"snapshot {descriptor.digest}: map"
        disk_map = SnapshotMap.parse(_document(blobs, manifest.map, spec.MAX_MAP), subject=subject)
        return cls.assemble(blobs, manifest, config, disk_map)

    @classmethod
    def assemble(cls, blobs: RangeReader, manifest: ArtifactManifest, config: Manifest, disk_map: SnapshotMap) -> Self:
        """From documents that were read or just made; reads and checks the packs' directories.

        Raises:
            As `load`.
        """
        subject = f"snapshot {manifest.descriptor.digest}"
        packs = manifest.packs
        if [pack.digest for pack in packs] != [entry.digest for entry in disk_map.packs]:
            raise DocumentError(subject, "expected the packs of the map, in its order", at="layers")
        directories = tuple(
            load_directory(blobs, pack, entry.directory) for pack, entry in zip(packs, disk_map.packs, strict=True)
        )
        artifact = cls(blobs, manifest, config, disk_map, directories)
        artifact._check(subject)
        return artifact

    def _check(self, subject: str) -> None:
        """What only several documents together can tell."""
        upper = self.config.upper
        if [(disk.name, disk.size) for disk in self.map.disks] != [(upper.file, upper.size_bytes)]:
            got = ", ".join(f"{disk.name} of {disk.size} bytes" for disk in self.map.disks)
            problem = f"expected one disk {ascii(upper.file[:80])} of {upper.size_bytes} bytes, the map has {got[:200]}"
            raise DocumentError(subject, problem, at="upper")
        sums = np.concatenate([[0], np.cumsum(self._chunks.length, dtype=np.int64)])
        for disk in self.map.disks:
            starts, ends = self._rows(disk.runs)
            if (ends > self._chunks.first[disk.runs.pack.astype(np.int64) + 1]).any():
                raise DocumentError(subject, "a run goes past the end of its pack", at=disk.name)
            if (sums[ends] - sums[starts] != disk.runs.length).any():
                raise DocumentError(subject, "a run's length is not that of its chunks", at=disk.name)

    def _rows(self, runs: Runs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Per run, the row in the table of chunks of its first chunk, and the row after its last one."""
        starts: npt.NDArray[np.int64] = self._chunks.first[runs.pack] + runs.first
        return starts, starts + runs.count

    def used(self, disk: DiskMap) -> list[npt.NDArray[np.bool_]]:
        """Per pack, which of its chunks are part of `disk`."""
        starts, ends = self._rows(disk.runs)
        steps = np.zeros(len(self._chunks.length) + 1, np.int64)
        np.add.at(steps, starts, 1)
        np.add.at(steps, ends, -1)
        mask = np.cumsum(steps[:-1]) > 0
        return [mask[start:end] for start, end in pairwise(self._chunks.first.tolist())]

    def uses(self, disk: DiskMap, *, by_frame: bool) -> Iterator[FrameUse]:
        """The frames to decode for `disk`.

        `by_frame` gives each frame of a window of chunks once, with all its pieces: the order for random access.
        Otherwise the pieces come in the order of the disk.
        """
        end = 0
        for runs in _windows(disk.runs):
            placed, end = self._place(runs, end)
            order = np.lexsort((placed.offset, placed.frame, placed.pack)) if by_frame else np.arange(len(placed.pack))
            pack, frame = placed.pack[order], placed.frame[order]
            columns = zip(
                placed.chunk[order].tolist(),
                placed.start[order].tolist(),
                placed.length[order].tolist(),
                placed.offset[order].tolist(),
                strict=True,
            )
            pieces = [Piece(*row) for row in columns]
            changes = np.flatnonzero((pack[1:] != pack[:-1]) | (frame[1:] != frame[:-1])) + 1
            edges = [0, *changes.tolist(), len(pieces)]
            for a, b in pairwise(edges):
                if b > a:
                    yield FrameUse(int(pack[a]), int(frame[a]), pieces[a:b])

    def spans(self, disk: DiskMap) -> Iterator[tuple[int, int]]:
        """(start, end) of the disk's ranges that chunks cover, in order, as long as possible."""
        start = end = 0
        for runs in _windows(disk.runs):
            placed, _ = self._place(runs, end)
            ends = placed.offset + placed.length
            breaks = np.flatnonzero(placed.offset != np.concatenate([[end], ends[:-1]])).tolist()
            for n in breaks:
                if (stop := int(ends[n - 1]) if n else end) > start:
                    yield start, stop
                start = int(placed.offset[n])
            end = int(ends[-1])
        if end > start:
            yield start, end

    def frames_of(self, pack: int, chunks: npt.NDArray[np.int64]) -> Iterator[FrameUse]:
        """The frames of these chunks (ascending) of a pack; the pieces lie nowhere on a disk, their offset is 0."""
        rows, table = self._chunks.first[pack] + chunks, self._chunks
        columns = zip(
            table.frame[rows].tolist(),
            chunks.tolist(),
            table.start[rows].tolist(),
            table.length[rows].tolist(),
            strict=True,
        )
        for frame, group in groupby(columns, key=itemgetter(0)):
            yield FrameUse(pack, frame, [Piece(chunk, start, length, 0) for _, chunk, start, length in group])

    def _place(self, runs: _Slice, end: int) -> tuple[_Placed, int]:
        """Lay some runs out, the first one starting from `end` (bytes); returns where the last chunk ends."""
        counts = runs.count.astype(np.int64)
        total = int(counts.sum())
        pack = np.repeat(runs.pack.astype(np.int64), counts)
        within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        chunk = np.repeat(runs.first.astype(np.int64), counts) + within
        rows = self._chunks.first[pack] + chunk
        frame, start = self._chunks.frame[rows], self._chunks.start[rows]
        length = self._chunks.length[rows].astype(np.int64)
        gaps = np.zeros(total, np.int64)
        gaps[np.cumsum(counts) - counts] = runs.gap.astype(np.int64)
        ends = end + np.cumsum(gaps + length)
        return _Placed(pack, frame, chunk, start, length, ends - length), int(ends[-1])

    def read(self, use: FrameUse) -> list[tuple[int, memoryview]]:
        """Decode a frame; (offset on the disk, plain bytes) of each of its pieces, checked against their digests.

        Raises:
            CorruptContent: the frame does not decode or holds other bytes than its directory says.
            NotFound, StorageError: the pack cannot be read.
        """
        plain = memoryview(self.decode(use.pack, use.frame))
        result = []
        directory = self.directories[use.pack]
        for piece in use.pieces:
            data = plain[piece.start : piece.start + piece.length]
            check_chunk(data, directory.chunk_id(piece.chunk), self._where(use.pack, use.frame))
            result.append((piece.offset, data))
        return result

    def decode(self, pack: int, frame: int) -> Buffer:
        """A frame's plain bytes, not yet checked against the digests of its chunks."""
        directory = self.directories[pack]
        stored = self._blobs.read_range(
            self.manifest.packs[pack], int(self._frame_offsets[pack][frame]), int(directory.stored[frame])
        )
        kind = FrameKind(int(directory.kinds[frame]))
        base_id = directory.base_of(frame)
        base = None if base_id is None else self._base(base_id, self._where(pack, frame))
        length = int(self._plain_lengths[pack][frame])
        return decode(kind, stored, length, base=base, subject=self._where(pack, frame))

    def _where(self, pack: int, frame: int) -> str:
        return f"pack {self.manifest.packs[pack].digest} frame {frame}"

    def _base(self, base_id: ChunkId, subject: str) -> Buffer:
        place = self.bases.get(base_id)
        if place is None:
            raise CorruptContent(f"{subject}: its base chunk {base_id.hex()} is in none of the snapshot's packs")
        pack, chunk = place
        row = self._chunks.first[pack] + chunk
        frame, start, length = (
            int(column[row]) for column in (self._chunks.frame, self._chunks.start, self._chunks.length)
        )
        return memoryview(self.decode(pack, frame))[start : start + length]

    @cached_property
    def bases(self) -> dict[ChunkId, tuple[int, int]]:
        """(pack, chunk) of each delta base that lies, as it must, in a full frame of a listed pack."""
        wanted = b"".join(directory.base_ids for directory in self.directories)
        ids = np.unique(np.frombuffer(wanted, "V32"))
        found: dict[ChunkId, tuple[int, int]] = {}
        for n, directory in enumerate(self.directories):
            mine = np.frombuffer(directory.ids, "V32")
            full = directory.kinds[directory.chunk_frames()] != FrameKind.DELTA
            for chunk in np.flatnonzero(np.isin(mine, ids) & full).tolist():
                found.setdefault(directory.chunk_id(chunk), (n, chunk))
        return found

    def contents(self, disk: DiskMap, pool: ThreadPoolExecutor, *, ahead: int) -> Iterator[tuple[int, memoryview]]:
        """(offset, plain bytes) of the chunks in the disk's order, checked; everything between them is zero."""
        for pieces in ordered_map(pool, self.read, self.uses(disk, by_frame=False), ahead=ahead):
            yield from pieces


def verified_chunks(artifact: Artifact, directory: PackDirectory) -> npt.NDArray[np.bool_]:
    """Which chunks of one of the artifact's packs can be verified with the artifact's packs alone: those in full
    frames, and those in delta frames whose base lies in a full frame.
    """
    usable = directory.kinds != FrameKind.DELTA
    if directory.base_ids:
        usable[~usable] = [directory.base_of(frame) in artifact.bases for frame in np.flatnonzero(~usable).tolist()]
    chunks: npt.NDArray[np.bool_] = usable[directory.chunk_frames()]
    return chunks


def check_chunk(data: Buffer, chunk_id: ChunkId, subject: str) -> None:
    """Raise DigestMismatch unless `data` are the plain bytes of the chunk."""
    got = blake3.blake3(data).digest()
    if got != chunk_id:
        raise DigestMismatch(f"{subject}: chunk", expected=f"blake3:{chunk_id.hex()}", got=f"blake3:{got.hex()}")


@dataclass(frozen=True, slots=True)
class _Slice:
    """Some runs, the first or last of which may be a part of one, in columns."""

    gap: npt.NDArray[np.uint64]
    pack: npt.NDArray[np.uint32]
    first: npt.NDArray[np.uint32]
    count: npt.NDArray[np.uint32]


def _windows(runs: Runs) -> Iterator[_Slice]:
    """Slices of at most _WINDOW chunks."""
    totals = np.cumsum(runs.count, dtype=np.int64)
    start = 0
    while start < len(runs):
        before = int(totals[start - 1]) if start else 0
        end = int(np.searchsorted(totals, before + _WINDOW, side="right"))
        if end > start:
            yield _Slice(runs.gap[start:end], runs.pack[start:end], runs.first[start:end], runs.count[start:end])
        else:
            end = start + 1
            gap, pack, first, count = (int(column[start]) for column in (runs.gap, runs.pack, runs.first, runs.count))
            for at in range(0, count, _WINDOW):
                yield _Slice(
                    np.array([0 if at else gap], np.uint64),
                    np.array([pack], np.uint32),
                    np.array([first + at], np.uint32),
                    np.array([min(_WINDOW, count - at)], np.uint32),
                )
        start = end


def load_documents(blobs: RangeReader, descriptor: Descriptor) -> tuple[ArtifactManifest, Manifest]:
    """An artifact manifest and its config, which is the snapshot manifest.

    Raises:
        NotFound, SizeMismatch, DigestMismatch: a blob is missing or damaged.
        UnsupportedVersion: no snapshot of casstore, or of a dialect that this version does not know.
        DocumentError: a document breaks its rules.
    """
    subject = f"snapshot {descriptor.digest}"
    manifest = ArtifactManifest.parse(_document(blobs, descriptor, spec.MAX_MANIFEST), subject=subject)
    if manifest.config.media_type != spec.MEDIA_CONFIG:
        raise UnsupportedVersion(subject, f"config of type {manifest.config.media_type}", at="config.mediaType")
    config = Manifest.parse(_document(blobs, manifest.config, spec.MAX_MANIFEST), subject=f"{subject}: config")
    return manifest, config


def _document(blobs: RangeReader, descriptor: Descriptor, limit: int) -> bytes:
    """A whole, verified document."""
    if descriptor.size > limit:
        problem = f"expected a {descriptor.media_type} of at most {limit} bytes, got {descriptor.size}"
        raise UnsupportedVersion(str(descriptor.digest), problem)
    data = blobs.read_range(descriptor, 0, descriptor.size)
    got = Digest.of(data)
    if got != descriptor.digest:
        raise DigestMismatch(descriptor.media_type, expected=str(descriptor.digest), got=str(got))
    return data


def load_directory(blobs: RangeReader, pack: Descriptor, stamp: bytes) -> PackDirectory:
    """The directory of a pack, which must have this stamp.

    Raises:
        NotFound, SizeMismatch, DigestMismatch: it is missing or damaged.
        DocumentError: it breaks its rules.
    """
    subject = f"pack {pack.digest}"
    if pack.size < FOOTER_SIZE or pack.size > spec.READ_PACK:
        raise DocumentError(subject, f"expected a pack of {FOOTER_SIZE} to {spec.READ_PACK} bytes, got {pack.size}")
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
