"""A disk's content from front to back: as one stream of bytes, or extent by extent into hashers, and whether it is what
was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from casstore import spec
from casstore.artifact import Artifact
from casstore.decoding import Part, in_order
from casstore.digest import Digest
from casstore.disk import Extent
from casstore.diskmap import DiskMap
from casstore.errors import DigestMismatch
from casstore.extents import Extents
from casstore.integrity import SPARSE_SHA256, ContentHasher, candidates, hasher, recorded_name
from casstore.manifest import UpperIntegrity
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter, Progress, silent
from casstore.spec import BLOCK, MIB

UNVERIFIABLE: Final = "unverifiable"
_ALLOCATION = "it depends on where the disk had holes, and these got lost before it came here"
ZEROS = memoryview(bytes(MIB))
"""1 MiB of zeros."""


@dataclass(frozen=True, slots=True)
class UpperStatus:
    """What the recorded integrity says. `kind` is "not_recorded", "verified" or "unverifiable"; `meaning` is the
    algorithm that held, in the command line's spelling: msb-sparse-sha256-v1 has two meanings. One of them is a digest
    of the allocation as much as of the content: where none holds the disk was copied without its holes, before it came
    here, and nothing is known against its bytes.
    """

    kind: str
    algorithm: str | None = None
    digest: str | None = None
    meaning: str | None = None
    reason: str | None = None
    """Why it is unverifiable."""


def plain_bytes(artifact: Artifact, disk: DiskMap, *, workers: int) -> Iterator[memoryview]:
    """All bytes of `disk` in order, in pieces of at most some MiB."""
    at = 0
    for offset, data in placed_bytes(artifact, disk, workers=workers):
        yield from zeros(offset - at)
        yield data
        at = offset + len(data)
    yield from zeros(disk.size - at)


def placed_bytes(artifact: Artifact, disk: DiskMap, *, workers: int) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) of the chunks of `disk` in its order; between them, and outside of its extents, it is zero."""
    extents = Extents(disk)
    workers = workers or default_workers()
    with ThreadPoolExecutor(workers, "restore") as pool:
        for offset, data in _in_order(artifact, disk, pool, ahead=2 * workers):
            extents.parts(offset, data)
            yield offset, data


