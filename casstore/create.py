"""Creating a snapshot: capture the disk, describe it, give it a name."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from casstore import durable, spec
from casstore.artifact import Artifact
from casstore.base import Base
from casstore.capture import Capture, CaptureOptions, CaptureStats, Storage, capture
from casstore.content import RangeReader
from casstore.contents import hash_disk
from casstore.digest import ChunkId
from casstore.disk import DiskSource, filesystem_type, is_qcow2
from casstore.diskmap import SnapshotMap
from casstore.durable import Durability
from casstore.errors import (
    AlreadyExists,
    CorruptContent,
    DamagedPacks,
    DocumentError,
    NotFound,
    SourceError,
    storage_errors,
)
from casstore.intake import verify_claims
from casstore.integrity import hasher, recorded_name
from casstore.layout import LayoutTarget
from casstore.manifest import (
    SCRATCH,
    ImageRef,
    Manifest,
    SnapshotFormat,
    UpperIntegrity,
    UpperLayer,
    format_created_at,
    is_rfc3339,
)
from casstore.names import parse_disk_name
from casstore.oci import ArtifactManifest, Descriptor
from casstore.operation import Operation
from casstore.pack import PackDirectory, Place, StoredPack
from casstore.progress import Meter, Progress, silent

PATH_TAG = "latest"
"""The tag of a snapshot that was created into a directory of its own."""


@dataclass(frozen=True, slots=True)
class Description:
    """What the snapshot manifest says besides what the disk itself tells."""

    image: ImageRef = SCRATCH
    parent: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    source_sandbox: str | None = None
    integrity: str | None = None
    """The algorithm to record, in the command line's spelling; None records none."""
    disk_name: str | None = None
    """None: upper.ext4, disk.qcow2 or disk.raw."""


@dataclass(frozen=True, slots=True)
class Created:
    """What a capture made."""

    root: Descriptor
    manifest: Manifest
    stats: CaptureStats
    added: int
    """Bytes of the blobs that were staged for it: packs, map, config and manifest."""
    unchanged_since: str | None = None
    """The snapshot of the same disk whose content it has, because the disk's times said so: nothing was read."""
    damaged: tuple[str, ...] = ()
    """The packs of the store that were found damaged. Nothing of this snapshot relies on them."""


class Earlier(NamedTuple):
    """A snapshot of the same disk, which has not changed since."""

    name: str
    artifact: Artifact


class Destination(Storage, Protocol):
    """Where a capture's blobs go."""

    def add(self, data: bytes, media_type: str, /) -> Descriptor:
        """Stage a small blob."""
        ...

    def verified(self, pack: Descriptor, /) -> Collection[int]:
        """Which chunks of a stored pack were verified before."""
        ...

    def distrust(self, packs: Collection[str], /) -> None:
        """Never again offer chunks of these packs, and drop what was staged."""
        ...


def build(
    source: DiskSource,
    destination: Destination,
    description: Description,
    *,
    options: CaptureOptions,
    earlier: Earlier | None = None,
    base: Artifact | None = None,
    progress: Progress = silent,
    clock: Callable[[], int] = time.time_ns,
) -> Created:
    """Capture `source` and stage all blobs of its snapshot; the caller commits them. With `earlier`, whose blobs must
    stay stored meanwhile, nothing is read: the snapshot gets its content. `base` is what the disk is compared with.

    When a stored pack turns out to be damaged the disk is captured again without it. A pipe cannot be read again.

    Raises:
        SourceError: the disk cannot be read, or changed meanwhile; or the snapshot's documents would be larger than
            readers accept (docs/reference/limits.md says when).
        StorageError: the blobs cannot be written.
        CorruptContent: a pack that the snapshot would rely on is damaged.
        UsageError, DocumentError: the description does not make a valid snapshot manifest.
    """
    if description.integrity is not None:
        recorded_name(description.integrity)  # fail before the work, not after it
    damaged: list[str] = []
    while True:
        try:
            created = _build(source, destination, description, options, earlier, base, progress, clock)
        except DamagedPacks as error:
            if source.size is None or set(error.packs) <= set(damaged):
                raise
            damaged += error.packs
            destination.distrust(error.packs)
            base = None
        else:
            return replace(created, damaged=tuple(dict.fromkeys(damaged)))


