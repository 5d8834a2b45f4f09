"""A snapshot's blobs as one thing to read: artifact manifest -> config, map -> pack directories -> frames -> chunks.

Every step is bound to the one before by a digest, so nothing that is read can be other than what the artifact's digest
stands for: the manifest states the sha256 of config and map, the map the BLAKE3 of each pack's directory, the directory
the BLAKE3 of each chunk. Packs need not be read as a whole for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from casstore import spec
from casstore.content import RangeReader
from casstore.decoding import Frames
from casstore.dialects import read_config
from casstore.digest import ChunkId, Digest
from casstore.directories import Directories, Located, covered
from casstore.diskmap import DiskMap, Runs, SnapshotMap
from casstore.errors import DigestMismatch, DocumentError, UnsupportedVersion
from casstore.frame import FrameKind
from casstore.manifest import DiskFile, Manifest
from casstore.oci import ArtifactManifest, Descriptor
from casstore.pack import PackDirectory, Place, StoredPack

_WINDOW = 65536
"""Chunks planned at a time (about 1.5 GiB of disk), so that a plan's memory does not grow with the disk."""
_PACKS = 256
"""Packs whose directories are compared with the runs at a time, or fewer that have _WINDOW chunks."""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Some chunks of a disk in the disk's order, in columns of equal length."""

    offset: npt.NDArray[np.int64]
    """Bytes from the start of the disk."""
    located: Located
    """Where they are stored."""

    def __len__(self) -> int:
        return len(self.offset)


class Artifact:
    """A snapshot whose documents were read and agree with each other. Directories of packs and frames are read when
    they are asked for. Threads may share it.
    """

    def __init__(
        self,
        blobs: RangeReader,
        manifest: ArtifactManifest,
        config: Manifest,
        disk_map: SnapshotMap,
        directories: Directories,
    ) -> None:
        self._blobs = blobs
        self.manifest: ArtifactManifest = manifest
        self.config: Manifest = config
        self.map: SnapshotMap = disk_map
        self.directories: Directories = directories
        self.digest: Digest = manifest.descriptor.digest
        self.frames: Frames = Frames(blobs, manifest.packs, directories)

    @classmethod
    def load(cls, blobs: RangeReader, descriptor: Descriptor, *, check: bool = True) -> Self:
        """Read and check all documents of the artifact.

        Without `check` the directories of its packs are not read, and so not compared with the map: only for what a ref
        of a store leads to, which was checked before it got its name, and only to look at its documents.

        Raises:
            NotFound, SizeMismatch, DigestMismatch: a blob is missing or damaged.
            DocumentError: a document breaks its rules, or two of them contradict each other.
        """
        manifest = _manifest(blobs, descriptor)
        artifact = cls.of_documents(blobs, manifest)
        if check:
            artifact.check_runs()
        return artifact

    @classmethod
    def of_documents(cls, blobs: RangeReader, manifest: ArtifactManifest) -> Self:
        """From a manifest that was read; reads config and map, and no directory.

        Raises:
            As `load`.
        """
        config = _config(blobs, manifest)
        subject = f"snapshot {manifest.descriptor.digest}: map"
        disk_map = SnapshotMap.parse(_document(blobs, manifest.map, spec.MAX_MAP), subject=subject)
        return cls.assemble(blobs, manifest, config, disk_map, check=False)

    @classmethod
    def assemble(
        cls,
        blobs: RangeReader,
        manifest: ArtifactManifest,
        config: Manifest,
        disk_map: SnapshotMap,
        *,
        check: bool = True,
    ) -> Self:
        """From documents that were read or just made; reads and checks the packs' directories.

        Raises:
            As `load`.
        """
        subject = f"snapshot {manifest.descriptor.digest}"
        packs = manifest.packs
        if [pack.digest for pack in packs] != [entry.digest for entry in disk_map.packs]:
            raise DocumentError(subject, "expected the packs of the map, in its order", at="layers")
        artifact = cls(blobs, manifest, config, disk_map, Directories(blobs, packs, disk_map.packs))
        artifact._check_disks(subject)
        if check:
            artifact.check_runs()
        return artifact

    def _check_disks(self, subject: str) -> None:
        files, disks = self.config.disks, self.map.disks
        if len(files) == len(disks) and all(map(_fits, files, disks)):
            return
        count = "one disk" if len(files) == 1 else f"{len(files)} disks"
        expected = ", ".join(f"{ascii(file.name[:80])} of {file.size} bytes" for file in files)
        got = ", ".join(f"{disk.name} of {disk.size} bytes" for disk in disks)
        problem = f"expected {count} {expected[:200]}, the map has {got[:200]}"
        raise DocumentError(subject, problem, at="upper")

    def check_runs(self) -> None:
        """Compare each disk's runs with the directories of their packs, some packs at a time.

        Raises:
            DocumentError: they contradict each other.
        """
        subject = f"snapshot {self.digest}"
        grouped = [_Grouped(disk.runs, len(self.directories)) for disk in self.map.disks]
        for packs, lengths in self._lengths():
            counts = np.array([len(each) for each in lengths])
            before = np.cumsum(counts) - counts  # chunks of the packs before, in the columns of all these packs
            sums = np.zeros(counts.sum() + 1, np.uint64)
            np.cumsum(np.concatenate(lengths), dtype=np.uint64, out=sums[1:])
            for disk, runs in zip(self.map.disks, grouped, strict=True):
                pack, start, end, length = runs.of(packs)
                if (end > counts[pack]).any():
                    raise DocumentError(subject, "a run goes past the end of its pack", at=disk.name)
                if (sums[end + before[pack]] - sums[start + before[pack]] != length).any():
                    raise DocumentError(subject, "a run's length is not that of its chunks", at=disk.name)

    def _lengths(self) -> Iterator[tuple[range, list[npt.NDArray[np.uint32]]]]:
        """Some packs, and the plain bytes of the chunks of each."""
        first, chunks = 0, 0
        lengths: list[npt.NDArray[np.uint32]] = []
        for n, table in enumerate(self.directories.tables(), 1):
            lengths.append(table.directory.lengths)
            chunks += len(table.ids)
            if chunks >= _WINDOW or len(lengths) == _PACKS or n == len(self.directories):
                yield range(first, n), lengths
                first, chunks, lengths = n, 0, []

    def read_file(self, title: str) -> bytes | None:
        """A small file that is kept with the snapshot, if it has one of this title.

        Raises:
            NotFound, CorruptContent: it is missing or damaged.
        """
        file = self.manifest.file(title)
        return None if file is None else _document(self._blobs, file, spec.MAX_MANIFEST)

    @property
    def packs(self) -> Sequence[StoredPack]:
        """The packs, with what the map says of their directories."""
        return list(map(StoredPack, self.manifest.packs, (entry.directory for entry in self.map.packs)))

    def bases(self) -> dict[ChunkId, Place]:
        """Where the bases of the deltas in its packs lie, in full frames; those that lie in none are left out."""
        table, packs = self.directories.bases(), self.packs
        return {
            ChunkId(base): Place(packs[pack], chunk)
            for base, pack, chunk in zip(table.ids.tolist(), table.pack.tolist(), table.chunk.tolist(), strict=True)
            if pack >= 0
        }

    def used(self, disk: DiskMap) -> Iterator[npt.NDArray[np.bool_]]:
        """Per pack, which of its chunks are part of `disk`."""
        runs = _Grouped(disk.runs, len(self.directories))
        for n, table in enumerate(self.directories.tables()):
            _, start, end, _ = runs.of(range(n, n + 1))
            yield covered(start, end, len(table.ids))

    def chunks(self, disk: DiskMap) -> Iterator[Placed]:
        """The chunks of `disk` in its order, at most some thousand at a time."""
        end = 0
        for runs in _windows(disk.runs):
            counts = runs.count.astype(np.int64)
            firsts = np.cumsum(counts) - counts
            pack = np.repeat(runs.pack.astype(np.int64), counts)
            within = np.arange(len(pack)) - np.repeat(firsts, counts)
            located = self.directories.locate(pack, np.repeat(runs.first.astype(np.int64), counts) + within)
            gaps = np.zeros(len(pack), np.int64)
            gaps[firsts] = runs.gap.astype(np.int64)
            ends = end + np.cumsum(gaps + located.length)
            yield Placed(ends - located.length, located)
            end = int(ends[-1])


