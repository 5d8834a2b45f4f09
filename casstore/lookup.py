"""Where chunks are stored: what a catalog says, as far as the directories of the packs say the same.

A catalog that a power cut tore may say anything, and a pack may have been collected since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from casstore.digest import ChunkId, Digest
from casstore.errors import CasstoreError
from casstore.oci import Descriptor
from casstore.pack import PackDirectory, Place, StoredPack

Places = Mapping[ChunkId, Sequence[Place]]


class Lookup:
    """Finds chunks at the places that `places` tells of them, the first one that is right. `directory_of` reads a
    pack's directory; a pack that is not `usable` is passed over.
    """

    def __init__(
        self,
        places: Callable[[Sequence[ChunkId]], Places],
        directory_of: Callable[[StoredPack], PackDirectory],
        usable: Callable[[Descriptor], bool],
    ) -> None:
        self._places, self._directory_of, self._usable = places, directory_of, usable
        self.bases: dict[ChunkId, Place] = {}
        """Where chunks are, in full frames, that deltas may be made of, as far as that is known."""

    def choose(
        self, ids: Sequence[ChunkId], candidates: Places, *, prefer: Collection[Digest] = (), full: bool = False
    ) -> dict[ChunkId, Place]:
        """Where these chunks are stored, of the `candidates` that `places` told of them; see capture.Storage."""
        found = {base: self.bases[base] for base in ids if base in self.bases} if full else {}
        for chunk_id, places in candidates.items():
            likely = sorted(places, key=lambda place: place.pack.descriptor.digest not in prefer)
            place = next((place for place in likely if self._holds(place, chunk_id, full=full)), None)
            if place is not None:
                found[chunk_id] = place
        return found

    def _holds(self, place: Place, chunk_id: ChunkId, *, full: bool) -> bool:
        """Whether a place is the chunk's, and its base is there, too."""
        if not self._usable(place.pack.descriptor):
            return False
        try:
            directory = self._directory_of(place.pack)
        except CasstoreError:
            return False
        if place.chunk >= len(directory) or directory.chunk_id(place.chunk) != chunk_id:
            return False
        base = directory.base_of(directory.frame_of(place.chunk))
        return base is None or (not full and self._holds_base(base))

    def _holds_base(self, base: ChunkId) -> bool:
        if base not in self.bases:
            for place in self._places([base]).get(base, ()):
                if self._holds(place, base, full=True):
                    self.bases[base] = place
                    break
        return base in self.bases