def _in_order(
    artifact: Artifact, disk: DiskMap, pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[tuple[int, memoryview]]:
    """(offset, plain bytes) of the chunks in the disk's order, checked; everything between them is zero."""

    def parts() -> Iterator[Part]:
        for placed in artifact.chunks(disk):
            yield from in_order(artifact.frames, placed.located, placed.offset)

    def read(part: Part) -> list[tuple[int, memoryview]]:
        chunks = artifact.frames.chunks(part.own, part.full)
        return list(zip(part.offset.tolist(), chunks, strict=True))

    for pieces in ordered_map(pool, read, parts(), ahead=ahead):
        yield from pieces


def zeros(length: int) -> Iterator[memoryview]:
    """So many zeros, in pieces."""
    while length > 0:
        part = ZEROS[: min(length, MIB)]
        yield part
        length -= len(part)


def hash_disk(artifact: Artifact, disk: DiskMap, hashers: list[ContentHasher], *, workers: int, meter: Meter) -> None:
    """Feed the content of `disk`, extent by extent, to `hashers`; call their `finish` then.

    Raises:
        CorruptContent: a frame is damaged.
    """
    workers = workers or default_workers()
    feed = _Feeder(disk, hashers)
    extents = Extents(disk)
    with ThreadPoolExecutor(workers, "hash") as pool:
        for offset, data in _in_order(artifact, disk, pool, ahead=2 * workers):
            feed.zeros_until(offset)
            for start, part in extents.parts(offset, data):
                feed.zeros_until(start)
                feed.data(part)
            meter.add(len(data))
    feed.zeros_until(disk.size)


def hashing(disk: DiskMap, meter: Meter) -> Meter:
    """One for `hash_disk`, which may read a disk as often as there are digests to try."""
    return meter.aside("hashing", int(disk.runs.length.sum()))


def content_digest(artifact: Artifact, disk: DiskMap, algorithm: str, *, workers: int, meter: Meter) -> str:
    """The digest of the content of `disk`, as recorded; `algorithm` in the command line's spelling.

    Raises:
        UsageError: no such algorithm.
        CorruptContent: a frame is damaged.
    """
    digester = hasher(algorithm, disk.size)
    hash_disk(artifact, disk, [digester], workers=workers, meter=meter)
    return digester.finish()


def integrity_of(
    artifact: Artifact, disk: DiskMap, algorithm: str, *, known: Mapping[str, str], workers: int, progress: Progress
) -> UpperIntegrity:
    """What a document records of the content of `disk`: a digest that is `known`, by its algorithm, or is computed.

    Raises:
        As content_digest.
    """
    digest = known.get(algorithm)
    if digest is None:
        meter = Meter(progress, "hashing", int(disk.runs.length.sum()))
        digest = content_digest(artifact, disk, algorithm, workers=workers, meter=meter)
    return UpperIntegrity(algorithm=recorded_name(algorithm), digest=digest)


class _Feeder:
    """Turns ordered pieces of a disk into whole extents for hashers; missing parts of extents are zeros."""

    def __init__(self, disk: DiskMap, hashers: list[ContentHasher]) -> None:
        self._extents = _rows(disk)
        self._hashers = hashers
        self._at = self._end = 0  # what is left of the current extent
        self._next()

    def _next(self) -> None:
        offset, length = next(self._extents, (-1, 0))
        self._at, self._end = offset, offset + length
        if length:
            for each in self._hashers:
                each.begin_extent(offset, length)

    def data(self, part: memoryview) -> None:
        for each in self._hashers:
            each.update(part)
        self._at += len(part)
        if self._at == self._end:
            self._next()

    def zeros_until(self, offset: int) -> None:
        while self._at < min(offset, self._end):
            self.data(ZEROS[: min(MIB, min(offset, self._end) - self._at)])


def _rows(disk: DiskMap) -> Iterator[list[int]]:
    """(offset, length) of each extent, made from their columns some at a time: there may be millions."""
    for at in range(0, len(disk.extents), 4096):
        yield from disk.extents[at : at + 4096].tolist()


def same_content(one: Artifact, other: Artifact) -> bool:
    """Whether two snapshots have the same documents, files and disks, cut into the same chunks, whatever packs these
    lie in.
    """
    if _documents(one) != _documents(other) or len(one.map.disks) != len(other.map.disks):
        return False
    for mine, its in zip(one.map.disks, other.map.disks, strict=True):
        if (mine.name, mine.size) != (its.name, its.size) or not np.array_equal(mine.extents, its.extents):
            return False
        if _chunks_digest(one, mine) != _chunks_digest(other, its):
            return False
    return True


def is_same_with_fewer_holes(one: Artifact, other: Artifact, *, workers: int) -> bool:
    """Whether `one` has the documents, files and bytes of `other`, but zeros in the place of some of its holes. Reads
    both, where nothing else tells.

    Raises:
        CorruptContent: a frame is damaged.
    """

    def sizes(artifact: Artifact) -> list[tuple[str, int]]:
        return [(disk.name, disk.size) for disk in artifact.map.disks]

    def digests(artifact: Artifact) -> list[str]:
        meter = Meter(silent, "hashing", None)
        disks = artifact.map.disks
        return [content_digest(artifact, disk, "sha256", workers=workers, meter=meter) for disk in disks]

    def allocated(artifact: Artifact) -> int:
        return sum(disk.allocated for disk in artifact.map.disks)

    same = _documents(one) == _documents(other) and sizes(one) == sizes(other)
    return same and allocated(one) > allocated(other) and digests(one) == digests(other)


def _documents(artifact: Artifact) -> list[Digest]:
    files = [layer.digest for layer in artifact.manifest.layers if layer.media_type == spec.MEDIA_FILE]
    return [artifact.manifest.config.digest, *files]


def _chunks_digest(artifact: Artifact, disk: DiskMap) -> bytes:
    """A digest of what chunks lie where."""
    digest = blake3()
    for placed in artifact.chunks(disk):
        rows = np.zeros(len(placed), [("offset", "<i8"), ("length", "<i8"), ("id", "V32")])
        rows["offset"], rows["length"] = placed.offset, placed.located.length
        rows["id"] = placed.located.ids.view("V32").reshape(-1)
        digest.update(rows.tobytes())
    return digest.digest()


def verify_integrity(artifact: Artifact, *, workers: int, meter: Meter) -> UpperStatus:
    """Compare the content of each disk with its recorded integrity; what is said is said of the last one, unless
    another one cannot be compared.

    Raises:
        DigestMismatch: the recorded digest is that of other content.
        UnsupportedVersion: the algorithm is unknown.
    """
    told = [
        _verify_disk(artifact, disk, file.integrity, workers=workers, meter=meter)
        for file, disk in zip(artifact.config.disks, artifact.map.disks, strict=True)
    ]
    return next((status for status in told if status.kind == UNVERIFIABLE), told[-1])


def _verify_disk(
    artifact: Artifact, disk: DiskMap, recorded: UpperIntegrity | None, *, workers: int, meter: Meter
) -> UpperStatus:
    if recorded is None:
        return UpperStatus("not_recorded")
    meaning, got = find_meaning(artifact, disk, recorded, workers=workers, meter=meter)
    if meaning is not None:
        return UpperStatus("verified", recorded.algorithm, recorded.digest, meaning)
    if recorded.algorithm == SPARSE_SHA256:
        return UpperStatus(UNVERIFIABLE, recorded.algorithm, recorded.digest, reason=_ALLOCATION)
    subject = f"snapshot {artifact.digest}: upper digest mismatch ({recorded.algorithm})"
    raise DigestMismatch(subject, expected=recorded.digest, got=" or ".join(got.values()))


def find_meaning(
    artifact: Artifact,
    disk: DiskMap,
    recorded: UpperIntegrity,
    *,
    known: Mapping[str, str] | None = None,
    meanings: Sequence[str] | None = None,
    workers: int,
    meter: Meter,
) -> tuple[str | None, Mapping[str, str]]:
    """Which meaning of the recorded algorithm gives the recorded digest for `disk`, if any, in the command line's
    spelling; also the digests that were compared, by spelling. Those that are `known` are not computed again; with
    `meanings` no others are tried.

    Raises:
        UnsupportedVersion: the algorithm is unknown.
        CorruptContent: a frame is damaged.
    """
    spellings = meanings or candidates(recorded.algorithm, subject=f"snapshot {artifact.digest}")
    got: dict[str, str] = {}
    for spelling in sorted(spellings, key=lambda each: each not in (known or {})):
        digest = (known or {}).get(spelling)
        if digest is None:
            digest = content_digest(artifact, disk, spelling, workers=workers, meter=hashing(disk, meter))
        got[spelling] = digest
        if digest == recorded.digest:
            return spelling, got
    return None, got


def written_extents(artifact: Artifact, disk: DiskMap, *, workers: int) -> npt.NDArray[np.int64]:
    """The extents that the disk would have if its all-zero blocks were holes.

    Raises:
        CorruptContent: a frame is damaged.
    """
    found: list[Extent] = []
    workers = workers or default_workers()
    with ThreadPoolExecutor(workers, "holes") as pool:
        for offset, data in _in_order(artifact, disk, pool, ahead=2 * workers):
            whole = len(data) // BLOCK * BLOCK
            blocks = np.frombuffer(data[:whole], np.uint64).reshape(-1, BLOCK // 8).any(axis=1)
            if any(data[whole:]):
                blocks = np.append(blocks, True)
            edges = np.flatnonzero(np.diff(blocks, prepend=False, append=False)).reshape(-1, 2)
            for first, end in edges.tolist():
                start, stop = offset + first * BLOCK, min(offset + end * BLOCK, disk.size)
                if found and sum(found[-1]) == start:
                    start = found.pop()[0]
                found.append((start, stop - start))
    return np.array(found, np.int64).reshape(-1, 2)
