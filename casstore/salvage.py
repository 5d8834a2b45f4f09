"""Writes what is left of a damaged snapshot's disk, and says which bytes are missing.

A chunk is missing when its pack has no readable directory, when its frame is damaged before its end, or when that
holds for the base that it is a delta of. All others are written, each after its BLAKE3 was checked, as restore does it.
Missing bytes are left as holes. What the map says to be zero is known without any pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from casstore import durable
from casstore.artifact import Artifact
from casstore.byteranges import Rows, union
from casstore.content import RangeReader
from casstore.decoding import Job, Piece, jobs
from casstore.digest import Digest
from casstore.directories import Located
from casstore.diskmap import DiskMap
from casstore.errors import CasstoreError, CorruptContent, NotFound, StorageError
from casstore.extents import Extents
from casstore.frame import FrameKind, decode_start
from casstore.oci import Descriptor
from casstore.progress import Meter
from casstore.remains import Remains
from casstore.seeds import Seeds
from casstore.writing import DiskWriter

_DAMAGE = (CorruptContent, NotFound, StorageError)
"""What reading a blob may raise."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What became of a disk. Offsets and sizes in bytes."""

    digest: Digest
    """The snapshot's."""
    path: str
    size: int
    missing: tuple[tuple[int, int], ...]
    """(offset, length) of what could not be had, in order, never adjacent; the file has holes there."""
    problems: tuple[str, ...]
    """Why: one text per pack without a readable directory, and per frame that cannot be decoded as a whole."""

    @property
    def missing_bytes(self) -> int:
        """How many bytes are missing."""
        return sum(length for _, length in self.missing)


@contextmanager
def needing_documents(snapshot: Digest) -> Iterator[None]:
    """What the block raises because a document is missing or damaged says what to do about it.

    Raises:
        CorruptContent: a document cannot be read.
    """
    try:
        yield
    except _DAMAGE as error:
        raise CorruptContent(
            f"snapshot {snapshot}: its documents cannot be read, and nothing else says what lies where on the disk:"
            f" {error}; mend them from a copy of the snapshot: casstore check --repair --from HOST/REPO:TAG"
        ) from error


def load_remains(blobs: RangeReader, root: Descriptor) -> Remains:
    """Read what is left of a snapshot's documents.

    Raises:
        CorruptContent: the map, or what leads to it, cannot be read.
    """
    with needing_documents(root.digest):
        return Remains.load(blobs, root)


def salvage_file(
    remains: Remains,
    path: str,
    *,
    force: bool,
    workers: int,
    meter: Meter,
    durability: durable.Durability,
    seeds: Seeds | None = None,
) -> Salvaged:
    """Write what there is of the first disk to the new file `path`, which appears when it is durable. `seeds` have
    learned where the disk's chunks are.

    Raises:
        AlreadyExists: `path` exists, and `force` is not set.
        StorageError: the file cannot be written; nothing is at `path` then, or what was there before.
    """
    disk, artifact = remains.disks[0], remains.artifact
    sound = _Sound(artifact)
    with durable.new_file(path, replace=force, durability=durability) as fd:
        writer = DiskWriter(artifact, disk, fd, decode=sound.decode, seeds=seeds)
        writer.write(artifact.map.disks[0], workers=workers, meter=meter)
    missing = np.concatenate([remains.missing(0), np.array(sound.missing, np.int64).reshape(-1, 2)])
    problems = [str(error) for error in remains.lost.values()] + sorted(sound.problems)
    return Salvaged(artifact.digest, path, disk.size, tuple(_merged(missing, disk)), tuple(problems))


