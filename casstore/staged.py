"""What an open change has made so far, to be found again by what it makes next: a catalog that ends with it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from casstore.artifact import Artifact
from casstore.catalog import Catalog
from casstore.digest import ChunkId, Digest
from casstore.errors import NotFound
from casstore.names import SnapshotName
from casstore.pack import Place

_FILE = "made.sqlite"


class StagedSnapshots:
    """Snapshots whose packs are staged. The catalog's file is made in `scratch` when it is asked for the first time:
    most changes make one snapshot.
    """

    def __init__(self, scratch: str) -> None:
        self._path = os.path.join(scratch, _FILE)
        self._catalog: Catalog | None = None
        self._waiting: list[Artifact] = []
        self._refs: dict[SnapshotName, Digest] = {}

    def add(self, artifact: Artifact) -> None:
        """One more, verified."""
        self._waiting.append(artifact)

    def _caught_up(self) -> Catalog | None:
        if self._waiting:
            if self._catalog is None:
                self._catalog = Catalog(self._path)
            waiting = {artifact.digest: artifact for artifact in self._waiting}
            self._refs |= {SnapshotName(f"made-{digest.hex}"): digest for digest in waiting}
            self._catalog.sync(lambda: self._refs, lambda digest: _of(waiting, digest))
            self._waiting = []
        return self._catalog

    def lookup(self, ids: Sequence[ChunkId]) -> Mapping[ChunkId, Sequence[Place]]:
        """Where these chunks are staged; see Catalog.lookup."""
        catalog = self._caught_up()
        return {} if catalog is None else catalog.lookup(ids)

    def chunks_of(self, pack: Digest) -> Collection[int]:
        """The chunks of a staged pack."""
        catalog = self._caught_up()
        return () if catalog is None else catalog.chunks_of(pack)

    def close(self) -> None:
        """Forget all."""
        if self._catalog is not None:
            self._catalog.close()


def _of(waiting: Mapping[Digest, Artifact], digest: Digest) -> Artifact:
    """Raises NotFound for one that the catalog lost, being damaged: it is not shared then."""
    if digest not in waiting:
        raise NotFound(f"snapshot {digest}: it is not read again")
    return waiting[digest]
