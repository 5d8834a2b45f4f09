"""Creating a snapshot: capture the disk, describe it, give it a name."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from casstore import durable
from casstore.artifact import Artifact
from casstore.base import Base
from casstore.binding import Bound, Created, Destination, naming_origins, without_damaged
from casstore.capture import Capture, CaptureOptions, CaptureStats, capture
from casstore.contents import integrity_of
from casstore.digest import ChunkId
from casstore.disk import DiskSource, filesystem_type, is_qcow2
from casstore.diskmap import SnapshotMap
from casstore.durable import Durability
from casstore.errors import (
    AlreadyExists,
    NotFound,
    SourceError,
    storage_errors,
)
from casstore.integrity import recorded_name
from casstore.layout import LayoutTarget
from casstore.manifest import (
    SCRATCH,
    ImageRef,
    Manifest,
    SnapshotFormat,
    UpperLayer,
    format_created_at,
)
from casstore.names import parse_disk_name
from casstore.oci import Descriptor
from casstore.operation import Operation, StagedBlob
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
    fstype: str | None = None
    """None: what the disk's first bytes say."""


class Earlier(NamedTuple):
    """A snapshot of the same disk, which has not changed since."""

    name: str
    artifact: Artifact


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

    def attempt(base: Artifact | None) -> Created:
        return _build(source, destination, description, options, earlier, base, progress, clock)

    created, damaged = without_damaged(attempt, destination, base=base, again=not source.in_order)
    return replace(created, damaged=damaged)


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
        wanted = () if description.integrity is None else (description.integrity,)
        captured = capture(
            source, disk_name, storage=destination, base=of, options=options, meter=meter, algorithms=wanted
        )
    else:
        captured = _captured(earlier.artifact, disk_name)
    if source.size is None and captured.map.disks[0].size == 0:
        raise SourceError(
            f"{source.subject}: expected a disk, got nothing; the command before the pipe may have failed"
        )
    manifest = Manifest(
        format=SnapshotFormat.QCOW2 if qcow2 else SnapshotFormat.RAW,
        fstype=description.fstype or fstype,
        image=description.image,
        parent=description.parent,
        created_at=format_created_at(clock()),
        labels=dict(description.labels),
        upper=UpperLayer(file=disk_name, size_bytes=captured.map.disks[0].size, integrity=None),
        source_sandbox=description.source_sandbox,
    )
    bound = Bound.stage(captured, destination)
    if description.integrity is not None:
        with naming_origins(captured):
            manifest = _with_integrity(manifest, bound, destination, description.integrity, options, progress)
    if earlier is None:
        bound.verify(bound.artifact(manifest, destination), destination, options)
    created = bound.finish(manifest, destination)
    return replace(created, unchanged_since=None if earlier is None else earlier.name)


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


def _with_integrity(
    manifest: Manifest,
    bound: Bound,
    destination: Destination,
    algorithm: str,
    options: CaptureOptions,
    progress: Progress,
) -> Manifest:
    """The manifest with the integrity of the content: as it was read, or else read back."""
    captured, artifact = bound.captured, bound.artifact(manifest, destination)
    integrity = integrity_of(
        artifact,
        captured.map.disks[0],
        algorithm,
        known=captured.digests,
        workers=options.workers,
        progress=progress,
    )
    return replace(manifest, upper=replace(manifest.upper, integrity=integrity))


class FreshLayout:
    """A Destination with nothing in it to share."""

    def __init__(self, operation: Operation) -> None:
        self.scratch: str = operation.path
        self.new_blob: Callable[[], StagedBlob] = operation.new_blob
        self.add: Callable[[bytes, str], Descriptor] = operation.add
        self.read_range: Callable[[Descriptor, int, int], bytes] = operation.staged.read_range

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
