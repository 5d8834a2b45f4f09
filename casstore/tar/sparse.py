"""The maps of sparse members: which ranges of the file are in the archive. The rest is holes.

A map is an array of (offset, length), in order. GNU tar ends it with an empty range at the end of a file that ends in a
hole. Readers take each range from a multiple of 512 bytes on, so all but the last must be such multiples themselves.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from casstore.errors import DocumentError
from casstore.tar import fields
from casstore.tar.limits import BLOCK, MAX_RANGES

Ranges = npt.NDArray[np.int64]
"""(offset, length) per row, bytes."""

_SLOT = 24
_IN_HEADER, _IN_EXTENSION = 4, 21
_FIRST_SLOT, _EXTENDED, _REAL_SIZE = 386, 482, slice(483, 495)
_EXTENSION_EXTENDED = _IN_EXTENSION * _SLOT


def no_ranges() -> Ranges:
    """An empty map."""
    return np.zeros((0, 2), np.int64)


def check(pairs: array[int], size: int, stored: int, *, subject: str) -> Ranges:
    """The map of a file of `size` bytes, of which `stored` are in the archive, from its numbers.

    Raises:
        DocumentError: it breaks the rules.
    """
    ranges: Ranges = np.frombuffer(pairs, np.int64).reshape(-1, 2) if len(pairs) else no_ranges()
    offset, length = ranges[:, 0], ranges[:, 1]
    end = offset + length
    bad = (end < offset) | (end > size)
    bad[1:] |= offset[1:] < end[:-1]
    if bad.any():
        n = int(bad.argmax())
        problem = f"expected ranges in order within {size} bytes, got {offset[n]}+{length[n]}"
        raise DocumentError(subject, problem, at=f"sparse range {n}")
    if int(length.sum()) != stored:
        raise DocumentError(subject, f"expected ranges of {stored} bytes, got {int(length.sum())}")
    filled = length[length > 0]
    if (filled[:-1] % BLOCK).any():
        raise DocumentError(subject, f"expected ranges that are multiples of {BLOCK} bytes, but for the last")
    return ranges


def add(pairs: array[int], offset: int, length: int, *, subject: str) -> None:
    """Append a range to the numbers of a map.

    Raises:
        DocumentError: there are too many.
    """
    if len(pairs) >= 2 * MAX_RANGES:
        raise DocumentError(subject, f"expected at most {MAX_RANGES} sparse ranges, got more")
    if max(offset, length) >= 1 << 63:
        raise DocumentError(subject, f"expected offsets of less than 2^63, got {offset}+{length}")
    pairs.extend((offset, length))


def parse_old(header: bytes, more: Callable[[], bytes], *, subject: str) -> tuple[int, array[int]]:
    """The real size and map of an old GNU sparse member; `more` gives the blocks that follow its header."""
    size = fields.number(header[_REAL_SIZE], subject=subject, what="a real size")
    pairs: array[int] = array("q")
    ended = _slots(pairs, header[_FIRST_SLOT:], _IN_HEADER, subject)
    extended = header[_EXTENDED]
    while extended:
        block = more()
        if ended:
            raise DocumentError(subject, "expected full sparse slots before an extension, got unused ones")
        ended = _slots(pairs, block, _IN_EXTENSION, subject)
        extended = block[_EXTENSION_EXTENDED]
    return size, pairs


def _slots(pairs: array[int], data: bytes, count: int, subject: str) -> bool:
    """Append the slots that are used; whether there was one that is not."""
    for at in range(0, count * _SLOT, _SLOT):
        if data[at] == 0:
            return True
        offset = fields.number(data[at : at + 12], subject=subject, what="a sparse offset")
        length = fields.number(data[at + 12 : at + 24], subject=subject, what="a sparse length")
        add(pairs, offset, length, subject=subject)
    return False


def format_old(ranges: Ranges, size: int) -> tuple[bytes, Iterator[bytes]]:
    """What stands in a header from its 386th byte on, and the blocks that follow it."""
    slots = [_slot(*row) for row in ranges[:_IN_HEADER].tolist()]
    head = b"".join(slots).ljust(_IN_HEADER * _SLOT, b"\0")
    head += bytes([len(ranges) > _IN_HEADER]) + fields.format_number(size, 12)

    def extensions() -> Iterator[bytes]:
        for at in range(_IN_HEADER, len(ranges), _IN_EXTENSION):
            block = b"".join(_slot(*row) for row in ranges[at : at + _IN_EXTENSION].tolist())
            extended = bytes([at + _IN_EXTENSION < len(ranges)])
            yield (block.ljust(_EXTENSION_EXTENDED, b"\0") + extended).ljust(BLOCK, b"\0")

    return head, extensions()


def _slot(offset: int, length: int) -> bytes:
    return fields.format_number(offset, 12) + fields.format_number(length, 12)


def rounded(extents: Ranges, size: int) -> Ranges:
    """The map that the real tools write for these extents: in whole blocks, joined where they touch, with an empty
    range at the end of a file that ends in a hole.
    """
    starts = extents[:, 0] // BLOCK * BLOCK
    ends = np.minimum(-(-extents.sum(axis=1) // BLOCK) * BLOCK, size)
    first = np.ones(len(starts), np.bool_)
    first[1:] = starts[1:] > ends[:-1]
    last = np.roll(first, -1)
    ranges = np.stack([starts[first], ends[last] - starts[first]], axis=1)
    if not len(ranges) or int(ends[-1]) < size:
        ranges = np.concatenate([ranges, np.array([[size, 0]], np.int64)])
    return ranges


def within_header(ranges: Ranges) -> Ranges:
    """A map that needs no block after the header: `ranges`, joined over all but the largest holes."""
    if len(ranges) <= _IN_HEADER:
        return ranges
    starts, ends = ranges[:, 0], ranges.sum(axis=1)
    cuts = np.sort(np.argsort(ends[:-1] - starts[1:], kind="stable")[: _IN_HEADER - 1])
    first, last = starts[np.concatenate([[0], cuts + 1])], ends[np.concatenate([cuts, [-1]])]
    return np.stack([first, last - first], axis=1)
