"""Writes a disk into a file: frames are decoded in the order of the packs, each once per window of chunks, and every
piece is written where it belongs. Allocated bytes that no chunk covers are written as zeros, the rest stays a hole.
Chunks that a seed holds are taken from there instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from casstore.artifact import Artifact
from casstore.contents import ZEROS
from casstore.decoding import Piece, jobs
from casstore.directories import Located
from casstore.diskmap import DiskMap
from casstore.errors import storage_errors
from casstore.extents import Extents
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.seeds import Seeds, Stretch
from casstore.spec import MIB


class Decode(Protocol):
    """How chunks become pieces."""

    def __call__(
        self, located: Located, offset: npt.NDArray[np.int64], apart: npt.NDArray[np.bool_], /
    ) -> Iterator[Callable[[], Iterable[Piece]]]:
        """Tasks for any thread and in any order, each of which gives some of the pieces; as `decoding.jobs`."""
        ...


def decode_all(artifact: Artifact) -> Decode:
    """Every chunk, or an error."""

    def decode(
        located: Located, offset: npt.NDArray[np.int64], apart: npt.NDArray[np.bool_], /
    ) -> Iterator[Callable[[], Iterable[Piece]]]:
        return (job.run for job in jobs(artifact.frames, located, offset, apart))

    return decode


class DiskWriter:
    """An empty regular file that a disk is written into. `seeds` have learned where the disk's chunks are."""

    def __init__(
        self, artifact: Artifact, disk: DiskMap, fd: int, *, decode: Decode, seeds: Seeds | None = None
    ) -> None:
        self._artifact, self._disk, self._fd, self._decode, self._seeds = artifact, disk, fd, decode, seeds
        self._extents = Extents(disk)

    def write(self, chunks_of: DiskMap, *, workers: int, meter: Meter) -> None:
        """Write the disk, but only those of its chunks that `chunks_of` has, too.

        Raises:
            CorruptContent: a frame is damaged; what the file holds then is worthless.
            StorageError: the file cannot be written.
        """
        workers = workers or default_workers()
        with storage_errors("restoring", on=self._fd):
            os.ftruncate(self._fd, self._disk.size)
            with ThreadPoolExecutor(workers, "restore") as pool:
                for done in ordered_map(pool, lambda task: task(), self._tasks(chunks_of), ahead=2 * workers):
                    meter.add(done)
                self._write_bare()

    def _tasks(self, chunks_of: DiskMap) -> Iterator[Callable[[], int]]:
        """What is to be done, in any order; each task returns how many bytes of chunks it wrote."""
        for placed in self._artifact.chunks(chunks_of):
            located, offset = placed.located, placed.offset
            apart = self._extents.stick_out(offset, located.length)
            if self._seeds is not None:
                stretches, held = self._seeds.split(placed, apart)
                for stretch in stretches:
                    yield partial(self._take, self._seeds, stretch)
                located, offset, apart = located.take(~held), offset[~held], apart[~held]
            for task in self._decode(located, offset, apart):
                yield partial(self._run, task)

    def _run(self, task: Callable[[], Iterable[Piece]]) -> int:
        return sum(self._write(*piece) for piece in task())

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
        return done + sum(map(self._run, self._decode(located, offset, apart)))

    def _write(self, offset: int, data: memoryview, apart: bool) -> int:
        """Write the allocated parts of some bytes; all of them are, unless they are `apart`."""
        for at, part in self._extents.parts(offset, data) if apart else ((offset, data),):
            pwrite_all(self._fd, part, at)
        return len(data)

    def _write_bare(self) -> None:
        """Write the allocated bytes that no chunk covers: zeros."""
        for offset, length in _bare(self._disk, self._extents):
            for at in range(0, length, MIB):
                pwrite_all(self._fd, ZEROS[: min(MIB, length - at)], offset + at)


def _bare(disk: DiskMap, extents: Extents) -> Iterator[tuple[int, int]]:
    """(offset, length) of allocated bytes that no chunk covers: allocated zeros."""
    gap, length = disk.runs.gap.astype(np.int64), disk.runs.length.astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(gap + length)])
    start, gap = ends, np.concatenate([gap, [disk.size - ends[-1]]])
    for n in np.flatnonzero(extents.allocated(start, gap)).tolist():
        yield from extents.within(int(start[n]), int(gap[n]))


def pwrite_all(fd: int, data: memoryview, offset: int) -> None:
    """Write all of it at byte `offset` of a file."""
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
