"""The runs of a disk while it is captured: which of its chunks lie where, before the packs are settled."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from casstore.directories import by_pack
from casstore.diskmap import Runs


class Part(NamedTuple):
    """Some consecutive chunks of a pack: their plain bytes, the pack, the first one, how many."""

    length: int
    pack: int
    first: int
    chunks: int


class Row(NamedTuple):
    """A run of `chunks` chunks with `length` plain bytes, `gap` bytes behind the run before. `pack` is the number of a
    known pack and `first` a chunk in it; or `pack` is a Stream, and `first` a number in it, at `position`.
    """

    gap: int
    length: int
    pack: int
    first: int
    chunks: int
    position: int


class RunRecorder:
    """Takes a disk's chunks in order. About 40 bytes per run."""

    def __init__(self) -> None:
        self._columns = array("Q"), array("Q"), array("q"), array("Q"), array("I"), array("Q")
        self._last: list[int] | None = None  # a Row, still growing
        self._end = 0

    def add(self, offset: int, length: int, pack: int, first: int, position: int = 0, *, chunks: int = 1) -> None:
        """The next chunk, or some that follow each other in a pack, lie at `offset` of the disk."""
        gap, last = offset - self._end, self._last
        self._end = offset + length
        if last is not None and gap == 0 and pack == last[2] and first == last[3] + last[4]:
            last[1] += length
            last[4] += chunks
            return
        self._flush()
        self._last = [gap, length, pack, first, chunks, position]

    def _flush(self) -> None:
        if self._last is not None:
            for column, value in zip(self._columns, self._last, strict=True):
                column.append(value)
            self._last = None

    def __iter__(self) -> Iterator[Row]:
        self._flush()
        return map(Row._make, zip(*self._columns, strict=True))

    def by_pack(self) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """(known pack, first chunk of each of its runs, chunks of each)."""
        self._flush()
        pack, first, count = (np.frombuffer(self._columns[n], kind) for n, kind in ((2, "i8"), (3, "i8"), (4, "u4")))
        for n, rows in by_pack(pack):
            if n >= 0:
                yield n, first[rows], count[rows].astype(np.int64)


def settle(rows: Iterable[Row], place: Callable[[Row], Iterable[Part]]) -> Runs:
    """The runs as the map has them; `place` tells where the parts of a row are in the end."""
    columns = array("Q"), array("Q"), array("I"), array("I"), array("I")

    def put(gap: int, part: Part) -> None:
        for column, value in zip(columns, (gap, *part), strict=True):
            column.append(value)

    gap, last = 0, None
    for row in rows:
        before = row.gap
        for part in place(row):
            follows = last is not None and before == 0 and part.pack == last.pack
            if last is not None and follows and part.first == last.first + last.chunks:
                last = last._replace(length=last.length + part.length, chunks=last.chunks + part.chunks)
            else:
                if last is not None:
                    put(gap, last)
                gap, last = before, part
            before = 0
    if last is not None:
        put(gap, last)
    kinds = ("<u8", "<u8", "<u4", "<u4", "<u4")
    return Runs(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))
