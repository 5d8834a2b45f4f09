"""Two snapshots that share packs, read as one: what both have is read of the one that is nearer."""

from __future__ import annotations

import threading
from typing import NamedTuple

from casstore.artifact import Artifact
from casstore.digest import Digest
from casstore.directories import Directories
from casstore.errors import NotFound
from casstore.oci import Descriptor


class _Place(NamedTuple):
    artifact: Artifact
    pack: int
    lock: threading.Lock


class _Packs:
    """The packs of some snapshots, each read of the first that has it. A RangeReader; threads may share it.

    Of a pack one range is read at a time: what several threads need of one that is far away is fetched once.
    """

    def __init__(self, artifacts: tuple[Artifact, ...]) -> None:
        self._places: dict[Digest, _Place] = {}
        for artifact in artifacts:
            for n, pack in enumerate(artifact.manifest.packs):
                self._places.setdefault(pack.digest, _Place(artifact, n, threading.Lock()))

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of a pack, as it is stored.

        Raises:
            NotFound: it is no pack of theirs.
            CasstoreError: as the reader of the snapshot that it is read of.
        """
        place = self._places.get(descriptor.digest)
        if place is None:
            raise NotFound(f"blob {descriptor.digest}: expected one of the packs to compare")
        with place.lock:
            return place.artifact.frames.read(place.pack, offset, length)


def paired(a: Artifact, b: Artifact, *, nearer: Artifact | None = None) -> tuple[Artifact, Artifact]:
    """The same two snapshots, whose packs are read of `nearer`, one of them, where that has them, too."""
    packs = _Packs((b, a) if nearer is b else (a, b))
    first, second = (
        Artifact(
            packs,
            artifact.manifest,
            artifact.config,
            artifact.map,
            Directories(packs, artifact.manifest.packs, artifact.map.packs),
        )
        for artifact in (a, b)
    )
    return first, second
