"""Packs that are damaged or missing, made again to the byte from a disk that has their plain bytes.

    with DiskSource.open(path) as disk, Rebuilder(blobs, roots, disk, scratch) as rebuilder:
        operation.receive(pack, rebuilder)

A pack whose directory is sound keeps its sound frames; the others are compressed again from the disk's chunks. A pack
without one is made again by capturing the disk again, as far as that can be repeated. Only what has the pack's
sha256 in the end is given out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from itertools import product
from typing import IO, NamedTuple, Self

from casstore import frame
from casstore.artifact import Artifact, load_documents
from casstore.blobs import BlobDirectory
from casstore.capture import CaptureOptions
from casstore.content import Reader
from casstore.digest import ChunkId, Digest
from casstore.disk import DiskSource
from casstore.errors import CasstoreError, CorruptContent, NotFound, SourceError, StorageError
from casstore.manifest import Manifest
from casstore.oci import ArtifactManifest, Descriptor
from casstore.pack import MAGIC, PackDirectory
from casstore.progress import Meter, Progress, silent
from casstore.rebuilding.mending import MendedFrames, Torn, likely_level
from casstore.rebuilding.ondisk import OnDisk
from casstore.rebuilding.replay import Replay, Stored, Unnamed, made_before
from casstore.remains import Remains
from casstore.streams import VerifiedReader

_ASKED = 2
"""Snapshots that are asked for one pack, at the most; each may keep some MiB of directories in memory."""
_ALIKE = 0.5
"""The part of a snapshot's sampled chunks that a disk must have for another capture of it to be tried."""
_EARLIER = 200
"""Snapshots that a disk may have been compared with, or may share chunks with: the latest ones before it."""


class _Listed(NamedTuple):
    """A snapshot of the store."""

    root: Descriptor
    manifest: ArtifactManifest
    config: Manifest


