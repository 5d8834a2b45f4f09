"""Cuts a disk's bytes into chunks by their content, at block boundaries only.

A block ends a chunk when the top bits of a hash of its 4096 bytes match. So a file that the file system placed
elsewhere still gives the same chunks, and an edit in place moves no boundary. The hash is one matrix product: the
block's 512 words times 512 odd multipliers, modulo 2^64 (a plain XOR of the words would be 0 for every block that is
filled with one value; the products' low bits are weak, so the top bits decide). 6 GiB/s on one core.

All-zero blocks carry nothing: a chunk never starts or ends with one, and a run of at least CHUNK_MIN bytes of them ends
a chunk. Shorter runs inside a chunk stay in it, else every small hole would cost a chunk.

The cuts are no part of any format: readers only see (offset, length, digest).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from casstore.spec import BLOCK, CHUNK_MAX, CHUNK_MIN

_MIN = CHUNK_MIN // BLOCK
_MAX = CHUNK_MAX // BLOCK
_LOOKAHEAD = _MAX + _MIN
"""Blocks after a chunk's start that can have a say in where it ends."""
_CUT_BITS = 4  # one block in 16 may end a chunk: measured mean 89 KiB on ext4 disks with these bounds
_CUT_VALUE = 2**_CUT_BITS - 1  # not 0, the hash of a zero block


def _multipliers() -> npt.NDArray[np.uint64]:
    """512 odd multipliers from splitmix64 of the seed 0: fixed for ever, or dedup against old snapshots is lost."""
    state = np.arange(1, BLOCK // 8 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))) | np.uint64(1)


_MULTIPLIERS = _multipliers()


@dataclass(frozen=True, slots=True)
class Cut:
    """`chunks` of one buffer, as (start, end) in blocks from its start; `done` blocks of it are dealt with."""

    chunks: list[tuple[int, int]]
    done: int


def block_hashes(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """One hash per block of `data` (a multiple of 4096 bytes long)."""
    hashes: npt.NDArray[np.uint64] = data.view("<u8").reshape(-1, BLOCK // 8) @ _MULTIPLIERS
    return hashes


def zero_blocks(data: npt.NDArray[np.uint8], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which blocks are all zero. The hash of a zero block is 0; other blocks with that hash are looked at."""
    zero: npt.NDArray[np.bool_] = hashes == 0
    suspects = np.flatnonzero(zero)
    if suspects.size:
        blocks = data.view("<u8").reshape(-1, BLOCK // 8)
        for batch in np.array_split(suspects, -(-suspects.size // 64)):
            zero[batch] = ~blocks[batch].any(axis=1)
    return zero


def cut(hashes: npt.NDArray[np.uint64], zero: npt.NDArray[np.bool_], *, last: bool) -> Cut:
    """Cut one buffer whose first block starts a chunk or lies between chunks.

    Unless it is the `last` of its region, chunks whose end could depend on blocks that are not in the buffer are left:
    the caller brings the blocks from `done` on again, at the start of the next buffer.
    """
    count = len(hashes)
    ends = np.flatnonzero((hashes >> np.uint64(64 - _CUT_BITS)) == _CUT_VALUE).tolist()
    runs = list(_zero_runs(zero))
    starts = [start for start, _ in runs]
    chunks: list[tuple[int, int]] = []
    at = 0
    while True:
        at = _skip_zeros(zero, at, runs, starts)
        if at >= count or (not last and count - at < _LOOKAHEAD):
            return Cut(chunks, min(at, count))
        n = bisect_left(starts, at)
        limit = min(at + _MAX, starts[n] if n < len(starts) else count, count)
        n = bisect_left(ends, at + _MIN - 1)
        end = ends[n] + 1 if n < len(ends) and ends[n] < limit else limit
        at, start = end, at
        while zero[end - 1]:
            end -= 1
        chunks.append((start, end))


def _zero_runs(zero: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(start, end) of the runs of zero blocks that are long enough to end a chunk."""
    edges = np.flatnonzero(np.diff(zero, prepend=False, append=False))
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start >= _MIN:
            yield start, end


def _skip_zeros(zero: npt.NDArray[np.bool_], at: int, runs: list[tuple[int, int]], starts: list[int]) -> int:
    while at < len(zero) and zero[at]:
        n = bisect_left(starts, at)
        at = runs[n][1] if n < len(starts) and starts[n] == at else at + 1
    return at