def _build(
    source: DiskSource,
    destination: Destination,
    description: Description,
    options: CaptureOptions,
    earlier: Earlier | None,
    base: Artifact | None,
    progress: Progress,
    clock: Callable[[], int],
) -> Created:
    qcow2, fstype = _kind(source.head()) if earlier is None else _kind_of(earlier.artifact)
    default = "disk.qcow2" if qcow2 else "upper.ext4" if fstype == "ext4" else "disk.raw"
    disk_name = parse_disk_name(description.disk_name or default)
    if earlier is None:
        meter = Meter(progress, "capturing", None)
        of = None if base is None else Base(base, base.map.disks[0])
        captured = capture(source, disk_name, storage=destination, base=of, options=options, meter=meter)
    else:
        captured = _captured(earlier.artifact, disk_name)
    if source.size is None and captured.map.disks[0].size == 0:
        raise SourceError(
            f"{source.subject}: expected a disk, got nothing; the command before the pipe may have failed"
        )
    manifest = Manifest(
        format=SnapshotFormat.QCOW2 if qcow2 else SnapshotFormat.RAW,
        fstype=fstype,
        image=description.image,
        parent=description.parent,
        created_at=format_created_at(clock()),
        labels=dict(description.labels),
        upper=UpperLayer(file=disk_name, size_bytes=captured.map.disks[0].size, integrity=None),
        source_sandbox=description.source_sandbox,
    )
    with _fitting():
        map_blob = destination.add(captured.map.to_bytes(), spec.MEDIA_MAP)
    if description.integrity is not None:
        with _naming_origins(captured):
            manifest = _with_integrity(
                manifest, captured, map_blob, destination, description.integrity, options, progress
            )
    config = destination.add(manifest.to_bytes(), spec.MEDIA_CONFIG)
    artifact = _artifact_manifest(manifest, config, map_blob, captured)
    if earlier is None:
        with _naming_origins(captured):
            _verify(Artifact.assemble(destination, artifact, manifest, captured.map), captured, destination, options)
    root = destination.add(artifact.raw, spec.MEDIA_MANIFEST)
    added = captured.stats.new_stored + map_blob.size + config.size + root.size
    unchanged_since = None if earlier is None else earlier.name
    return Created(artifact.descriptor, manifest, captured.stats, added, unchanged_since)


def _kind(head: bytes) -> tuple[bool, str]:
    """Whether a disk is in the qcow2 format, and its file system, by its first bytes."""
    qcow2 = is_qcow2(head)
    return qcow2, "unknown" if qcow2 else filesystem_type(head)


def _kind_of(artifact: Artifact) -> tuple[bool, str]:
    """What `_kind` would say of an artifact's disk."""
    return artifact.config.format is SnapshotFormat.QCOW2, artifact.config.fstype


def _captured(artifact: Artifact, disk_name: str) -> Capture:
    """What a capture of an artifact's disk gives that finds every chunk where the artifact has it."""
    disk = replace(artifact.map.disks[0], name=disk_name)
    chunks = int(disk.runs.count.sum())
    stats = CaptureStats(allocated=disk.allocated, chunks=chunks, new_chunks=0, new_plain=0, new_stored=0)
    return Capture(SnapshotMap(artifact.map.packs, (disk,)), artifact.manifest.packs, stats, made={})


def _artifact_manifest(
    manifest: Manifest, config: Descriptor, disk_map: Descriptor, captured: Capture
) -> ArtifactManifest:
    annotations = {}
    if is_rfc3339(manifest.created_at):
        annotations[spec.ANNOTATION_CREATED] = manifest.created_at
    if manifest.image != SCRATCH:
        annotations[spec.ANNOTATION_BASE_NAME] = manifest.image.ref
        annotations[spec.ANNOTATION_BASE_DIGEST] = manifest.image.manifest_digest
    with _fitting():
        return ArtifactManifest.build(config=config, layers=[disk_map, *captured.packs], annotations=annotations)


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    """Say what to do about a document that would be larger than registries and readers accept."""
    try:
        yield
    except DocumentError as error:
        raise SourceError(
            f"the snapshot would not fit: {error}; it is spread over too many packs of earlier snapshots: capture the"
            " disk into a store of its own (--store DIR), which writes few large ones"
        ) from error


