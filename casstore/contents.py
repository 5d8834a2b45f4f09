"""A disk's content from front to back: as one stream of bytes, or extent by extent into hashers, and whether it is what
was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from casstore.artifact import Artifact
from casstore.decoding import Part, in_order
from casstore.diskmap import DiskMap
from casstore.errors import DigestMismatch
from casstore.extents import Extents
from casstore.integrity import ContentHasher, candidates, hasher
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.spec import MIB

ZEROS = memoryview(bytes(MIB))
"""1 MiB of zeros."""


@dataclass(frozen=True, slots=True)
class UpperStatus:
    """What the recorded integrity says. `kind` is "not_recorded" or "verified"; `meaning` is the algorithm that held,
    in the command line's spelling: msb-sparse-sha256-v1 has two meanings.
    """

    kind: str
    algorithm: str | None = None
    digest: str | None = None
    meaning: str | None = None


def plain_bytes(artifact: Artifact, disk: DiskMap, *, workers: int) -> Iterator[memoryview]:
    """All bytes of `disk` in order, in pieces of at most some MiB."""
    extents, at = Extents(disk), 0
    workers = workers or default_workers()
    with ThreadPoolExecutor(workers, "restore") as pool:
        for offset, data in _in_order(artifact, disk, pool, ahead=2 * workers):
            extents.parts(offset, data)
            yield from _zeros(offset - at)
            yield data
            at = offset + len(data)
    yield from _zeros(disk.size - at)


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


def _zeros(length: int) -> Iterator[memoryview]:
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


def verify_integrity(artifact: Artifact, *, workers: int, meter: Meter) -> UpperStatus:
    """Compare the first disk's content with the recorded integrity.

    Raises:
        DigestMismatch: none of the meanings of the recorded algorithm gives the recorded digest.
        UnsupportedVersion: the algorithm is unknown.
    """
    recorded = artifact.config.upper.integrity
    if recorded is None:
        return UpperStatus("not_recorded")
    disk = artifact.map.disks[0]
    spellings = candidates(recorded.algorithm, subject=f"snapshot {artifact.digest}")
    hashers = [hasher(spelling, disk.size) for spelling in spellings]
    hash_disk(artifact, disk, hashers, workers=workers, meter=meter)
    digests = [each.finish() for each in hashers]
    if recorded.digest not in digests:
        subject = f"snapshot {artifact.digest}: upper digest mismatch ({recorded.algorithm})"
        raise DigestMismatch(subject, expected=recorded.digest, got=" or ".join(digests))
    return UpperStatus("verified", recorded.algorithm, recorded.digest, spellings[digests.index(recorded.digest)])
