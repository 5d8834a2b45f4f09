"""Seeds: disk files of whatever relation to a snapshot, which may hold some of its chunks already.

A seed is read once, cut into chunks and hashed, to learn which of the wanted chunks it holds and where. What is taken
from it later is checked again, for the seed may have changed since: a range is reflinked, where the file systems can,
and then read back from the target, where nobody else writes; or its bytes are read, checked and written. What is not
as it was expected is left to the caller, who decodes it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from casstore import log
from casstore.artifact import Artifact, Placed
from casstore.directories import Ids, Located
from casstore.disk import DiskSource
from casstore.diskmap import DiskMap
from casstore.errors import SourceError
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.scan import PlainChunk, Scan
from casstore.spec import BLOCK, MIB

_FICLONERANGE: Final = 0x4020940D  # linux/fs.h
_FILE_CLONE_RANGE: Final = struct.Struct("=qQQQ")  # source descriptor, source offset, length, target offset
_MOST_CHUNKS = 4_000_000
"""Chunks that are looked for (about 90 GiB of disk), so that memory does not grow with the disk."""
_STRETCH = 4 * MIB
"""Bytes that are taken in one go."""


class Stretch(NamedTuple):
    """Chunks that lie side by side both in a seed, from `start`, and on the disk, from `offset[0]`."""

    seed: int
    start: int
    located: Located
    offset: npt.NDArray[np.int64]
    whole: bool
    """All of it is allocated."""

    def chunk(self, data: memoryview, n: int) -> memoryview | None:
        """The `n`-th chunk out of the stretch's bytes; None if it is another one by now."""
        start = int(self.offset[n] - self.offset[0])
        chunk = data[start : start + int(self.located.length[n])]
        return chunk if blake3(chunk).digest() == self.located.ids[n].tobytes() else None


