"""Snapshots that come with their documents: their disks are captured as they come, and the recorded integrity of each
is compared with what was stored.

    with Transaction(directory, catalog) as change:
        importer = Importer(change, catalog)
        importer.disk("a", SequentialDisk(member, ...), of=manifest)
        created = importer.snapshot(manifest, ["a"], {"metadata.json": ...})
        change.commit_all({name: created.root})

One transaction takes any number of snapshots. Each disk is stored as what it differs from those before it.

msb-sparse-sha256-v1, as microsandbox wrote it up to 0.5.7, is a digest of where a disk has holes as much as of its
bytes, and the same microsandbox exports disks without their holes. So a disk that came without any is looked at with
holes at its all-zero blocks, too: if the digest holds then, these are the holes that it had, and gets again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from casstore.artifact import Artifact
from casstore.base import Base
from casstore.binding import Bound, Created, combine, naming_origins, without_damaged
from casstore.capture import Capture, CaptureOptions, capture
from casstore.catalog import Catalog
from casstore.contents import find_meaning, integrity_of, written_extents
from casstore.disk import DiskSource
from casstore.diskmap import DiskMap
from casstore.errors import DigestMismatch, SizeMismatch, UsageError
from casstore.integrity import MERKLE_BLAKE3, SHA256, SPARSE_SHA256
from casstore.lineage import choose_base
from casstore.manifest import (
    SCRATCH,
    Dialect,
    DiskFile,
    Manifest,
    SnapshotFormat,
    UpperIntegrity,
    UpperLayer,
)
from casstore.names import parse_disk_name
from casstore.progress import Meter, Progress, silent
from casstore.scan import sample
from casstore.transaction import Transaction


@dataclass(frozen=True, slots=True)
class _Disk:
    """A captured disk, and a snapshot of it alone that nobody will see: to read it back, and to share with."""

    subject: str
    captured: Capture
    artifact: Artifact
    is_dense: bool
    """It came without holes."""
    damaged: tuple[str, ...]

    @property
    def map(self) -> DiskMap:
        """What it is like."""
        return self.captured.map.disks[0]

    def with_extents(self, extents: npt.NDArray[np.int64]) -> Capture:
        """The same content, allocated otherwise."""
        captured = self.captured
        return replace(captured, map=replace(captured.map, disks=(replace(self.map, extents=extents),)))


class Importer:
    """Takes disks and documents into an open Transaction, which the caller commits: `commit_all({name: root, ...})`.

    `strict`: a digest of a disk's allocation that cannot be compared is an error and no warning.
    """

    def __init__(
        self,
        change: Transaction,
        catalog: Catalog,
        *,
        options: CaptureOptions | None = None,
        strict: bool = False,
        progress: Progress = silent,
    ) -> None:
        self._change, self._catalog, self._strict, self._progress = change, catalog, strict, progress
        self._options = options or CaptureOptions()
        self._disks: dict[str, _Disk] = {}
        self._heads: dict[str, _Disk] = {}  # by what children call their parent
        self._last: _Disk | None = None
        self.warnings: list[str] = []
        """What people should know of what was imported, each with its subject."""

    def disk(
        self,
        key: str,
        source: DiskSource,
        *,
        of: Manifest | None = None,
        file: str | None = None,
        base: Artifact | None = None,
        algorithm: str | None = None,
    ) -> None:
        """Capture a disk, now and to its end; what it is like is remembered under `key`.

        `of` is the document that describes it, where that is known already, and `file` which of its disks it is, if it
        has several: then its integrity is computed while it is read, and not afterwards. `base` is what it is compared
        with; else one is looked for. `algorithm` is one that `integrity` will be asked for.

        Raises:
            SourceError: it cannot be read, or changed meanwhile.
            SizeMismatch: it has not the size that the document says.
            StorageError: the packs cannot be written.
            CorruptContent: a pack that the snapshot would rely on is damaged.
        """
        expected = None if of is None else _file(of, file)
        if expected is not None and expected.size is not None and source.size not in {None, expected.size}:
            raise SizeMismatch(source.subject, expected=expected.size, got=source.size)
        first = self._compared_with(source, of) if base is None else base
        wanted = () if of is None or expected is None else _first_meanings(expected.integrity, of)
        if algorithm is not None:
            wanted = (*wanted, algorithm)

        def attempt(base: Artifact | None) -> _Disk:
            return self._capture(source, base, file, wanted)

        self._disks.pop(key, None)
        disk, damaged = without_damaged(attempt, self._change, base=first, again=not source.in_order)
        self._disks[key] = self._last = replace(disk, damaged=damaged)
        self._change.remember(disk.artifact)

    def integrity(self, key: str, algorithm: str) -> UpperIntegrity:
        """A digest of a captured disk, for a document that is still to be made: as it was read, or else read back.

        Raises:
            UsageError: no such algorithm.
            CorruptContent: a frame that it relies on is damaged.
        """
        disk, workers = self._disks[key], self._options.workers
        known = disk.captured.digests
        return integrity_of(disk.artifact, disk.map, algorithm, known=known, workers=workers, progress=self._progress)

    def _capture(self, source: DiskSource, base: Artifact | None, file: str | None, algorithms: Sequence[str]) -> _Disk:
        captured = capture(
            source,
            _ANY_NAME,
            storage=self._change,
            base=None if base is None else Base(base, _like(base, file)),
            options=self._options,
            meter=Meter(self._progress, "capturing", None),
            algorithms=algorithms,
        )
        bound = Bound.unseen(captured)
        with naming_origins(captured):
            artifact = bound.artifact(_unseen(captured), self._change)
        bound.verify(artifact, self._change, self._options)
        disk = captured.map.disks[0]
        is_dense = not source.holes_are_known() or disk.extents.tolist() == [[0, disk.size]]
        return _Disk(source.subject, captured, artifact, is_dense, ())

    def _compared_with(self, source: DiskSource, of: Manifest | None) -> Artifact | None:
        """A snapshot that likely has much in common with a disk."""
        if of is not None and of.parent in self._heads:
            return self._heads[of.parent].artifact
        if self._last is not None:
            return self._last.artifact
        digest = choose_base(
            self._catalog,
            parent=None,
            same_source=None,
            image=SCRATCH if of is None else of.image,
            sample=lambda: sample(source),
        )
        return None if digest is None else self._change.reuse(digest)

    def snapshot(self, manifest: Manifest, keys: Sequence[str], sidecars: Mapping[str, bytes] | None = None) -> Created:
        """Stage a snapshot of captured disks, one for each of `manifest.disks`, in that order. A disk may belong to
        several. `sidecars` are the files that are kept with it: title -> bytes.

        Raises:
            SizeMismatch, DigestMismatch: a disk is not what the document says of its size or integrity.
            UnsupportedVersion: the algorithm of the integrity is unknown.
            UsageError: not so many disks, or one that was not captured.
        """
        files = manifest.disks
        if len(keys) != len(files) or not set(keys) <= self._disks.keys():
            raise UsageError(f"snapshot {manifest.id}: expected {len(files)} captured disks, got {len(keys)}")
        disks = [self._disks[key] for key in keys]
        parts = []
        for file, disk in zip(files, disks, strict=True):
            if file.size not in {None, disk.map.size}:
                raise SizeMismatch(disk.subject, expected=file.size or 0, got=disk.map.size)
            parts.append((parse_disk_name(file.name), self._proven(disk, file, manifest)))
        bound = Bound.stage(combine(parts), self._change, sidecars)
        artifact = bound.artifact(manifest, self._change)  # which compares the documents with each other
        if len(parts) > 1:  # one disk may bring a base that a delta of another one's pack was without
            bound.verify(artifact, self._change, self._options)
        created = bound.finish(manifest, self._change)
        self._heads[manifest.known_as] = disks[-1]
        return replace(created, damaged=tuple(dict.fromkeys(pack for disk in disks for pack in disk.damaged)))

    def _proven(self, disk: _Disk, file: DiskFile, manifest: Manifest) -> Capture:
        """The disk as it is kept: its content is what the document says, or that cannot be known."""
        recorded = file.integrity
        if recorded is None:
            return disk.captured
        got: list[str] = []
        for captured in self._allocations(disk, recorded):
            is_as_it_came = captured is disk.captured
            meaning, digests = find_meaning(
                disk.artifact,
                captured.map.disks[0],
                recorded,
                known=disk.captured.digests if is_as_it_came else None,
                meanings=None if is_as_it_came else [_OF_ALLOCATION],
                workers=self._options.workers,
                meter=Meter(self._progress, "verifying", None),
            )
            if meaning is not None:
                return captured
            got += digests.values()
        mismatch = DigestMismatch(
            f"{disk.subject}: upper digest mismatch ({recorded.algorithm})",
            expected=recorded.digest,
            got=" or ".join(dict.fromkeys(got)),
        )
        if recorded.algorithm != SPARSE_SHA256 or not disk.is_dense or self._strict:
            raise mismatch
        self.warnings.append(
            f"snapshot {manifest.id}: {disk.subject}: its recorded {recorded.algorithm} cannot be verified any more: it"
            " depends on where the disk had holes, and the disk came without them"
        )
        return disk.captured

    def _allocations(self, disk: _Disk, recorded: UpperIntegrity) -> Iterator[Capture]:
        """How the disk may have been allocated when its integrity was recorded, the likeliest first."""
        yield disk.captured
        if recorded.algorithm != SPARSE_SHA256:
            return
        seen = [disk.map.extents.tolist()]
        whole = np.array([[0, disk.map.size]] if disk.map.size else [], np.int64).reshape(-1, 2)
        for extents in (written_extents(disk.artifact, disk.map, workers=self._options.workers), whole):
            if extents.tolist() not in seen and (disk.is_dense or extents is not whole):
                seen.append(extents.tolist())
                yield disk.with_extents(extents)


_ANY_NAME = "disk"
_OF_ALLOCATION, _OF_CONTENT = "sparse", "sparse-zero"
"""The meanings of msb-sparse-sha256-v1."""


def _unseen(captured: Capture) -> Manifest:
    """A document for a disk whose own is not known yet."""
    disk = captured.map.disks[0]
    return Manifest(
        format=SnapshotFormat.RAW,
        fstype="unknown",
        image=SCRATCH,
        parent=None,
        created_at="",
        upper=UpperLayer(file=disk.name, size_bytes=disk.size),
        source_sandbox=None,
    )


def _file(manifest: Manifest, name: str | None) -> DiskFile | None:
    """Which of the document's disks a name means: for None, the only one."""
    files = [file for file in manifest.disks if name in {None, file.name}]
    return files[0] if len(files) == 1 else None


def _like(base: Artifact, file: str | None) -> DiskMap:
    """The disk of a snapshot that has this name, or the last one."""
    return next((disk for disk in base.map.disks if disk.name == file), base.map.disks[-1])


def _first_meanings(recorded: UpperIntegrity | None, manifest: Manifest) -> Sequence[str]:
    """The algorithms to compute on the way: of two that a recorded one may mean the likelier."""
    if recorded is None:
        return ()
    if recorded.algorithm == SPARSE_SHA256:
        return (_OF_ALLOCATION,) if manifest.dialect is Dialect.V04 else (_OF_CONTENT,)
    return {SHA256: ("sha256",), MERKLE_BLAKE3: ("blake3-merkle",)}.get(recorded.algorithm, ())
