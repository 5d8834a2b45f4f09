"""A snapshot as the library's users see it.

The names are those of microsandbox's snapshots, with two identities side by side: `digest` is the artifact's, the same
here and in every registry; `id` is the snapshot manifest's, what microsandbox calls digest.

What reads content needs numpy, and is imported where it is used: a list of handles is had without.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, Self

from casstore import durable
from casstore.config import DiskInput, SandboxInput, SnapshotBuilder
from casstore.content import Fetcher, RangeReader
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import AlreadyExists, CorruptContent, NotFound, StorageError, UsageError
from casstore.manifest import Manifest, SnapshotFormat, created_time
from casstore.oci import ArtifactManifest, Descriptor
from casstore.progress import Meter, Progress, silent

if TYPE_CHECKING:
    from casstore.artifact import Artifact
    from casstore.binding import Created
    from casstore.catalog import Entry
    from casstore.frame import Buffer
    from casstore.salvage import Salvaged
    from casstore.verify import VerifyReport

_READING = "reading seeds"


class Blobs(RangeReader, Fetcher, Protocol):
    """Where a snapshot's blobs are read from."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot whose documents were read. Its disk's content is read when it is verified or restored."""

    path: str
    """STORE/refs/NAME, or the directory of its own OCI layout."""
    artifact_manifest: ArtifactManifest
    manifest: Manifest
    blobs: Blobs
    rely: Callable[[Mapping[Digest, int]], AbstractContextManager[None]]
    """Keeps blobs (digest -> bytes) from being collected while they are read."""
    names: tuple[str, ...] = ()
    cost: Created | None = None
    """What it cost, when it was just created."""

    @staticmethod
    def builder(source: DiskInput | SandboxInput | str | os.PathLike[str]) -> SnapshotBuilder:
        """Start to configure a new snapshot of a disk, or of a sandbox's."""
        return SnapshotBuilder(source)

    @classmethod
    def read(
        cls,
        path: str,
        blobs: Blobs,
        root: Descriptor,
        rely: Callable[[Mapping[Digest, int]], AbstractContextManager[None]],
        names: Iterable[str] = (),
    ) -> Self:
        """Read a snapshot's documents.

        Raises:
            NotFound, CorruptContent: as `load_documents`.
        """
        from casstore.artifact import load_documents

        artifact_manifest, manifest = load_documents(blobs, root)
        return cls(path, artifact_manifest, manifest, blobs, rely, tuple(names))

    @property
    def root(self) -> Descriptor:
        """The artifact manifest's descriptor."""
        return self.artifact_manifest.descriptor

    @property
    def digest(self) -> Digest:
        """sha256 of the artifact manifest: the identity here and in every registry."""
        return self.root.digest

    @property
    def id(self) -> Digest:
        """sha256 of the snapshot manifest's canonical bytes: the identity that microsandbox prints."""
        return self.manifest.id

    @property
    def size_bytes(self) -> int:
        """Apparent bytes of the disk."""
        return self.manifest.upper.size_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its blobs, shared ones included."""
        return sum(self.needs.values())

    @property
    def image_ref(self) -> str:
        """The image that the disk was made from."""
        return self.manifest.image.ref

    @property
    def image_manifest_digest(self) -> str:
        """The digest that pins the image."""
        return self.manifest.image.manifest_digest

    @property
    def format(self) -> SnapshotFormat:
        """The disk's format."""
        return self.manifest.format

    @property
    def fstype(self) -> str:
        """The disk's file system."""
        return self.manifest.fstype

    @property
    def parent(self) -> str | None:
        """The id of the snapshot that this one comes from."""
        return self.manifest.parent

    @property
    def created_at(self) -> str:
        """When it was captured, as recorded."""
        return self.manifest.created_at

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.manifest.labels

    @property
    def source_sandbox(self) -> str | None:
        """The sandbox whose disk it is."""
        return self.manifest.source_sandbox

    @property
    def needs(self) -> Mapping[Digest, int]:
        """The blobs that it is made of, itself included, with their bytes."""
        return self.artifact_manifest.needs

    def artifact(self) -> Artifact:
        """All its documents, to read the disk's content with. Nothing keeps the blobs from being collected."""
        from casstore.artifact import Artifact

        return Artifact.load(self.blobs, self.root)

    def verify(self, *, workers: int = 0, progress: Progress = silent) -> VerifyReport:
        """Verify its blobs, its chunks, and its recorded integrity; see `verify.verify`.

        Raises:
            NotFound, CorruptContent: something is missing or wrong.
        """
        from casstore.verify import verify

        with self.rely(self.needs):
            return verify(self.artifact(), self.blobs, workers=workers, meter=Meter(progress, "verifying", None))

    def restore(
        self,
        destination: str | os.PathLike[str],
        *,
        force: bool = False,
        document: Manifest | None = None,
        seeds: Iterable[str | os.PathLike[str]] = (),
        workers: int = 0,
        progress: Progress = silent,
        durability: Durability = Durability.FULL,
    ) -> str:
        """Write the disk back; returns the path of its file, of a chain's last one.

        A destination that ends in "/" or is a directory becomes an artifact directory, as microsandbox keeps a
        snapshot: the snapshot manifest, and the disk under its own name. So does any destination for a chain of several
        files, or if a `document` is given to be written in place of the snapshot's own; see Store.document. Else the
        destination becomes the disk's file.

        `seeds` are disk files that may have much in common with this one, as the disk that is replaced: they are read
        first, and what they hold is taken from there, as reflinks where the file system has them. They may change.

        Raises:
            AlreadyExists: the file exists, and `force` is not set.
            SourceError: a seed cannot be opened, or is no regular file.
            NotFound, CorruptContent: a blob is missing or damaged; nothing was written under the file's name.
            StorageError: the file system refused.
        """
        from casstore.seeds import Seeds

        path = os.fspath(destination)
        with self.rely(self.needs), Seeds.open(seeds) as found:
            artifact = self.artifact()
            if document is not None or len(artifact.map.disks) > 1 or path.endswith("/") or os.path.isdir(path):
                from casstore.microsandbox.output import write_directory

                return write_directory(
                    artifact,
                    document or self.manifest,
                    path,
                    force=force,
                    workers=workers,
                    progress=progress,
                    durability=durability,
                    seeds=found,
                )
            from casstore.restore import restore_file

            disk = artifact.map.disks[0]
            if found:
                found.learn(artifact, disk, workers=workers, meter=Meter(progress, _READING, None))
            meter = Meter(progress, "restoring", _covered(artifact))
            restore_file(
                artifact, disk, path, force=force, workers=workers, meter=meter, durability=durability, seeds=found
            )
        return path

    def salvage(
        self,
        destination: str | os.PathLike[str],
        *,
        force: bool = False,
        seeds: Iterable[str | os.PathLike[str]] = (),
        workers: int = 0,
        progress: Progress = silent,
        durability: Durability = Durability.FULL,
    ) -> Salvaged:
        """Write back what can be read of the disk, as `restore` does; where bytes are missing the file has holes, and
        the result says so. All bytes that are written were checked. `seeds` may have some of those that the store lost.

        Raises:
            AlreadyExists, SourceError, StorageError: as `restore`.
            UsageError: it is a chain of several files, of which one with holes is of no use.
            CorruptContent: the map is missing or damaged, so nothing is known; nothing was written then.
        """
        from casstore.salvage import load_remains, salvage_file
        from casstore.seeds import Seeds

        with self.rely(self._present()), Seeds.open(seeds) as found:
            remains = load_remains(self.blobs, self.root)
            artifact = remains.artifact
            if len(remains.disks) > 1:
                told = f"snapshot {self.digest}: expected one file to salvage, got a chain of {len(remains.disks)}"
                raise UsageError(f"{told}; mend it from a good copy")
            with self._placed(artifact, destination, force=force, durability=durability) as path:
                if found:
                    meter = Meter(progress, _READING, None)
                    found.learn(artifact, artifact.map.disks[0], workers=workers, meter=meter)
                meter = Meter(progress, "restoring", _covered(artifact))
                return salvage_file(
                    remains, path, force=force, workers=workers, meter=meter, durability=durability, seeds=found
                )

    @contextlib.contextmanager
    def _placed(
        self, artifact: Artifact, destination: str | os.PathLike[str], *, force: bool, durability: Durability
    ) -> Iterator[str]:
        """The path of the disk's file, to be written in the block; with the snapshot manifest beside it, afterwards,
        where the destination is a directory.
        """
        path = os.fspath(destination)
        if not path.endswith("/") and not os.path.isdir(path):
            yield path
            return
        manifest_path = os.path.join(path, self.manifest.filename)
        if os.path.lexists(manifest_path) and not force:
            raise AlreadyExists(f"{manifest_path!r} exists already; choose another place, or force with -f")
        from casstore.microsandbox.output import Plan

        plan = Plan.of(artifact, self.manifest)
        plan.require_plain(path)
        disk = os.path.join(path, plan.disks[0])
        durable.make_directories(os.path.dirname(disk) or "/", durability)
        yield disk
        for name, data in plan.documents.items():
            durable.replace_file(os.path.join(path, name), data, mode=0o644, durability=durability)

    def _present(self) -> Mapping[Digest, int]:
        """Those of its blobs that are there with their size."""
        found = {}
        for blob in (self.root, *self.artifact_manifest.children):
            with contextlib.suppress(NotFound, CorruptContent, StorageError):
                self.blobs.read_range(blob, 0, 0)
                found[blob.digest] = blob.size
        return found

    def restore_to(self, write: Callable[[Buffer], object], *, workers: int = 0, progress: Progress = silent) -> None:
        """Pass all bytes of the disk, holes as zeros, to `write`, in order.

        Raises:
            UsageError: it is a chain of several files.
            NotFound, CorruptContent: a blob is missing or damaged; what was passed before is right.
        """
        from casstore.restore import restore_stream

        with self.rely(self.needs):
            artifact = self.artifact()
            if len(artifact.map.disks) > 1:
                raise UsageError(f"snapshot {self.digest}: it is a chain of files; restore it into a directory")
            meter = Meter(progress, "restoring", self.size_bytes)
            restore_stream(artifact, artifact.map.disks[0], write, workers=workers, meter=meter)

    def with_cost(self, cost: Created) -> Snapshot:
        """The same snapshot, with what it cost."""
        return replace(self, cost=cost)


