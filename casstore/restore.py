"""Writes a snapshot's disk back: the same bytes, and the same extents.

Into a file, frames are decoded in the order of the packs, each once per window of chunks, and every piece is written
where it belongs; allocated bytes that no chunk covers are written as zeros, the rest stays a hole. Chunks that a seed
holds are taken from there instead. Into a pipe, all chunks go in the order of the disk, with every zero written out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from casstore import durable
from casstore.artifact import Artifact
from casstore.contents import ZEROS, plain_bytes
from casstore.decoding import Job, jobs
from casstore.diskmap import DiskMap
from casstore.errors import storage_errors
from casstore.extents import Extents
from casstore.frame import Buffer
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.seeds import Seeds, Stretch
from casstore.spec import MIB


def write_disk(
    artifact: Artifact, disk: DiskMap, fd: int, *, workers: int, meter: Meter, seeds: Seeds | None = None
) -> None:
    """Write `disk` into the empty regular file `fd`. `seeds` have learned where the disk's chunks are.

    Raises:
        CorruptContent: a frame is damaged; what the file holds then is worthless.
        StorageError: the file cannot be written.
    """
    workers = workers or default_workers()
    target = _Target(artifact, disk, fd)
    with storage_errors("restoring"):
        os.ftruncate(fd, disk.size)
        with ThreadPoolExecutor(workers, "restore") as pool:
            for done in ordered_map(pool, lambda task: task(), target.tasks(seeds), ahead=2 * workers):
                meter.add(done)
            target.write_bare()


class _Target:
    """The file that a disk is written into."""

    def __init__(self, artifact: Artifact, disk: DiskMap, fd: int) -> None:
        self._artifact, self._disk, self._fd = artifact, disk, fd
        self._extents = Extents(disk)

    def tasks(self, seeds: Seeds | None) -> Iterator[Callable[[], int]]:
        """What is to be done, in any order; each task returns how many bytes of chunks it wrote."""
        for placed in self._artifact.chunks(self._disk):
            located, offset = placed.located, placed.offset
            apart = self._extents.stick_out(offset, located.length)
            if seeds is not None:
                stretches, held = seeds.split(placed, apart)
                for stretch in stretches:
                    yield partial(self._take, seeds, stretch)
                located, offset, apart = located.take(~held), offset[~held], apart[~held]
            for job in jobs(self._artifact.frames, located, offset, apart):
                yield partial(self._decode, job)

    def _decode(self, job: Job) -> int:
        return sum(self._write(*piece) for piece in job.run())

    def _take(self, seeds: Seeds, stretch: Stretch) -> int:
        """Take chunks from a seed; decode those that are not there any more."""
        data = seeds.clone(stretch, self._fd)
        cloned = data is not None
        if data is None:
            data = seeds.read(stretch)
        missing, done = [], 0
        for n, offset in enumerate(stretch.offset.tolist()):
            chunk = None if data is None else stretch.chunk(data, n)
            if chunk is None:
                missing.append(n)
            else:
                done += len(chunk) if cloned else self._write(offset, chunk, not stretch.whole)
        located = stretch.located.take(np.array(missing, np.int64))
        offset, apart = stretch.offset[missing], np.full(len(missing), not stretch.whole)
        return done + sum(map(self._decode, jobs(self._artifact.frames, located, offset, apart)))

    def _write(self, offset: int, data: memoryview, apart: bool) -> int:
        """Write the allocated parts of some bytes; all of them are, unless they are `apart`."""
        for at, part in self._extents.parts(offset, data) if apart else ((offset, data),):
            _pwrite_all(self._fd, part, at)
        return len(data)

    def write_bare(self) -> None:
        """Write the allocated bytes that no chunk covers: zeros."""
        for offset, length in _bare(self._disk, self._extents):
            for at in range(0, length, MIB):
                _pwrite_all(self._fd, ZEROS[: min(MIB, length - at)], offset + at)


def _bare(disk: DiskMap, extents: Extents) -> Iterator[tuple[int, int]]:
    """(offset, length) of allocated bytes that no chunk covers: allocated zeros."""
    gap, length = disk.runs.gap.astype(np.int64), disk.runs.length.astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(gap + length)])
    start, gap = ends, np.concatenate([gap, [disk.size - ends[-1]]])
    for n in np.flatnonzero(extents.allocated(start, gap)).tolist():
        yield from extents.within(int(start[n]), int(gap[n]))


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
    seeds: Seeds | None = None,
) -> None:
    """Write `disk` to the new file `path`; it appears under its name when it is complete and durable. `seeds` have
    learned where the disk's chunks are; `path` itself may be one of them.

    Raises:
        AlreadyExists: `path` exists, and `force` is not set.
        CorruptContent, NotFound, StorageError: nothing is at `path` then, or what was there before.
    """
    with durable.new_file(path, replace=force, durability=durability) as fd:
        write_disk(artifact, disk, fd, workers=workers, meter=meter, seeds=seeds)


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
