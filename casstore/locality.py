"""Which packs a new snapshot lists as they are, and of which it copies what it needs.

To reuse one chunk of a big pack makes every pull fetch that whole pack; to list every small pack of a long history
bloats every manifest. So a snapshot lists packs of which it needs most, and few small ones. What it needs of the others
is copied, already compressed, into packs of its own. docs/explanation/architecture.md has the figures behind this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from casstore.digest import ChunkId, Digest
from casstore.directories import covered
from casstore.errors import CorruptContent
from casstore.frame import FrameKind
from casstore.oci import Descriptor
from casstore.pack import PackDirectory, Place, StoredPack
from casstore.packer import EncodedFrame, Packer
from casstore.runs import Part, Row, RunRecorder
from casstore.spec import MIB

SLACK = 1.5
"""Listed bytes per needed byte, at the most."""
SMALL = MIB
MOST_SMALL = 64
"""Packs of under SMALL bytes, at the most."""
_BATCH = 4096


class Use(NamedTuple):
    """A stored pack: its bytes, and those of its frames that the snapshot needs, for its chunks or for bases."""

    size: int
    needed: int


def to_dissolve(packs: Sequence[Use], new: int) -> list[int]:
    """The packs (indices, ascending) to copy from instead of listing them, beside `new` bytes of new frames.

    While more than SLACK times the needed bytes are listed the emptiest pack goes. If then more than MOST_SMALL small
    packs are left, with the new one, all of these go.
    """
    needed = new + sum(pack.needed for pack in packs)
    listed = new + sum(pack.size for pack in packs)
    gone = set()
    for n in sorted(range(len(packs)), key=lambda n: (packs[n].needed / packs[n].size, n)):
        if listed <= SLACK * needed:
            break
        listed -= packs[n].size - packs[n].needed
        gone.add(n)
    small = [n for n in range(len(packs)) if n not in gone and packs[n].size < SMALL]
    if len(small) + bool(new or gone) > MOST_SMALL:
        gone.update(small)
    return sorted(gone)


class Storage(Protocol):
    """What is stored already."""

    def lookup(
        self, ids: Sequence[ChunkId], /, *, prefer: Collection[Digest] = (), full: bool = False
    ) -> Mapping[ChunkId, Place]:
        """Which of these chunks are stored already, and stay stored until the snapshot is committed.

        Of several places one in the packs `prefer` is taken; `full` asks for places in full frames only.
        """
        ...

    def directory(self, pack: StoredPack, /) -> PackDirectory:
        """The directory of a stored pack.

        Raises:
            CorruptContent, NotFound: it is damaged or gone.
        """
        ...

    def read_range(self, descriptor: Descriptor, offset: int, length: int, /) -> bytes:
        """A part of a stored pack."""
        ...


class Known:
    """The stored packs that a snapshot takes chunks or bases from, numbered in the order of their first use."""

    def __init__(self, likely: Iterable[Digest] = ()) -> None:
        self.preferred: set[Digest] = set(likely)
        """The packs to look in first: those that are `likely` to be used, and those that are."""
        self._numbers: dict[StoredPack, int] = {}
        self._last: tuple[StoredPack | None, int] = (None, -1)
        self._needed: dict[int, npt.NDArray[np.bool_]] = {}  # per pack, which of its frames

    @property
    def packs(self) -> list[StoredPack]:
        """By number."""
        return list(self._numbers)

    def number(self, pack: StoredPack) -> int:
        """The pack's number."""
        if self._last[0] is not pack:  # mostly it is: packs take long to hash
            self._last = pack, self._numbers.setdefault(pack, len(self._numbers))
            self.preferred.add(pack.descriptor.digest)
        return self._last[1]

    def need(self, runs: RunRecorder, bases: Mapping[ChunkId, Place], storage: Storage) -> None:
        """Note which frames these runs and these `bases` need, and the bases of the deltas among them.

        Raises:
            CorruptContent: a base is in no stored pack.
        """
        wanted: dict[ChunkId, Place | None] = dict(bases)
        packs = self.packs
        for n, first, count in runs.by_pack():
            directory = storage.directory(packs[n])
            frames = np.zeros(len(directory.kinds), np.bool_)
            frames[directory.chunk_frames()[covered(first, first + count, len(directory))]] = True
            self._needed[n] = frames
            for frame in np.flatnonzero(frames & (directory.kinds == FrameKind.DELTA)).tolist():
                if (base := directory.base_of(frame)) is not None:
                    wanted.setdefault(base, None)
        self._need_bases(wanted, storage)

    def _need_bases(self, wanted: Mapping[ChunkId, Place | None], storage: Storage) -> None:
        ids = list(wanted)
        for at in range(0, len(ids), _BATCH):
            batch = ids[at : at + _BATCH]
            listed = {pack.descriptor.digest for pack in self._numbers}
            found = storage.lookup(batch, prefer=listed, full=True)
            for base in batch:
                place = found.get(base) or wanted[base]
                if place is None:
                    raise CorruptContent(
                        f"chunk {base.hex()}, the base of a delta: expected it in a pack of the store, found none;"
                        " verify the snapshots here"
                    )
                directory = storage.directory(place.pack)
                frames = self._needed.setdefault(self.number(place.pack), np.zeros(len(directory.kinds), np.bool_))
                frames[directory.frame_of(place.chunk)] = True

    def dissolve(self, packer: Packer, storage: Storage) -> dict[int, Moved]:
        """Copy what is needed of the packs that shall not be listed; what became of each of them, by its number."""
        packs = self.packs
        uses = [
            Use(pack.descriptor.size, int(storage.directory(pack).stored[self._needed[n]].sum(dtype=np.int64)))
            for n, pack in enumerate(packs)
        ]
        gone = to_dissolve(uses, packer.stored)
        return {n: _copy(packs[n], np.flatnonzero(self._needed[n]), packer, storage) for n in gone}