def _with_integrity(
    manifest: Manifest,
    captured: Capture,
    map_blob: Descriptor,
    blobs: RangeReader,
    algorithm: str,
    options: CaptureOptions,
    progress: Progress,
) -> Manifest:
    """The manifest with the integrity of what was stored: read back, so that it also proves the stored bytes."""
    config = Descriptor.of(manifest.to_bytes(), spec.MEDIA_CONFIG)
    artifact = Artifact.assemble(
        blobs, _artifact_manifest(manifest, config, map_blob, captured), manifest, captured.map
    )
    disk = captured.map.disks[0]
    digester = hasher(algorithm, disk.size)
    meter = Meter(progress, "hashing", disk.size)
    hash_disk(artifact, disk, [digester], workers=options.workers, meter=meter)
    integrity = UpperIntegrity(algorithm=recorded_name(algorithm), digest=digester.finish())
    return replace(manifest, upper=replace(manifest.upper, integrity=integrity))


def _verify(artifact: Artifact, captured: Capture, destination: Destination, options: CaptureOptions) -> None:
    """Check what this capture relies on and did not make: frames that it copied, and deltas of stored packs for which
    it brings the base.

    Raises:
        CorruptContent: one of them is wrong.
    """
    places = {pack.digest: n for n, pack in enumerate(artifact.manifest.packs)}

    def known(pack: Descriptor) -> Collection[int]:
        made = captured.made.get(pack.digest)
        if made is not None:
            return made
        directory = artifact.directories[places[pack.digest]]
        # What is stored and needs no base was verified when it came.
        return destination.verified(pack) if directory.base_ids else range(len(directory))

    verify_claims(artifact, known=known, workers=options.workers)


@contextlib.contextmanager
def _naming_origins(captured: Capture) -> Iterator[None]:
    """What is found wrong with a copied frame is said of its new pack, which nobody will ever see."""
    try:
        yield
    except CorruptContent as error:
        if not captured.dissolved:
            raise
        origins = ", ".join(map(str, captured.dissolved))
        problem = f"{error}; frames were copied from {origins}: verify the snapshots here"
        raise DamagedPacks(problem, map(str, captured.dissolved)) from error


class FreshLayout:
    """A Destination with nothing in it to share."""

    def __init__(self, operation: Operation) -> None:
        self.scratch = operation.path
        self.new_blob = operation.new_blob
        self.add = operation.add
        self.read_range = operation.staged.read_range

    def lookup(self, *_: object, **__: object) -> Mapping[ChunkId, Place]:
        return {}

    def directory(self, pack: StoredPack) -> PackDirectory:
        raise NotFound(f"pack {pack.descriptor.digest}: there are no stored packs here")

    def verified(self, _: Descriptor) -> Collection[int]:
        return ()

    def distrust(self, _: Collection[str]) -> None:
        """There is nothing to distrust here."""


def create_at_path(
    path: str, capture_into: Callable[[Destination, str], Created], *, force: bool, durability: Durability
) -> Created:
    """Make directory `path`, a self-contained OCI layout with one snapshot, tagged `latest`.

    The directory appears under its name when it is complete and durable. `capture_into` gets the destination, and a
    directory on its file system for files without a name.

    Raises:
        AlreadyExists: something is there, and `force` is not set; or it is anything but a snapshot made like this.
        As `build`.
    """
    if os.path.lexists(path) and not force:
        raise AlreadyExists(f"{path!r} exists already; choose another place, or force with -f")
    _require_replaceable(path)
    temporary = durable.temporary_beside(os.path.abspath(path))
    try:
        target = LayoutTarget(temporary, create=True, durability=durability)
        with Operation(os.path.join(temporary, "tmp"), durability) as operation:
            created = capture_into(FreshLayout(operation), operation.path)
            operation.move_to(target.blobs)
        with storage_errors(f"making {path!r}"):
            os.rmdir(os.path.join(temporary, "tmp"))
            target.tag(created.root, PATH_TAG)
            durable.publish_directory(temporary, os.path.abspath(path), replace=force, durability=durability)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return created


def _require_replaceable(path: str) -> None:
    """Raise AlreadyExists unless there is nothing to lose but a snapshot that was created at this path."""
    if not os.path.lexists(path) or (_is_directory(path) and not os.listdir(path)):
        return
    names = set(os.listdir(path)) if _is_directory(path) else set()
    if names != {"blobs", "index.json", "oci-layout"} or set(LayoutTarget(path).tags()) != {PATH_TAG}:
        raise AlreadyExists(f"{path!r}: expected a snapshot to replace, made by create at a path, got something else")


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
