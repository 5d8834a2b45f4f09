"""What users say to make a snapshot: the disk, where the snapshot goes, and how it is described."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from casstore.errors import UsageError
from casstore.manifest import SCRATCH, ImageRef
from casstore.secrets import OnSecrets

if TYPE_CHECKING:
    from casstore.create import Description
    from casstore.disk import DiskSource

Made_co = TypeVar("Made_co", covariant=True)
"""What a store makes of a config."""


@dataclass(frozen=True, slots=True)
class DiskInput:
    """The disk to capture: the file or block device `path`, or what comes through the descriptor `fd`."""

    path: str | None = None
    fd: int | None = None
    block_device: bool = False

    def open(self) -> DiskSource:
        """Open it; see DiskSource.

        Raises:
            UsageError: both are given, or none is.
            SourceError: it cannot be read.
        """
        from casstore.disk import DiskSource

        if (self.path is None) == (self.fd is None):
            raise UsageError("disk: expected either a path or a descriptor")
        if self.fd is not None:
            return DiskSource.stream(self.fd)
        return DiskSource.open(self.path or "", block_device=self.block_device)


@dataclass(frozen=True, slots=True)
class SandboxInput:
    """The disk of a stopped sandbox of microsandbox. `home` is the directory that microsandbox keeps everything in.

    Its image, and the snapshot that it is the continuation of where that one is in the store, are told by the home.
    """

    home: str
    name: str


@dataclass(frozen=True, slots=True)
class SnapshotDestination:
    """Where a new snapshot goes: under a name in the store, or as a directory of its own at a path."""

    name: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.path is None):
            raise UsageError("snapshot destination: expected either a name or a path")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    """What to capture, and how to describe it."""

    source: DiskInput | SandboxInput
    destination: SnapshotDestination
    labels: tuple[tuple[str, str], ...] = ()
    """The last one of equal keys counts."""
    force: bool = False
    """Take over a name or path that is in use."""
    record_integrity: str | None = None
    """sha256, sparse, sparse-zero or blake3-merkle; None records nothing."""
    image: ImageRef = SCRATCH
    parent: str | None = None
    """Name, digest or id of a snapshot in the store."""
    source_sandbox: str | None = None
    disk_name: str | None = None
    fstype: str | None = None
    """The file system on the disk; None: what its first bytes say."""
    trust_mtime: bool = False
    """Do not read a file whose times, size and inode are those of its last capture, where that is safe; see `sources`.
    Without effect on other disks, and where the snapshot goes to a path.
    """
    scan_secrets: OnSecrets | None = None
    """Look for files that look like credentials first, and what to do about them; None does not look. See `secrets`."""

    def description(self, parent_id: str | None) -> Description:
        """As `create.build` wants it, with the parent's id."""
        from casstore.create import Description

        return Description(
            image=self.image,
            parent=parent_id,
            labels=self.labels,
            source_sandbox=self.source_sandbox,
            integrity=self.record_integrity,
            disk_name=self.disk_name,
            fstype=self.fstype,
        )

    @property
    def disk(self) -> DiskInput:
        """The source, which must be a disk.

        Raises:
            UsageError: it is a sandbox.
        """
        if isinstance(self.source, SandboxInput):
            raise UsageError(f"sandbox {self.source.name!r}: expected a disk here, got a sandbox")
        return self.source


class _Creator(Protocol[Made_co]):
    def create(self, config: SnapshotConfig, /) -> Made_co: ...


class SnapshotBuilder:
    """Builds a SnapshotConfig step by step. Every step returns the builder."""

    def __init__(self, source: DiskInput | SandboxInput | str | os.PathLike[str]) -> None:
        self._source = source if isinstance(source, DiskInput | SandboxInput) else DiskInput(path=os.fspath(source))
        self._destination: SnapshotDestination | None = None
        self._labels: list[tuple[str, str]] = []
        self._force = False
        self._integrity: str | None = None
        self._image = SCRATCH
        self._parent: str | None = None
        self._sandbox: str | None = None
        self._trust_mtime = False
        self._scan_secrets: OnSecrets | None = None

    def destination(self, destination: SnapshotDestination) -> Self:
        """Where the snapshot goes."""
        self._destination = destination
        return self

    def name(self, name: str) -> Self:
        """Put the snapshot into the store, under `name`."""
        return self.destination(SnapshotDestination(name=name))

    def path(self, path: str | os.PathLike[str]) -> Self:
        """Make the snapshot a directory of its own at `path`: an OCI layout."""
        return self.destination(SnapshotDestination(path=os.fspath(path)))

    def label(self, key: str, value: str) -> Self:
        """Add a label."""
        self._labels.append((key, value))
        return self

    def labels(self, labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> Self:
        """Add labels."""
        self._labels += labels.items() if isinstance(labels, Mapping) else labels
        return self

    def force(self) -> Self:
        """Take over a name or path that is in use."""
        self._force = True
        return self

    def record_integrity(self, algorithm: str = "sha256") -> Self:
        """Record a digest of the disk's content in the snapshot manifest."""
        self._integrity = algorithm
        return self

    def image(self, ref: str, manifest_digest: str) -> Self:
        """The OCI image that the disk was made from."""
        self._image = ImageRef(ref=ref, manifest_digest=manifest_digest)
        return self

    def parent(self, selector: str) -> Self:
        """The snapshot that this one comes from."""
        self._parent = selector
        return self

    def source_sandbox(self, name: str) -> Self:
        """The sandbox whose disk it is."""
        self._sandbox = name
        return self

    def trust_mtime(self) -> Self:
        """Do not read a file that has not changed since its last capture, as far as its times tell."""
        self._trust_mtime = True
        return self

    def scan_secrets(self, action: OnSecrets | str = OnSecrets.WARN) -> Self:
        """Look for files that look like credentials first: `warn` tells them in the snapshot's `cost`, with `refuse`
        there is no snapshot then.

        Raises:
            UsageError: `action` is neither.
        """
        if action not in tuple(OnSecrets):
            raise UsageError(f"scan_secrets: expected warn or refuse, got {action!r}")
        self._scan_secrets = OnSecrets(action)
        return self

    def build(self) -> SnapshotConfig:
        """The finished configuration.

        Raises:
            UsageError: no destination was given.
        """
        if self._destination is None:
            raise UsageError("snapshot builder: expected a destination; call .name() or .path()")
        return SnapshotConfig(
            source=self._source,
            destination=self._destination,
            labels=tuple(self._labels),
            force=self._force,
            record_integrity=self._integrity,
            image=self._image,
            parent=self._parent,
            source_sandbox=self._sandbox,
            trust_mtime=self._trust_mtime,
            scan_secrets=self._scan_secrets,
        )

    def create(self, store: _Creator[Made_co]) -> Made_co:
        """Create the snapshot in `store`."""
        return store.create(self.build())
