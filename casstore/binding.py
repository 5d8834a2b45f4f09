"""Ties captured disks and a document together: map, config and artifact manifest, staged with what they rely on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, TypeVar

import numpy as np

from casstore import spec
from casstore.artifact import Artifact, verified_chunks
from casstore.capture import Capture, CaptureOptions, CaptureStats, Storage
from casstore.digest import Digest
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap
from casstore.errors import CorruptContent, DamagedPacks, DocumentError, SourceError
from casstore.manifest import SCRATCH, Manifest, is_rfc3339
from casstore.oci import ArtifactManifest, Descriptor
from casstore.secrets import Scan
from casstore.soundness import verify_claims

T = TypeVar("T")


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
    secrets: Scan | None = None
    """What looks like credentials on the disk, if that was looked for."""


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


@dataclass(frozen=True, slots=True)
class Bound:
    """A snapshot whose map is staged, and whose other documents can still be changed."""

    captured: Capture
    map_blob: Descriptor
    sidecars: tuple[Descriptor, ...] = field(default=())

    @classmethod
    def stage(cls, captured: Capture, destination: Destination, sidecars: Mapping[str, bytes] | None = None) -> Self:
        """Stage the map, and the files that are kept with the snapshot (title -> bytes).

        Raises:
            SourceError: the map is larger than readers accept.
            StorageError: it cannot be written.
        """
        with fitting():
            map_blob = destination.add(captured.map.to_bytes(), spec.MEDIA_MAP)
        files = []
        for title, data in sorted((sidecars or {}).items()):
            file = destination.add(data, spec.MEDIA_FILE)
            files.append(replace(file, annotations={spec.ANNOTATION_TITLE: title}))
        return cls(captured, map_blob, tuple(files))

    @classmethod
    def unseen(cls, captured: Capture) -> Self:
        """Of a snapshot that will never be stored: nothing is staged."""
        with fitting():
            return cls(captured, Descriptor.of(captured.map.to_bytes(), spec.MEDIA_MAP))

    def artifact_manifest(self, manifest: Manifest) -> ArtifactManifest:
        """The artifact manifest that ties them to a document.

        Raises:
            SourceError: it is larger than registries accept.
        """
        config = Descriptor.of(manifest.to_bytes(), manifest.media_type)
        annotations = {}
        if is_rfc3339(manifest.created_at):
            annotations[spec.ANNOTATION_CREATED] = manifest.created_at
        if manifest.image != SCRATCH:
            annotations[spec.ANNOTATION_BASE_NAME] = manifest.image.ref
            annotations[spec.ANNOTATION_BASE_DIGEST] = manifest.image.manifest_digest
        layers = [self.map_blob, *self.captured.packs, *self.sidecars]
        with fitting():
            return ArtifactManifest.build(config=config, layers=layers, annotations=annotations)

    def artifact(self, manifest: Manifest, destination: Destination) -> Artifact:
        """The whole, to read the disks' content with."""
        made = self.artifact_manifest(manifest)
        return Artifact.assemble(destination, made, manifest, self.captured.map)

    def verify(self, artifact: Artifact, destination: Destination, options: CaptureOptions) -> None:
        """Check what this capture relies on and did not make: frames that it copied, and deltas of stored packs for
        which it brings the base.

        Raises:
            CorruptContent: one of them is wrong. Nobody could tell that of such a delta before; whoever made its pack
                may have lied.
        """
        places = {pack.digest: n for n, pack in enumerate(artifact.manifest.packs)}

        def known(pack: Descriptor) -> Collection[int]:
            made = self.captured.made.get(pack.digest)
            if made is not None:
                return made
            directory = artifact.directories[places[pack.digest]]
            # What is stored and needs no base was verified when it came.
            return destination.verified(pack) if directory.base_ids else range(len(directory))

        try:
            with naming_origins(self.captured):
                verify_claims(artifact, known=known, workers=options.workers)
        except DamagedPacks:
            raise
        except CorruptContent as error:
            packs = [str(pack.digest) for pack in artifact.manifest.packs if self._is_doubtful(artifact, pack, known)]
            if not packs:
                raise
            problem = f"{error}; until now nobody could decode that: remove the snapshots here that list the pack"
            raise DamagedPacks(problem, packs) from error

    def _is_doubtful(
        self, artifact: Artifact, pack: Descriptor, known: Callable[[Descriptor], Collection[int]]
    ) -> bool:
        """Whether some of a stored pack can be decoded for the first time."""
        if pack.digest in self.captured.made:
            return False
        directory = artifact.directories[artifact.manifest.packs.index(pack)]
        return not set(np.flatnonzero(verified_chunks(artifact, directory)).tolist()) <= set(known(pack))

    def finish(self, manifest: Manifest, destination: Destination) -> Created:
        """Stage config and artifact manifest."""
        made = self.artifact_manifest(manifest)
        config = destination.add(manifest.to_bytes(), manifest.media_type)
        root = destination.add(made.raw, spec.MEDIA_MANIFEST)
        small = sum(blob.size for blob in (self.map_blob, *self.sidecars, config, root))
        return Created(made.descriptor, manifest, self.captured.stats, self.captured.stats.new_stored + small)


