"""Directories: blocks of records, each with a name and an inode. The index of a large one looks like free space."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from casstore.errors import UnreadableFilesystem
from casstore.filesystem.inode import MAPPING_SIZE, Kind

_RECORD: Final = struct.Struct("<IHBB")  # inode, length of the record, of the name, kind
_KINDS: Final = {
    1: Kind.FILE,
    2: Kind.DIRECTORY,
    3: Kind.CHARACTER_DEVICE,
    4: Kind.BLOCK_DEVICE,
    5: Kind.FIFO,
    6: Kind.SOCKET,
    7: Kind.SYMLINK,
}


class Entry(NamedTuple):
    """A name in a directory."""

    name: bytes
    """Without "/" and NUL, and neither "." nor ".."."""
    inode: int
    kind: Kind | None
    """What the directory says of it; None where it says nothing."""


def records(block: bytes, subject: str, *, has_filetype: bool) -> Iterator[Entry]:
    """The entries in one block of a directory.

    Raises:
        UnreadableFilesystem: it is damaged, or a name is none.
    """
    at, end = 0, len(block)
    while at + _RECORD.size <= end:
        inode, length, name_length, kind = _RECORD.unpack_from(block, at)
        if not has_filetype:
            name_length, kind = name_length | kind << 8, 0
        if length in (0, 0xFFFF) and end == 1 << 16:
            length = end
        elif end > 1 << 15:
            length = length & ~3 | (length & 3) << 16
        if length < _RECORD.size + name_length or length % 4 or at + length > end:
            raise _damaged(subject, f"a record within {end} bytes", f"{length} bytes at byte {at}")
        if inode:
            name = block[at + _RECORD.size : at + _RECORD.size + name_length]
            if not name or len(name) > 255 or b"/" in name or b"\0" in name:
                raise _damaged(subject, 'names of 1 to 255 bytes without "/" and NUL', ascii(name))
            if name not in (b".", b".."):
                yield Entry(name, inode, _KINDS.get(kind))
        at += length


def inline_records(content: bytes, subject: str, *, has_filetype: bool) -> Iterator[Entry]:
    """The entries of a directory that lies in its inode: behind the inode of its parent, and in the attribute."""
    yield from records(content[4:MAPPING_SIZE], subject, has_filetype=has_filetype)
    yield from records(content[MAPPING_SIZE:], subject, has_filetype=has_filetype)


def _damaged(subject: str, expected: str, got: str) -> UnreadableFilesystem:
    return UnreadableFilesystem(f"{subject}: expected {expected}, got {got}; the file system is damaged")
