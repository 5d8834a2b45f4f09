"""Which of a disk's new chunks become deltas of what its base snapshot has at their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from casstore import frame
from casstore.base import Base
from casstore.dedup import Batch, Chunk
from casstore.errors import CasstoreError, DamagedPacks
from casstore.pool import ordered_map

_TRIES = 4
"""Deltas to be tried in one go."""
_PAYS = 0.5
"""A delta is kept if it takes less than this part of what the chunk takes in full: it costs a second decode."""


def try_deltas(
    pool: Executor, windows: Iterable[Batch], base: Base | None, level: int, *, ahead: int
) -> Iterable[Batch]:
    """Make a delta of each chunk that has a base, where that pays.

    Raises:
        DamagedPacks: a base cannot be read.
    """
    if base is None:
        return windows
    few = (part for window in windows for part in _parts(window))

    def attempt(chunk: Chunk) -> None:
        if chunk.base is None:
            return
        try:
            plain = base.plain(chunk.base)
        except CasstoreError as error:
            # What else is the base's in this pack may be damaged as well, and nothing may be built on it.
            raise DamagedPacks(str(error), [str(chunk.base.place.pack.descriptor.digest)]) from error
        data = chunk.plain.data
        if not chunk.base.promising and not resembles(data, plain, chunk.base.shift):
            return
        delta = frame.encode_delta(data, plain, level)
        if len(delta) < _PAYS * len(data) and len(delta) < _PAYS * len(frame.encode([data], level)[1]):
            chunk.delta = delta

    def attempt_all(window: Batch) -> Batch:
        for chunk in window.chunks:
            attempt(chunk)
        return window

    return ordered_map(pool, attempt_all, few, ahead=ahead)


def _parts(window: Batch) -> Iterator[Batch]:
    """Split a window so that nowhere many deltas have to be made, one after the other, while other threads wait."""
    start = tries = 0
    for n, chunk in enumerate(window.chunks):
        tries += chunk.base is not None
        if tries == _TRIES:
            yield replace(window, chunks=window.chunks[start : n + 1])
            start, tries = n + 1, 0
    yield replace(window, chunks=window.chunks[start:])


def resembles(data: memoryview, base: memoryview, shift: int) -> bool:
    """Whether a quarter of the words of `data` that are not zero are those of `base` at the same place of the disk."""
    start, end = max(shift, 0), min(len(data), shift + len(base))
    words = (end - start) // 8
    if words <= 0:
        return False
    mine = np.frombuffer(data, np.uint64, words, start)
    theirs = np.frombuffer(base, np.uint64, words, start - shift)
    filled = mine != 0
    return bool(4 * np.count_nonzero((mine == theirs) & filled) >= np.count_nonzero(filled))