def _covered(artifact: Artifact) -> int:
    """Bytes of the first disk that chunks cover."""
    return int(artifact.map.disks[0].runs.length.sum())


class _Home(Protocol):
    """What a handle needs of its store."""

    def open_snapshot(self, selector: str, /) -> Snapshot: ...

    def remove(self, selector: str, /, *, force: bool = False) -> object: ...


@dataclass(frozen=True, slots=True)
class SnapshotHandle:
    """A name in a store, and what the catalog knows of it. Sizes in bytes."""

    name: str
    path: str
    entry: Entry
    home: _Home

    @property
    def digest(self) -> Digest:
        """The artifact digest."""
        return self.entry.digest

    @property
    def id(self) -> Digest:
        """The snapshot id."""
        return self.entry.id

    @property
    def manifest(self) -> Manifest:
        """The snapshot manifest."""
        return self.entry.manifest

    @property
    def parent_digest(self) -> str | None:
        """The parent's id; the name is microsandbox's."""
        return self.manifest.parent

    @property
    def image_ref(self) -> str:
        """The image that the disk was made from."""
        return self.manifest.image.ref

    @property
    def format(self) -> SnapshotFormat:
        """The disk's format."""
        return self.manifest.format

    @property
    def size_bytes(self) -> int:
        """Apparent bytes of the disk."""
        return self.manifest.upper.size_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its blobs, shared ones included."""
        return self.entry.stored

    @property
    def unique_bytes(self) -> int:
        """Bytes of the blobs that no other snapshot uses: what gc would free after its removal, at the least."""
        return self.entry.unique

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.manifest.labels

    @property
    def created_at(self) -> datetime | None:
        """When it was captured, in UTC; None where the manifest does not say so in a form that can be read."""
        return created_time(self.manifest.created_at)

    def open(self) -> Snapshot:
        """Read its documents."""
        return self.home.open_snapshot(self.name)

    def remove(self, *, force: bool = False) -> None:
        """Remove the name; see Store.remove."""
        self.home.remove(self.name, force=force)
