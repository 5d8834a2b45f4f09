"""Creating a snapshot: capture the disk, describe it, give it a name."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from casstore import durable, spec
from casstore.artifact import Artifact
from casstore.capture import BlobWriter, Capture, CaptureOptions, CaptureStats, Place, capture
from casstore.content import RangeReader
from casstore.contents import hash_disk
from casstore.digest import ChunkId
from casstore.disk import DiskSource, filesystem_type, is_qcow2
from casstore.durable import Durability
from casstore.errors import AlreadyExists, SourceError, storage_errors
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


class Destination(RangeReader, Protocol):
    """Where a capture's blobs go."""

    def new_blob(self) -> BlobWriter:
        """Start a blob."""
        ...

    def add(self, data: bytes, media_type: str, /) -> Descriptor:
        """Stage a small blob."""
        ...

    def lookup(self, ids: Sequence[ChunkId], /) -> Mapping[ChunkId, Place]:
        """Find chunks that are stored already."""
        ...


def build(
    source: DiskSource,
    destination: Destination,
    description: Description,
    *,
    options: CaptureOptions,
    progress: Progress = silent,
    clock: Callable[[], int] = time.time_ns,
) -> Created:
    """Capture `source` and stage all blobs of its snapshot; the caller commits them.

    Raises:
        SourceError: the disk cannot be read, or changed meanwhile.
        StorageError: the blobs cannot be written.
        UsageError, DocumentError: the description does not make a valid snapshot manifest.
    """
    if description.integrity is not None:
        recorded_name(description.integrity)  # fail before the work, not after it
    head = source.head()
    qcow2 = is_qcow2(head)
    fstype = "unknown" if qcow2 else filesystem_type(head)
    default = "disk.qcow2" if qcow2 else "upper.ext4" if fstype == "ext4" else "disk.raw"
    disk_name = parse_disk_name(description.disk_name or default)
    meter = Meter(progress, "capturing", None)
    captured = capture(
        source, disk_name, lookup=destination.lookup, new_blob=destination.new_blob, options=options, meter=meter
    )
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
    map_blob = destination.add(captured.map.to_bytes(), spec.MEDIA_MAP)
    if description.integrity is not None:
        manifest = _with_integrity(manifest, captured, map_blob, destination, description.integrity, options, progress)
    config = destination.add(manifest.to_bytes(), spec.MEDIA_CONFIG)
    artifact = _artifact_manifest(manifest, config, map_blob, captured)
    root = destination.add(artifact.raw, spec.MEDIA_MANIFEST)
    added = captured.stats.new_stored + map_blob.size + config.size + root.size
    return Created(artifact.descriptor, manifest, captured.stats, added)


def _artifact_manifest(
    manifest: Manifest, config: Descriptor, disk_map: Descriptor, captured: Capture
) -> ArtifactManifest:
    annotations = {}
    if is_rfc3339(manifest.created_at):
        annotations[spec.ANNOTATION_CREATED] = manifest.created_at
    if manifest.image != SCRATCH:
        annotations[spec.ANNOTATION_BASE_NAME] = manifest.image.ref
        annotations[spec.ANNOTATION_BASE_DIGEST] = manifest.image.manifest_digest
    return ArtifactManifest.build(config=config, layers=[disk_map, *captured.packs], annotations=annotations)


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


class _FreshLayout:
    """A Destination with nothing in it to share."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self.new_blob = operation.new_blob
        self.add = operation.add
        self.read_range = operation.staged.read_range

    def lookup(self, _: Sequence[ChunkId]) -> Mapping[ChunkId, Place]:
        return {}


def create_at_path(
    path: str, capture_into: Callable[[Destination], Created], *, force: bool, durability: Durability
) -> Created:
    """Make directory `path`, a self-contained OCI layout with one snapshot, tagged `latest`.

    The directory appears under its name when it is complete and durable.

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
            created = capture_into(_FreshLayout(operation))
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