class Seeds:
    """Open seeds; a context manager."""

    def __init__(self, sources: Sequence[DiskSource]) -> None:
        self._sources = sources
        self._can_clone = [True] * len(sources)
        self._wanted = np.empty(0, np.uint64)
        self._seed = np.empty(0, np.int16)
        self._start = np.empty(0, np.int64)
        self._stack = ExitStack()

    @classmethod
    def open(cls, paths: Iterable[str | os.PathLike[str]]) -> Self:
        """Open these files.

        Raises:
            SourceError: one is missing, unreadable, or no regular file.
        """
        with ExitStack() as stack:
            seeds = cls([stack.enter_context(DiskSource.open(path)) for path in paths])
            seeds._stack = stack.pop_all()
            return seeds

    def __len__(self) -> int:
        return len(self._sources)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def learn(self, artifact: Artifact, disk: DiskMap, *, workers: int, meter: Meter) -> None:
        """Read the seeds, and remember where the chunks of `disk` lie in them.

        A seed that changes or fails while it is read is used as far as it was read.
        """
        self._wanted = _wanted(artifact, disk)
        self._seed, self._start = np.full(len(self._wanted), -1, np.int16), np.zeros(len(self._wanted), np.int64)
        workers = workers or default_workers()
        with ThreadPoolExecutor(workers, "seeds") as pool:
            for n, source in enumerate(self._sources):
                scan: Scan[object] = Scan(source, meter, pool, ahead=workers + 1)
                windows = (window.chunks for window in scan.windows())
                try:
                    for ids, starts in ordered_map(pool, _hash, windows, ahead=workers + 1):
                        self._note(n, ids, starts)
                except SourceError:
                    continue

    def _note(self, seed: int, ids: Ids, starts: npt.NDArray[np.int64]) -> None:
        which, rows = self._find(ids)
        new = self._seed[rows] < 0
        self._seed[rows[new]], self._start[rows[new]] = seed, starts[which[new]]

    def _find(self, ids: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Which of the ids are wanted, and their rows in the table."""
        keys = _keys(ids)
        rows = np.searchsorted(self._wanted, keys)
        which = np.flatnonzero(rows < len(self._wanted))
        which = which[self._wanted[rows[which]] == keys[which]]
        return which, rows[which]

    def split(self, placed: Placed, apart: npt.NDArray[np.bool_]) -> tuple[list[Stretch], npt.NDArray[np.bool_]]:
        """What of some chunks the seeds may hold, and which of the chunks that is. Chunks that are `apart` come alone
        and not as `whole`.
        """
        mine, rows = self._find(placed.located.ids)
        mine, rows = mine[self._seed[rows] >= 0], rows[self._seed[rows] >= 0]
        held = np.zeros(len(placed), np.bool_)
        held[mine] = True
        seed, start, offset = self._seed[rows], self._start[rows], placed.offset[mine]
        length, alone = placed.located.length[mine], apart[mine]
        breaks = alone.copy()
        breaks[1:] |= alone[:-1] | (np.diff(seed) != 0)
        breaks[1:] |= (np.diff(start) != length[:-1]) | (np.diff(offset) != length[:-1])
        breaks[1:] |= np.diff(np.cumsum(length) // _STRETCH) != 0
        breaks[:1] = True
        edges = [*np.flatnonzero(breaks).tolist(), len(mine)]
        stretches = [
            Stretch(int(seed[a]), int(start[a]), placed.located.take(mine[a:b]), offset[a:b], not alone[a])
            for a, b in pairwise(edges)
        ]
        return stretches, held

    def clone(self, stretch: Stretch, fd: int) -> memoryview | None:
        """Let `fd` share a stretch's blocks with the seed; the bytes that `fd` has there then, or None.

        It fails, for this seed and ever after, where the file systems cannot; and where the seed has holes, which the
        target must not have.
        """
        start, length = int(stretch.offset[0]), int(stretch.located.length.sum())
        if not stretch.whole or not self._can_clone[stretch.seed] or (stretch.start | start | length) % BLOCK:
            return None
        source = self._sources[stretch.seed].fileno()
        try:
            fcntl.ioctl(fd, _FICLONERANGE, _FILE_CLONE_RANGE.pack(source, stretch.start, length, start))
        except OSError as error:
            log.info(
                "disk", "%s: no reflinks from it: %s; copying", self._sources[stretch.seed].subject, error.strerror
            )
            self._can_clone[stretch.seed] = False
            return None
        if os.lseek(fd, start, os.SEEK_HOLE) < start + length:
            return None
        data = bytearray(length)
        return memoryview(data) if os.preadv(fd, [data], start) == length else None

    def read(self, stretch: Stretch) -> memoryview | None:
        """A stretch's bytes as the seed has them now; None where it has not that many."""
        data = memoryview(bytearray(int(stretch.located.length.sum())))
        try:
            self._sources[stretch.seed].read_into(data, stretch.start)
        except SourceError:
            return None
        return data


def _wanted(artifact: Artifact, disk: DiskMap) -> npt.NDArray[np.uint64]:
    """The keys of the disk's chunks, sorted, each once."""
    parts: list[npt.NDArray[np.uint64]] = []
    count = 0
    for placed in artifact.chunks(disk):
        parts.append(np.unique(_keys(placed.located.ids)))
        count += len(parts[-1])
        if count >= _MOST_CHUNKS:
            break
    keys = np.concatenate([np.empty(0, np.uint64), *parts])
    del parts
    keys.sort()
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys


def _keys(ids: Ids) -> npt.NDArray[np.uint64]:
    """64 bits of each digest: enough to find by, and what is found is checked."""
    keys: npt.NDArray[Any] = np.ascontiguousarray(ids).view("<u8").reshape(-1, 4)[:, 0]
    return keys.astype(np.uint64)


def _hash(chunks: list[PlainChunk]) -> tuple[Ids, npt.NDArray[np.int64]]:
    ids = b"".join(blake3(chunk.data).digest() for chunk in chunks)
    return np.frombuffer(ids, "V32"), np.array([chunk.offset for chunk in chunks], np.int64)
