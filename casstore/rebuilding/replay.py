"""Captures a disk once more as it was captured before, for the packs that came out: they are a function of the disk,
of what was stored then, of the base, of the level, and of the versions of casstore and zstd.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import IO, Self

from casstore.artifact import Artifact
from casstore.base import Base
from casstore.capture import CaptureOptions, capture
from casstore.catalog import Catalog
from casstore.content import RangeReader
from casstore.digest import ChunkId, Digest
from casstore.directories import load_directory
from casstore.disk import DiskSource
from casstore.errors import CorruptContent, NotFound, storage_errors
from casstore.frame import Buffer
from casstore.lineage import choose_base
from casstore.lookup import Lookup
from casstore.manifest import Manifest, created_time
from casstore.names import SnapshotName
from casstore.oci import Descriptor
from casstore.pack import PackDirectory, Place, StoredPack
from casstore.progress import Meter
from casstore.scan import sample


class Unnamed:
    """A file without a name, in directory `scratch`, whose bytes are hashed as they come; see capture.BlobWriter. It
    ends with its `with` unless it is kept.
    """

    def __init__(self, scratch: str) -> None:
        with storage_errors("making a file in scratch space"):
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  (it may be kept)
        self._hash = hashlib.sha256()
        self._size = 0
        self._kept = False

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        with storage_errors("writing to scratch space"):
            self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def finish(self, media_type: str) -> Descriptor:
        """What was written."""
        return Descriptor(media_type=media_type, digest=Digest(self._hash.hexdigest()), size=self._size)

    def keep(self) -> IO[bytes]:
        """The file, at its start; the caller closes it."""
        self._kept = True
        with storage_errors("writing to scratch space"):
            self._file.seek(0)
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._file.close()


class _Pack(Unnamed):
    """A pack of a replay; it goes into `made` if it is one of those."""

    def __init__(self, scratch: str, made: dict[Digest, IO[bytes] | None]) -> None:
        super().__init__(scratch)
        self._made = made

    def finish(self, media_type: str) -> Descriptor:
        descriptor = super().finish(media_type)
        with self:
            if descriptor.digest in self._made and self._made[descriptor.digest] is None:
                self._made[descriptor.digest] = self.keep()
        return descriptor


class Stored(Enum):
    """What was stored already when a disk was captured."""

    NOTHING = "nothing"
    EARLIER = "what earlier snapshots have"
    OWN = "that, and what is left of the snapshot's own packs"


class Replay:
    """A disk, and what may have been stored when it was captured; a context manager. For one thread."""

    def __init__(
        self,
        blobs: RangeReader,
        disk: DiskSource,
        artifact: Artifact,
        earlier: Sequence[tuple[Digest, Manifest]],
        load: Callable[[Digest], Artifact],
        scratch: str,
    ) -> None:
        """`artifact` is the snapshot that the disk became, as far as it can be read; `earlier` ones were there, the
        oldest first; `load` reads as much of one of them as can be read.
        """
        self.artifact: Artifact = artifact
        self._blobs, self._disk = blobs, disk
        self.scratch: str = scratch
        self._earlier, self._load = earlier, load
        self._stack = contextlib.ExitStack()
        self._before = self._catalog("before", {digest: load for digest, _ in earlier})
        self._own = self._catalog("own", {artifact.digest: lambda _: artifact})
        self._catalogs: Sequence[Catalog] = ()
        self._made: dict[Digest, IO[bytes] | None] = {}
        self._directory_of = lru_cache(64)(lambda pack: load_directory(self._blobs, pack.descriptor, pack.directory))
        self._lookup = Lookup(self._places, self._directory_of, usable=lambda _: True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _catalog(self, name: str, artifacts: Mapping[Digest, Callable[[Digest], Artifact]]) -> Catalog:
        path = os.path.join(self.scratch, f"{name}.sqlite")
        self._stack.callback(_unlink, path)
        catalog = Catalog(path)
        self._stack.callback(catalog.close)
        names = {SnapshotName(f"s{n}"): digest for n, digest in enumerate(artifacts)}
        catalog.sync(lambda: names, lambda digest: artifacts[digest](digest))
        return catalog

    def bases(self) -> list[Digest | None]:
        """What the disk may have been compared with, the likeliest first."""
        config = self.artifact.config
        newest = self._earlier[::-1]
        parents: list[Digest | None] = [
            digest for digest, each in newest if config.parent in {str(each.id), each.known_as}
        ]
        if parents:
            return parents
        chosen = choose_base(
            self._before, parent=None, same_source=None, image=config.image, sample=lambda: sample(self._disk)
        )
        return list(dict.fromkeys([chosen, *(digest for digest, _ in newest[:1]), None]))

    def run(
        self,
        wanted: Collection[Digest],
        *,
        stored: Stored,
        base: Digest | None,
        options: CaptureOptions,
        meter: Meter,
    ) -> dict[Digest, IO[bytes]]:
        """Capture; those of the packs `wanted` that came out. The caller closes the files."""
        catalogs = {Stored.NOTHING: (), Stored.EARLIER: (self._before,), Stored.OWN: (self._before, self._own)}
        self._catalogs = catalogs[stored]
        self._made = dict.fromkeys(wanted)
        # What cannot be read now, and could be then, makes other packs, or none.
        with contextlib.suppress(CorruptContent, NotFound):
            artifact = None if base is None else self._load(base)
            self._lookup.bases = {} if artifact is None else artifact.bases()
            compared = None if artifact is None else Base(artifact, artifact.map.disks[0])
            capture(self._disk, "replay", storage=self, base=compared, options=options, meter=meter)
        return {digest: file for digest, file in self._made.items() if file is not None}

    # capture.Storage

    def new_blob(self) -> Unnamed:
        """Start a pack."""
        return _Pack(self.scratch, self._made)

    def lookup(
        self, ids: Sequence[ChunkId], *, prefer: Collection[Digest] = (), full: bool = False
    ) -> Mapping[ChunkId, Place]:
        """Where these chunks were stored."""
        return self._lookup.choose(ids, self._places(ids), prefer=prefer, full=full)

    def _places(self, ids: Sequence[ChunkId]) -> dict[ChunkId, list[Place]]:
        found: dict[ChunkId, list[Place]] = {}
        for catalog in self._catalogs:
            for chunk_id, places in catalog.lookup(ids).items():
                mine = found.setdefault(chunk_id, [])
                mine += [place for place in places if place not in mine]
        for mine in found.values():
            mine.sort(key=lambda place: (place.pack.descriptor.digest, place.chunk))
        return found

    def directory(self, pack: StoredPack) -> PackDirectory:
        """The directory of a stored pack."""
        return self._directory_of(pack)

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of a stored pack."""
        return self._blobs.read_range(descriptor, offset, length)


def made_before(config: Manifest) -> tuple[float, str]:
    """For ordering snapshots by the time at which they were made."""
    time = created_time(config.created_at)
    return 0 if time is None else time.timestamp(), config.created_at


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