class Moved(NamedTuple):
    """Where the needed frames of a dissolved pack are now."""

    directory: PackDirectory
    places: Mapping[int, tuple[int, int]]
    """Frame -> pack of this capture, and its first chunk there."""
    stored: int
    """Bytes of these frames."""

    def find(self, row: Row) -> list[Part]:
        """The parts of a run in this pack; their packs are those of this capture."""
        parts = []
        first, end = row.first, row.first + row.chunks
        while first < end:
            frame = self.directory.frame_of(first)
            start, stop = (int(n) for n in self.directory.first_chunk[frame : frame + 2])
            stop = min(stop, end)
            pack, chunk = self.places[frame]
            length = int(self.directory.lengths[first:stop].sum(dtype=np.int64))
            parts.append(Part(length, pack, chunk + first - start, stop - first))
            first = stop
        return parts

    def copies(self) -> dict[int, list[int]]:
        """Per pack of this capture, its chunks that were copied."""
        found: dict[int, list[int]] = {}
        for frame, (pack, chunk) in self.places.items():
            first, end = (int(n) for n in self.directory.first_chunk[frame : frame + 2])
            found.setdefault(pack, []).extend(range(chunk, chunk + end - first))
        return found


def _copy(pack: StoredPack, frames: npt.NDArray[np.int64], packer: Packer, storage: Storage) -> Moved:
    directory = storage.directory(pack)
    offsets = directory.frame_offsets()
    places = {}
    for n in frames.tolist():
        chunks = [
            (directory.chunk_id(chunk), int(directory.lengths[chunk]))
            for chunk in range(int(directory.first_chunk[n]), int(directory.first_chunk[n + 1]))
        ]
        stored = storage.read_range(pack.descriptor, int(offsets[n]), int(directory.stored[n]))
        frame = EncodedFrame(FrameKind(int(directory.kinds[n])), stored, chunks, directory.base_of(n))
        places[n] = packer.copy(frame)
    return Moved(directory, places, int(directory.stored[frames].sum(dtype=np.int64)))
