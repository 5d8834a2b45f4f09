"""A stored disk's bytes as a member of an archive has them: its ranges, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from casstore.artifact import Artifact
from casstore.contents import placed_bytes, zeros
from casstore.diskmap import DiskMap
from casstore.integrity import ContentHasher
from casstore.tar import sparse
from casstore.tar.sparse import Ranges


def ranges_of(disk: DiskMap, *, within_header: bool = False) -> Ranges | None:
    """The ranges of a disk's member; None where it has no holes."""
    ranges = sparse.rounded(disk.extents, disk.size)
    if within_header:
        ranges = sparse.within_header(ranges)
    return None if disk.size == 0 or ranges.tolist() == [[0, disk.size]] else ranges


def stored_bytes(
    artifact: Artifact, disk: DiskMap, ranges: Ranges | None, *, workers: int, hasher: ContentHasher | None = None
) -> Iterator[memoryview]:
    """The bytes of the ranges, in their order. `hasher` is fed with them; call its `finish` then.

    Raises:
        CorruptContent: a frame is damaged.
    """
    chunks = placed_bytes(artifact, disk, workers=workers)
    start, data = next(chunks, (disk.size, memoryview(b"")))
    for offset, length in _rows(ranges, disk.size):
        at, end = offset, offset + length
        if hasher is not None:
            hasher.begin_extent(offset, length)
        while at < end:
            while data and start + len(data) <= at:
                start, data = next(chunks, (disk.size, memoryview(b"")))
            own = [data[at - start : end - start]] if at >= start else zeros(min(start, end) - at)
            for part in own:
                if hasher is not None:
                    hasher.update(part)
                yield part
                at += len(part)


def _rows(ranges: Ranges | None, size: int) -> Iterator[list[int]]:
    """The ranges that are not empty, made from their columns some at a time: there may be millions."""
    if ranges is None:
        yield from [[0, size]] if size else []
        return
    for at in range(0, len(ranges), 4096):
        yield from (row for row in ranges[at : at + 4096].tolist() if row[1])