class Rebuilder:
    """A Fetcher of packs, from a disk that has the plain bytes of a snapshot. For one thread at a time.

    `blobs` is the store's directory of blobs, read as they are now: what is mended between two calls helps the second
    one. `roots` are the artifact manifests of the store's snapshots: those that list a pack tell what is in it and
    where that lies on the disk, the others what the disk may have been compared with when it was captured. Roots that
    cannot be read are passed over. `disk` stays the caller's to close. `scratch` is a directory for files that do not
    outlive the Rebuilder, on a file system with room for the packs that are made: the path of an Operation.
    """

    def __init__(
        self,
        blobs: BlobDirectory,
        roots: Iterable[Descriptor],
        disk: DiskSource,
        scratch: str,
        *,
        workers: int = 0,
        progress: Progress = silent,
    ) -> None:
        self._blobs, self._roots, self._disk, self._scratch = Torn(blobs), tuple(roots), disk, scratch
        self._workers, self._meter = workers, Meter(progress, "reading the disk", None)
        self._chunks = OnDisk(disk, self._meter, workers=workers)
        self._snapshots: Sequence[_Listed] | None = None
        self._likeness: dict[Digest, float] = {}
        self._made: dict[Digest, IO[bytes]] = {}
        self._tried: set[tuple[object, ...]] = set()

    def fetch(self, descriptor: Descriptor) -> Reader:
        """The pack's bytes, verified while they are read; see Fetcher. Reading them needs the Rebuilder no more.

        Raises:
            NotFound: it is no pack of these snapshots, the disk is not the one that it was made of, or it cannot be
                made again to the byte; the text says which.
            StorageError: the scratch directory is full.
        """
        try:
            file = self._made.pop(descriptor.digest, None) or self._rebuild(descriptor)
        except SourceError as error:
            raise NotFound(f"pack {descriptor.digest}: {error}") from error
        return VerifiedReader(file, descriptor, subject=f"pack {descriptor.digest}, made again")

    @property
    def knows_disk(self) -> bool:
        """Whether the disk is like that of a snapshot that needs what was fetched, or looked like none to compare."""
        return not self._likeness or max(self._likeness.values()) >= _ALIKE

    def close(self) -> None:
        """Drop what was made and not fetched."""
        while self._made:
            self._made.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rebuild(self, pack: Descriptor) -> IO[bytes]:
        having = [each for each in self._listed() if pack in each.manifest.packs]
        asked = self._most_alike(having)
        if not asked:
            raise NotFound(f"blob {pack.digest}: expected a pack of a snapshot that can be read, got none")
        reason = f"pack {pack.digest}: its directory is lost, without which single frames cannot be made"
        n = asked[0].artifact.manifest.packs.index(pack)
        if n not in asked[0].lost:
            try:
                return self._mend(pack, asked[0].artifact.directories[n], [each.artifact for each in asked])
            except NotFound as error:
                reason = str(error)
        # An older snapshot that had it too would have been in the way of making it for a younger one.
        oldest = next(each for each in having if each.root.digest in self._likeness)
        if oldest.config.upper.size_bytes == self._disk.size:
            self._capture_again(Remains.load(self._blobs, oldest.root), pack)
            if (file := self._made.pop(pack.digest, None)) is not None:
                return file
        if self._likeness[oldest.root.digest] < _ALIKE:
            problem = f"{self._disk.subject} is not that of the snapshot that it was made for ({oldest.root.digest})"
        else:
            problem = f"capturing {self._disk.subject} again gives other packs"
        raise NotFound(f"{reason}; {problem}")

    def _listed(self) -> Sequence[_Listed]:
        """All snapshots that can be read, the oldest first."""
        if self._snapshots is None:
            found = []
            for root in self._roots:
                with contextlib.suppress(CasstoreError):
                    found.append(_Listed(root, *load_documents(self._blobs, root)))
            self._snapshots = sorted(found, key=lambda each: made_before(each.config))
        return self._snapshots

    def _most_alike(self, snapshots: Sequence[_Listed]) -> list[Remains]:
        """Those whose disk is most like this one, the likest first."""
        found: list[Remains] = []
        for each in snapshots:
            if each.root.digest not in self._likeness:
                with contextlib.suppress(NotFound, CorruptContent, StorageError):
                    remains = Remains.load(self._blobs, each.root)
                    likeness = self._chunks.likeness(remains.artifact)
                    self._likeness[each.root.digest] = _ALIKE if likeness is None else likeness
        known = [each for each in snapshots if each.root.digest in self._likeness]
        for each in sorted(known, key=lambda each: -self._likeness[each.root.digest])[:_ASKED]:
            with contextlib.suppress(CasstoreError):
                found.append(Remains.load(self._blobs, each.root))
        return found

    def _mend(self, pack: Descriptor, directory: PackDirectory, artifacts: Sequence[Artifact]) -> IO[bytes]:
        """Compress the damaged frames again; if it is none of those that is wrong, all of them."""
        named = (directory.ids, directory.base_ids)
        wanted = {ChunkId(ids[at : at + 32]) for ids in named for at in range(0, len(ids), 32)}
        self._chunks.look_for(wanted, [(artifact, artifact.map.disks[0]) for artifact in artifacts])
        frames = MendedFrames(pack, directory, self._blobs, artifacts, self._chunks)
        length = int.from_bytes(directory.stamp[32:], "little")
        for again in (False, True):
            with Unnamed(self._scratch) as made:
                made.write(MAGIC)
                for n in range(len(directory.kinds)):
                    made.write(frames.stored(n, again=again))
                made.write(self._blobs.read_range(pack, pack.size - length, length))
                if made.finish(pack.media_type).digest == pack.digest:
                    return made.keep()
        raise NotFound(
            f"pack {pack.digest}: its frames cannot be compressed to what they were: another version of zstd made it,"
            " or the base of a damaged delta is neither in the store nor on the disk"
        )

    def _capture_again(self, remains: Remains, pack: Descriptor) -> None:
        """Capture the disk as it may have been for this snapshot, until `pack` has come out, and what else is lost."""
        artifact = remains.artifact
        packs = artifact.manifest.packs
        wanted = ({packs[n].digest for n in remains.lost} | {pack.digest}) - self._made.keys()
        sound = [n for n in range(len(packs)) if n not in remains.lost]
        level = frame.DEFAULT_LEVEL
        if sound:
            level = likely_level(packs[sound[-1]], artifact.directories[sound[-1]], self._blobs)
        earlier = [each for each in self._listed() if made_before(each.config) < made_before(artifact.config)]
        if self._likeness[artifact.digest] < _ALIKE:
            earlier = []
        known = {each.root.digest: each for each in earlier[-_EARLIER:]}

        def load(digest: Digest) -> Artifact:
            return Remains.load(self._blobs, known[digest].root).artifact

        configs = [(digest, each.config) for digest, each in known.items()]
        with Replay(self._blobs, self._disk, artifact, configs, load, self._scratch) as replay:
            stored = (Stored.EARLIER, Stored.OWN) if self._likeness[artifact.digest] >= _ALIKE else ()
            for what, base in [*product(stored, replay.bases()), (Stored.NOTHING, None)]:
                if earlier or what is not Stored.EARLIER:
                    wanted -= set(self._try(replay, what, base, wanted, CaptureOptions(level, self._workers)))

    def _try(
        self, replay: Replay, stored: Stored, base: Digest | None, wanted: Collection[Digest], options: CaptureOptions
    ) -> Collection[Digest]:
        """The packs that came out; none where that was tried before."""
        attempt = (replay.artifact.digest, stored, base, options.level, frozenset(wanted))
        if not wanted or attempt in self._tried:
            return frozenset()
        self._tried.add(attempt)
        made = replay.run(wanted, stored=stored, base=base, options=options, meter=self._meter)
        self._made |= made
        return made.keys()
