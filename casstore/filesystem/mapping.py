"""Where on the disk the bytes of a file are: by extents (ext4), or by lists of blocks (ext2 and ext3).

Both are trees. A place in a file is looked up from the root, which lies in the inode, down to a leaf: as deep as the
root says, and at most five steps. So whatever the blocks of a tree name, each other or themselves, a look-up ends.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

from casstore.errors import UnreadableFilesystem

ReadBlock = Callable[[int], bytes]
"""The bytes of a block of the file system, by its number."""

_EXTENT_MAGIC: Final = 0xF30A
_HEAD: Final = struct.Struct("<HHHH")  # magic, entries, most entries, depth; four bytes follow
_FIRST: Final = struct.Struct("<I8x")  # the block in the file that an entry of either kind begins with
_ENTRY: Final = struct.Struct("<IHHI")  # a leaf: block in the file, length, start (high), start (low)
_INDEX: Final = struct.Struct("<IIH")  # block in the file, child (low), child (high); two bytes follow
_SIZE: Final = 12  # of a head and of every entry
_DEEPEST: Final = 5
_UNWRITTEN: Final = 1 << 15  # a length above it is that of space without content
_MOST_BLOCKS: Final = 1 << 32  # of a file
_DIRECT: Final = 12


class Run(NamedTuple):
    """Blocks that follow each other, in the file and on the disk."""

    start: int | None
    """The first block on the disk; None for a hole."""
    length: int
    """At least 1."""


def by_extents(root: bytes, block: int, read: ReadBlock, subject: str) -> Run:
    """The run of a file that begins with its block `block`.

    Raises:
        UnreadableFilesystem: the tree is damaged.
    """
    if block >= _MOST_BLOCKS:
        raise _damaged(subject, f"at most {_MOST_BLOCKS} blocks", f"block {block}")
    node, depth, end = root, None, _MOST_BLOCKS
    while True:
        count, depth = _head(node, depth, subject)
        starts = [start for (start,) in _FIRST.iter_unpack(node[_SIZE : _SIZE * (count + 1)])]
        if starts != sorted(set(starts)):
            raise _damaged(subject, "extents in order", "others")
        following = bisect_right(starts, block)
        if following < count:
            end = min(end, starts[following])
        if following == 0:
            return Run(None, end - block)
        if depth == 0:
            start, length, high, low = _ENTRY.unpack_from(node, _SIZE * following)
            return _leaf(block - start, length, high << 32 | low, end - block)
        _, low, high = _INDEX.unpack_from(node, _SIZE * following)
        node = read(high << 32 | low)


def _head(node: bytes, above: int | None, subject: str) -> tuple[int, int]:
    """How many entries a node has, and how deep the tree is below it."""
    magic, count, most, depth = _HEAD.unpack_from(node)
    if magic != _EXTENT_MAGIC or count > most or _SIZE * (most + 1) > len(node):
        raise _damaged(subject, "a node of extents", f"{count} of {most} entries, marked {magic:#x}")
    if depth != above - 1 if above is not None else depth > _DEEPEST:
        raise _damaged(subject, f"extents {_DEEPEST if above is None else above - 1} levels deep", str(depth))
    return count, depth


def _leaf(skipped: int, length: int, start: int, left: int) -> Run:
    """What is left of an extent after `skipped` blocks of it, and at most `left` blocks of a hole after it."""
    unwritten = length > _UNWRITTEN
    length -= _UNWRITTEN if unwritten else 0
    if skipped >= length:
        return Run(None, left)
    return Run(None if unwritten else start + skipped, min(length - skipped, left))


def by_blocks(root: bytes, block: int, read: ReadBlock, subject: str, *, block_size: int) -> Run:
    """The same for a file whose inode lists its blocks: twelve of them, then a list, a list of lists, and of those.

    Raises:
        UnreadableFilesystem: the file has no such block.
    """
    numbers = struct.unpack("<15I", root)
    if block < _DIRECT:
        return _listed(numbers[:_DIRECT], block)
    place, in_a_list = block - _DIRECT, block_size // 4
    for levels in (1, 2, 3):
        span = in_a_list**levels
        if place < span:
            return _in_lists(numbers[_DIRECT + levels - 1], place, levels, in_a_list, read)
        place -= span
    raise _damaged(subject, "a block that lists can name", f"block {block}")


def _in_lists(number: int, place: int, levels: int, in_a_list: int, read: ReadBlock) -> Run:
    while True:
        span = in_a_list ** (levels - 1)
        if number == 0:
            return Run(None, span * in_a_list - place)
        numbers = struct.unpack(f"<{in_a_list}I", read(number))
        if levels == 1:
            return _listed(numbers, place)
        index, place = divmod(place, span)
        number, levels = numbers[index], levels - 1


def _listed(numbers: tuple[int, ...], at: int) -> Run:
    """The run that begins at a place of a list."""
    first, count = numbers[at], 1
    step = 1 if first else 0
    while at + count < len(numbers) and numbers[at + count] == first + count * step:
        count += 1
    return Run(first or None, count)


def _damaged(subject: str, expected: str, got: str) -> UnreadableFilesystem:
    return UnreadableFilesystem(f"{subject}: expected {expected}, got {got}; the file system is damaged")