def combine(disks: Sequence[tuple[str, Capture]]) -> Capture:
    """One map with several captured disks, each under its name."""
    if len(disks) == 1:
        name, only = disks[0]
        return replace(only, map=replace(only.map, disks=(replace(only.map.disks[0], name=name),)))
    found: dict[Digest, tuple[Descriptor, PackEntry]] = {}
    spare: dict[Digest, tuple[Descriptor, PackEntry]] = {}
    for _, each in disks:
        named = set(np.unique(each.map.disks[0].runs.pack).tolist())
        for n, pack in enumerate(zip(each.packs, each.map.packs, strict=True)):
            (found if n in named else spare).setdefault(pack[0].digest, pack)
    packs = {**found, **{digest: spare[digest] for digest in sorted(spare.keys() - found.keys(), key=str)}}
    numbers = {digest: n for n, digest in enumerate(packs)}
    maps = []
    for name, each in disks:
        disk = each.map.disks[0]
        renumbered = np.array([numbers[pack.digest] for pack in each.packs], np.uint32)
        column = renumbered[disk.runs.pack] if len(disk.runs) else disk.runs.pack
        runs = Runs(disk.runs.gap, disk.runs.length, column, disk.runs.first, disk.runs.count)
        maps.append(DiskMap(name, disk.size, disk.extents, runs))
    captures = [each for _, each in disks]
    return Capture(
        map=SnapshotMap(tuple(entry for _, entry in packs.values()), tuple(maps)),
        packs=tuple(descriptor for descriptor, _ in packs.values()),
        stats=_sum([each.stats for each in captures]),
        made={digest: chunks for each in captures for digest, chunks in each.made.items()},
        dissolved=tuple(dict.fromkeys(digest for each in captures for digest in each.dissolved)),
    )


def _sum(stats: Sequence[CaptureStats]) -> CaptureStats:
    return CaptureStats(
        allocated=sum(each.allocated for each in stats),
        chunks=sum(each.chunks for each in stats),
        new_chunks=sum(each.new_chunks for each in stats),
        new_plain=sum(each.new_plain for each in stats),
        new_stored=sum(each.new_stored for each in stats),
        deltas=sum(each.deltas for each in stats),
        copied=sum(each.copied for each in stats),
    )


def without_damaged(
    attempt: Callable[[Artifact | None], T], destination: Destination, *, base: Artifact | None, again: bool
) -> tuple[T, tuple[str, ...]]:
    """`attempt(base)`; when stored packs turn out to be damaged once more without them, and without the base, if it can
    be done `again`. Also the packs that were damaged.
    """
    damaged: list[str] = []
    while True:
        try:
            return attempt(base), tuple(dict.fromkeys(damaged))
        except DamagedPacks as error:
            if not again or set(error.packs) <= set(damaged):
                raise
            damaged += error.packs
            destination.distrust(error.packs)
            base = None


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Say what to do about a document that would be larger than registries and readers accept."""
    try:
        yield
    except DocumentError as error:
        raise SourceError(
            f"the snapshot would not fit: {error}; it is spread over too many packs of earlier snapshots: capture the"
            " disk into a store of its own (--store DIR), which writes few large ones"
        ) from error


@contextlib.contextmanager
def naming_origins(captured: Capture) -> Iterator[None]:
    """What is found wrong with a copied frame is said of its new pack, which nobody will ever see."""
    try:
        yield
    except CorruptContent as error:
        if not captured.dissolved:
            raise
        origins = ", ".join(map(str, captured.dissolved))
        problem = f"{error}; frames were copied from {origins}: verify the snapshots here"
        raise DamagedPacks(problem, map(str, captured.dissolved)) from error
