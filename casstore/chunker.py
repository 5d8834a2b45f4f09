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

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from casstore.spec import BLOCK, CHUNK_MAX, CHUNK_MIN

_MIN = CHUNK_MIN // BLOCK
_MAX = CHUNK_MAX // BLOCK
LOOKAHEAD = _MAX + _MIN
"""Blocks after a chunk's start that can have a say in where it ends; fewer than these are left of a buffer."""
_CUT_BITS = 2  # one block in 4 may end a chunk: measured mean 24 KiB on ext4 disks with these bounds
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
    begin, stop, trimmed = _edges(hashes, zero)
    chunks: list[tuple[int, int]] = []
    at = begin[0]
    while at < count and (last or count - at >= LOOKAHEAD):
        end = stop[at]
        chunks.append((at, trimmed[end]))
        at = begin[end]
    return Cut(chunks, at)


def _edges(hashes: npt.NDArray[np.uint64], zero: npt.NDArray[np.bool_]) -> tuple[list[int], list[int], list[int]]:
    """Per block, for a walk from chunk to chunk: where a chunk begins that is looked for from there on; where one ends
    that begins there; and, for one that would end there, where it ends without the zeros at its end.
    """
    count = len(hashes)
    blocks = np.arange(count + 1)
    marks = np.append(np.flatnonzero((hashes >> np.uint64(64 - _CUT_BITS)) == _CUT_VALUE), count)
    stop = np.minimum(marks[np.searchsorted(marks[:-1], blocks + _MIN - 1)] + 1, blocks + _MAX)
    if not zero.any():
        return blocks.tolist(), np.minimum(stop, count).tolist(), blocks.tolist()
    runs = np.array([*(start for start, _ in _zero_runs(zero)), count], np.int64)
    stop = np.minimum(stop, runs[np.searchsorted(runs[:-1], blocks)])
    filled = np.flatnonzero(~zero)
    next_filled = np.append(filled, count)[np.searchsorted(filled, blocks)]
    trimmed = np.append(0, filled + 1)[np.searchsorted(filled, blocks)]
    return next_filled.tolist(), stop.tolist(), trimmed.tolist()


def _zero_runs(zero: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(start, end) of the runs of zero blocks that are long enough to end a chunk."""
    if not zero.any():
        return
    padded = np.zeros(len(zero) + 2, np.bool_)
    padded[1:-1] = zero
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start >= _MIN:
            yield start, end