class _Sound:
    """Decodes what can be decoded; for any thread."""

    def __init__(self, artifact: Artifact) -> None:
        self._frames, self._directories = artifact.frames, artifact.directories
        self.missing: list[tuple[int, int]] = []
        self.problems: set[str] = set()

    def decode(
        self, located: Located, offset: npt.NDArray[np.int64], apart: npt.NDArray[np.bool_], /
    ) -> Iterator[Callable[[], Iterable[Piece]]]:
        """See writing.Decode."""
        based = self._based(located)
        self._miss(located, offset, ~based)
        for job in jobs(self._frames, located.take(based), offset[based], apart[based]):
            yield partial(self._pieces, job)

    def _based(self, located: Located) -> npt.NDArray[np.bool_]:
        """Which of the chunks have no base, or one whose place is known."""
        based = np.ones(len(located), np.bool_)
        deltas = located.kind == FrameKind.DELTA
        for pack in np.unique(located.pack[deltas]).tolist():
            rows = np.flatnonzero(deltas & (located.pack == pack))
            bases = self._directories.bases()
            ids = self._directories.table(pack).base_ids(located.frame[rows])
            based[rows] = bases.pack[bases.rows(ids)] >= 0
            for frame in located.frame[rows[~based[rows]]].tolist():
                self.problems.add(f"{self._frames.where(pack, frame)}: its base chunk is in no readable pack")
        return based

    def _pieces(self, job: Job) -> Iterator[Piece]:
        done: list[tuple[int, int]] = []
        try:
            for piece in job.run():
                done.append((piece.offset, piece.offset + len(piece.data)))
                yield piece
        except _DAMAGE:
            yield from self._one_by_one(job, done)

    def _one_by_one(self, job: Job, done: list[tuple[int, int]]) -> Iterator[Piece]:
        """The chunks of a job with some damage in it, but those that are `done` (offset, end)."""
        own, full = job.own, job.full
        new = np.ones(len(job), np.bool_)
        new[1:] = (np.diff(full.pack) != 0) | (np.diff(full.frame) != 0)
        for a, b in pairwise([*np.flatnonzero(new).tolist(), len(job)]):
            plain, whole = self._plain(full, a)
            for n in range(a, b):
                offset = int(job.offset[n])
                if any(start <= offset < end for start, end in done):
                    continue
                start = int(full.start[n])
                chunk = self._chunk(own, n, plain[start : start + int(full.length[n])], tell=whole)
                if chunk is None:
                    self._miss(own, job.offset, np.arange(len(own)) == n)
                else:
                    yield Piece(offset, chunk, bool(job.apart[n]))

    def _plain(self, full: Located, row: int) -> tuple[memoryview, bool]:
        """The plain bytes of a full frame, up to where it is damaged; and whether that is its end."""
        try:
            stored = self._frames.read(int(full.pack[row]), int(full.at[row]), int(full.stored[row]))
        except _DAMAGE as error:
            self.problems.add(str(error))
            return memoryview(b""), False
        try:
            return memoryview(self._frames.decode(full, row, stored)), True
        except CorruptContent as error:
            self.problems.add(str(error))
            return memoryview(decode_start(stored, int(full.plain[row]))), False

    def _chunk(self, own: Located, row: int, data: memoryview, *, tell: bool) -> memoryview | None:
        """A chunk; `data` is what was decoded of it or, if it is a delta, of its base. None where it is damaged;
        `tell` says whether that has to be told.
        """
        try:
            if own.kind[row] == FrameKind.DELTA:
                stored = self._frames.read(int(own.pack[row]), int(own.at[row]), int(own.stored[row]))
                data = memoryview(self._frames.decode(own, row, stored, data))
            self._frames.check(data, own.ids[row].tobytes(), own, row)
        except _DAMAGE as error:
            if tell:
                self.problems.add(_without_digests(error))
            return None
        return data

    def _miss(self, located: Located, offset: npt.NDArray[np.int64], rows: npt.NDArray[np.bool_]) -> None:
        self.missing.extend(list(zip(offset[rows].tolist(), located.length[rows].tolist(), strict=True)))


def _without_digests(error: CasstoreError) -> str:
    """One text for all chunks of a frame that are not what they should be."""
    text = str(error)
    return text.partition(": chunk: expected digest")[0] + ": damaged" if ": chunk: expected digest" in text else text


def _merged(missing: Rows, disk: DiskMap) -> Iterator[tuple[int, int]]:
    """The allocated parts of some ranges, joined where they touch; what is not allocated is known to be zero."""
    extents = Extents(disk)
    for offset, length in union(missing).tolist():
        yield from extents.within(offset, length)
