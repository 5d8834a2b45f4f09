"""Layers that an archive of microsandbox 0.7 leaves out, because whoever gets it has them already."""

from __future__ import annotations

from collections.abc import Iterator

from casstore.archive.pieces import stored_bytes
from casstore.artifact import Artifact
from casstore.catalog import Catalog
from casstore.contents import content_digest
from casstore.dialects.v07 import Layer, Manifest07
from casstore.diskmap import DiskMap
from casstore.errors import SourceError
from casstore.microsandbox.intake import Importer
from casstore.progress import Meter, silent
from casstore.sequential import SequentialDisk
from casstore.transaction import Transaction


class Lender:
    """Takes layers of stored snapshots for disks of an archive. They are read once more, and cost no new chunks."""

    def __init__(self, change: Transaction, catalog: Catalog, importer: Importer, *, workers: int) -> None:
        self._change, self._catalog, self._importer, self._workers = change, catalog, importer, workers

    def lend(self, key: str, layer: Layer, of: Manifest07) -> bool:
        """Capture, under `key`, a stored disk that is just this layer; False where there is none.

        Raises:
            SourceError: stored snapshots have several that differ, and nothing tells which of them is meant.
            CorruptContent: it is damaged.
            As Importer.disk.
        """
        found = self._find(layer)
        if found is None:
            return False
        artifact, disk = found
        pieces = stored_bytes(artifact, disk, disk.extents, workers=self._workers)
        extents = [(offset, length) for offset, length in disk.extents.tolist()]
        source = SequentialDisk(_Pieces(pieces), f"layer {layer.layer_id} of the store", disk.size, extents)
        self._importer.disk(key, source, of=of, file=layer.filename, base=artifact)
        return True

    def _find(self, layer: Layer) -> tuple[Artifact, DiskMap] | None:
        found: dict[str, tuple[Artifact, DiskMap]] = {}  # by what is in it, where only that tells
        for entry in self._catalog.entries():
            if not isinstance(entry.manifest, Manifest07) or layer not in entry.manifest.layers:
                continue
            artifact = self._change.reuse(entry.digest)
            if artifact is None:
                continue
            disk = artifact.map.disks[entry.manifest.layers.index(layer)]
            if layer.integrity is not None:
                return artifact, disk
            meter = Meter(silent, "hashing", None)
            content = content_digest(artifact, disk, "blake3-merkle", workers=self._workers, meter=meter)
            found.setdefault(content, (artifact, disk))
        if len(found) > 1:
            names = ", ".join(str(artifact.digest) for artifact, _ in found.values())
            told = f"layer {layer.layer_id}, which the archive leaves out: expected one content of it here"
            raise SourceError(f"{told}, got {len(found)} that differ, in {names}; remove those that are not meant")
        return next(iter(found.values()), None)


class _Pieces:
    """Pieces as a stream."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def read(self, size: int) -> memoryview:
        """The next bytes: at most `size`, none only at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return self._rest
            self._rest = piece
        part, self._rest = self._rest[:size], self._rest[size:]
        return part
