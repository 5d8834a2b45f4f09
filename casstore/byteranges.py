"""Sorted ranges of bytes in columns: what they have in common with others, without a loop over them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Rows (offset, length) of bytes: sorted, separate and none empty, unless it says otherwise."""


class Coverage:
    """What ranges cover of others."""

    def __init__(self, rows: Rows) -> None:
        self.starts: npt.NDArray[np.int64] = np.ascontiguousarray(rows[:, 0])
        self.ends: npt.NDArray[np.int64] = rows.sum(axis=1)
        self._before = np.concatenate([[0], np.cumsum(rows[:, 1])])

    def before(self, position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Covered bytes before each position."""
        if not len(self.starts):
            return np.zeros(len(position), np.int64)
        last = np.maximum(np.searchsorted(self.starts, position, side="right") - 1, 0)
        inside = np.minimum(position, self.ends[last]) - self.starts[last]
        covered: npt.NDArray[np.int64] = self._before[last] + np.maximum(inside, 0)
        return covered

    def within(self, start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Covered bytes between each `start` and its `end`."""
        covered: npt.NDArray[np.int64] = self.before(end) - self.before(start)
        return covered


def union(*several: Rows) -> Rows:
    """The bytes that are in any of them; the rows of each may be in any order, touch and overlap."""
    rows = np.concatenate([np.empty((0, 2), np.int64), *several])
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    if not len(rows):
        return rows
    ends = np.maximum.accumulate(rows.sum(axis=1))
    first = np.concatenate([[True], rows[1:, 0] > ends[:-1]])
    last = np.concatenate([first[1:], [True]])
    starts = rows[first, 0]
    return np.stack([starts, ends[last] - starts], axis=1)


def clip(rows: Rows, start: int, end: int) -> Rows:
    """What lies between `start` and `end`."""
    starts = np.maximum(rows[:, 0], start)
    lengths = np.minimum(rows.sum(axis=1), end) - starts
    inside: Rows = np.stack([starts, lengths], axis=1)[lengths > 0]
    return inside
