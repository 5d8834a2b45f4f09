"""Writes a snapshot's disk back: the same bytes, and the same extents.

Into a file, frames are decoded in the order of the packs, each once per window of chunks, and every piece is written
where it belongs; allocated bytes that no chunk covers are written as zeros, the rest stays a hole. Into a pipe, the
same pieces go in the order of the disk, with every zero written out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from casstore import durable
from casstore.artifact import Artifact, FrameUse
from casstore.contents import ZEROS, plain_bytes
from casstore.diskmap import DiskMap
from casstore.errors import storage_errors
from casstore.extents import Extents
from casstore.frame import Buffer
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.spec import MIB


def write_disk(artifact: Artifact, disk: DiskMap, fd: int, *, workers: int, meter: Meter) -> None:
    """Write `disk` into the empty regular file `fd`.

    Raises:
        CorruptContent: a frame is damaged; what the file holds then is worthless.
        StorageError: the file cannot be written.
    """
    workers = workers or default_workers()
    extents = Extents(disk)

    def place(use: FrameUse) -> int:
        done = 0
        for offset, data in artifact.read(use):
            for at, part in extents.parts(offset, data):
                _pwrite_all(fd, part, at)
            done += len(data)
        return done

    with storage_errors("restoring"):
        os.ftruncate(fd, disk.size)
        with ThreadPoolExecutor(workers, "restore") as pool:
            for done in ordered_map(pool, place, artifact.uses(disk, by_frame=True), ahead=4 * workers):
                meter.add(done)
            for offset, length in _bare(artifact, disk, extents):
                for at in range(0, length, MIB):
                    _pwrite_all(fd, ZEROS[: min(MIB, length - at)], offset + at)


def _bare(artifact: Artifact, disk: DiskMap, extents: Extents) -> Iterator[tuple[int, int]]:
    """(offset, length) of allocated bytes that no chunk covers: allocated zeros."""
    end = 0
    for start, stop in artifact.spans(disk):
        yield from extents.within(end, start - end)
        end = stop
    yield from extents.within(end, disk.size - end)


def _pwrite_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def restore_file(
    artifact: Artifact,
    disk: DiskMap,
    path: str,
    *,
    force: bool,
    workers: int,
    meter: Meter,
    durability: durable.Durability,
) -> None:
    """Write `disk` to the new file `path`; it appears under its name when it is complete and durable.

    Raises:
        AlreadyExists: `path` exists, and `force` is not set.
        CorruptContent, NotFound, StorageError: nothing is at `path` then, or what was there before.
    """
    with durable.new_file(path, replace=force, durability=durability) as fd:
        write_disk(artifact, disk, fd, workers=workers, meter=meter)


def restore_stream(
    artifact: Artifact, disk: DiskMap, write: Callable[[Buffer], object], *, workers: int, meter: Meter
) -> None:
    """Write all bytes of `disk`, holes as zeros, in order.

    Raises:
        CorruptContent: a frame is damaged; what was written before is right, and the rest is missing.
    """
    for data in plain_bytes(artifact, disk, workers=workers):
        write(data)
        meter.add(len(data))