class _Grouped:
    """The runs of a disk, by pack."""

    def __init__(self, runs: Runs, packs: int) -> None:
        self._runs = runs
        self._order = np.argsort(runs.pack, kind="stable")
        self._edges = np.searchsorted(runs.pack[self._order], np.arange(packs + 1, dtype=np.uint32))

    def of(
        self, packs: range
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """(which of the packs, first chunk, chunk after the last one, plain bytes) of each run of some packs."""
        rows = self._order[self._edges[packs.start] : self._edges[packs.stop]]
        first = self._runs.first[rows].astype(np.int64)
        pack = self._runs.pack[rows].astype(np.int64) - packs.start
        return pack, first, first + self._runs.count[rows], self._runs.length[rows]


def verified_chunks(artifact: Artifact, directory: PackDirectory) -> npt.NDArray[np.bool_]:
    """Which chunks of one of the artifact's packs can be verified with the artifact's packs alone: those in full
    frames, and those in delta frames whose base lies in a full frame.
    """
    usable = directory.kinds != FrameKind.DELTA
    if directory.base_ids:
        bases = artifact.directories.bases()
        usable[~usable] = bases.pack[bases.rows(np.frombuffer(directory.base_ids, "V32"))] >= 0
    chunks: npt.NDArray[np.bool_] = usable[directory.chunk_frames()]
    return chunks


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


def _fits(file: DiskFile, disk: DiskMap) -> bool:
    return file.name == disk.name and file.size in {None, disk.size}


def load_documents(blobs: RangeReader, descriptor: Descriptor) -> tuple[ArtifactManifest, Manifest]:
    """An artifact manifest and its config, which is the snapshot manifest.

    Raises:
        NotFound, SizeMismatch, DigestMismatch: a blob is missing or damaged.
        UnsupportedVersion: no snapshot of casstore, or of a dialect that this version does not know.
        DocumentError: a document breaks its rules.
    """
    manifest = _manifest(blobs, descriptor)
    return manifest, _config(blobs, manifest)


def _manifest(blobs: RangeReader, descriptor: Descriptor) -> ArtifactManifest:
    subject = f"snapshot {descriptor.digest}"
    return ArtifactManifest.parse(_document(blobs, descriptor, spec.MAX_MANIFEST), subject=subject)


def _config(blobs: RangeReader, manifest: ArtifactManifest) -> Manifest:
    def read(descriptor: Descriptor) -> bytes:
        return _document(blobs, descriptor, spec.MAX_MANIFEST)

    return read_config(manifest, read, subject=f"snapshot {manifest.descriptor.digest}")


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
