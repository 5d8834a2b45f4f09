"""Ranges of bytes are sets of bytes, and the cells of a block map add up to the disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.byteranges import Coverage, Rows, clip, union
from casstore.comparing.blockmap import block_map
from casstore.comparing.disks import DiskDifference
from casstore.errors import UsageError
from tests.support.disks import BLOCK

NO_ROWS = np.empty((0, 2), np.int64)
some_rows = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8).map(
    lambda rows: np.array(sorted(rows), np.int64).reshape(-1, 2)
)


def bytes_of(rows: Sequence[Sequence[int]]) -> set[int]:
    return {at for offset, length in rows for at in range(offset, offset + length)}


@settings(max_examples=150)
@given(some_rows, some_rows, st.integers(0, 90), st.integers(0, 90))
def test_ranges_are_sets_of_bytes(one: Rows, other: Rows, low: int, high: int) -> None:
    both = union(one, other)
    assert bytes_of(both.tolist()) == bytes_of(one.tolist()) | bytes_of(other.tolist())
    ends = both.sum(axis=1)
    assert (both[1:, 0] > ends[:-1]).all()
    low, high = sorted((low, high))
    inside = bytes_of(both.tolist()) & set(range(low, high))
    assert bytes_of(clip(both, low, high).tolist()) == inside
    assert Coverage(both).within(np.array([low]), np.array([high])).tolist() == [len(inside)]


@settings(max_examples=100)
@given(
    blocks=st.lists(st.sampled_from([".", ":", "A", "B", "c", "a", "r"]), min_size=1, max_size=40),
    tail=st.integers(1, BLOCK),
    cells=st.integers(1, 50),
)
def test_cells_add_up(blocks: list[str], tail: int, cells: int) -> None:
    """A letter per block: . a hole, : data on both, A and B zeros on one of them, c a r what differs."""
    size = (len(blocks) - 1) * BLOCK + tail

    def rows(letters: str) -> Rows:
        found = [(n * BLOCK, BLOCK if n < len(blocks) - 1 else tail) for n, b in enumerate(blocks) if b in letters]
        return np.array(found, np.int64).reshape(-1, 2)

    ranges = rows("car")
    kinds = np.array(["?car".index(blocks[at // BLOCK]) for at in ranges[:, 0].tolist()], np.uint8)
    difference = DiskDifference((size, size), ranges, kinds, (0, 0, 0), 0, (0, 0))
    found = block_map(difference, union(rows(":Acr")), union(rows(":Bca")), cells)
    assert len(found) <= cells
    assert len({cell.length for cell in found[:-1]}) <= 1
    assert found[-1].length <= found[0].length
    assert len(found) * 2 > cells or found[0].length <= BLOCK
    end = 0
    for cell in found:
        assert cell.offset == end
        end += cell.length
        mine = [(blocks[at // BLOCK], min(BLOCK, size - at)) for at in range(cell.offset, end, BLOCK)]
        wanted = [sum(length for letter, length in mine if letter in kind) for kind in (".", ":AB", "c", "a", "r")]
        assert [cell.hole, cell.same, cell.changed, cell.added, cell.removed] == wanted
    assert end == size


def test_a_map_of_nothing() -> None:
    difference = DiskDifference((0, 0), NO_ROWS, np.empty(0, np.uint8), (0, 0, 0), 0, (0, 0))
    assert block_map(difference, NO_ROWS, NO_ROWS, 10) == []
    with pytest.raises(UsageError):
        block_map(difference, NO_ROWS, NO_ROWS, 0)
