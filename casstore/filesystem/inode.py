"""Inodes: what a file is, besides its name and its content."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from casstore.errors import UnreadableFilesystem
from casstore.filesystem.superblock import Superblock

MAPPING_SIZE: Final = 60
"""Bytes in an inode that say where its content is, or are its content."""
LONGEST_LINK: Final = 4096

_OLD_SIZE: Final = 128
_HEAD: Final = struct.Struct("<HHIIIIIHHII")  # mode .. flags
_MAPPING_AT: Final = 40
_ENCRYPTED, _EXTENTS, _INLINE = 0x800, 0x80000, 0x10000000
_XATTR_MAGIC: Final = 0xEA020000
_XATTR_ENTRY: Final = struct.Struct("<BBHIII")  # name length, name index, value offset, value inode, size, hash
_SYSTEM: Final = 7
_NS: Final = 1_000_000_000


class Kind(Enum):
    """What a file is; as text in words, as `block device`."""

    FILE = stat.S_IFREG
    DIRECTORY = stat.S_IFDIR
    SYMLINK = stat.S_IFLNK
    CHARACTER_DEVICE = stat.S_IFCHR
    BLOCK_DEVICE = stat.S_IFBLK
    FIFO = stat.S_IFIFO
    SOCKET = stat.S_IFSOCK

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A file, a directory, or anything else that a name can lead to."""

    inode: int
    kind: Kind
    mode: int
    """Permissions, with set-uid, set-gid and sticky."""
    uid: int
    gid: int
    links: int
    size: int
    """Of its content, in bytes."""
    mtime_ns: int
    """Since 1970, UTC."""
    is_encrypted: bool
    """By the file system (fscrypt): content, names and targets cannot be read."""
    has_extents: bool = field(repr=False)
    mapping: bytes = field(repr=False)
    """MAPPING_SIZE bytes."""
    inline: bytes | None = field(repr=False)
    """The content, where it is in the inode."""


def parse_inode(number: int, raw: bytes, superblock: Superblock) -> Node:
    """Read an inode from its bytes.

    Raises:
        UnreadableFilesystem: it is not in use, or damaged.
    """
    subject = f"{superblock.subject}: inode {number}"
    mode, uid, size, _, _, mtime, _, gid, links, _, flags = _HEAD.unpack_from(raw)
    try:
        kind = Kind(stat.S_IFMT(mode))
    except ValueError:
        raise UnreadableFilesystem(
            f"{subject}: expected a file of a known kind, got {mode:#o}; it is damaged"
        ) from None
    uid_high, gid_high = struct.unpack_from("<HH", raw, 120)
    if kind is Kind.FILE or (kind is Kind.DIRECTORY and superblock.large_directories):
        size |= int(struct.unpack_from("<I", raw, 108)[0]) << 32
    if size >= 1 << 63:
        raise UnreadableFilesystem(f"{subject}: expected less than 2 ** 63 bytes, got {size}; it is damaged")
    mapping = raw[_MAPPING_AT : _MAPPING_AT + MAPPING_SIZE]
    extra = 0
    if len(raw) > _OLD_SIZE:
        extra = int(struct.unpack_from("<H", raw, _OLD_SIZE)[0])
        if extra > len(raw) - _OLD_SIZE:
            raise UnreadableFilesystem(f"{subject}: expected {len(raw)} bytes, got {_OLD_SIZE + extra}; it is damaged")
    seconds = mtime - (1 << 32) if mtime >= 1 << 31 else mtime
    nanoseconds = 0
    if extra >= 12:
        more = int(struct.unpack_from("<I", raw, 136)[0])
        seconds, nanoseconds = seconds + ((more & 3) << 32), more >> 2
    inline = None
    if flags & _INLINE:
        inline = _inline(mapping, raw, extra, subject)
        if kind is not Kind.DIRECTORY:
            inline = _exactly(inline, size, subject)
    elif kind is Kind.SYMLINK and size < MAPPING_SIZE and not flags & (_EXTENTS | _ENCRYPTED):
        inline = mapping[:size]
    return Node(
        inode=number,
        kind=kind,
        mode=stat.S_IMODE(mode),
        uid=uid | uid_high << 16,
        gid=gid | gid_high << 16,
        links=links,
        size=size,
        mtime_ns=seconds * _NS + nanoseconds,
        is_encrypted=bool(flags & _ENCRYPTED),
        has_extents=bool(flags & _EXTENTS),
        mapping=mapping,
        inline=inline,
    )


def _inline(mapping: bytes, raw: bytes, extra: int, subject: str) -> bytes:
    """The content that an inode holds: in place of the mapping, and what is longer in the attribute `system.data`."""
    start = _OLD_SIZE + extra
    if len(raw) < start + 4 or struct.unpack_from("<I", raw, start)[0] != _XATTR_MAGIC:
        return mapping
    base = at = start + 4
    while at + 4 <= len(raw) and raw[at : at + 4] != bytes(4):
        if at + _XATTR_ENTRY.size > len(raw):
            break
        length, index, offset, value_inode, size, _ = _XATTR_ENTRY.unpack_from(raw, at)
        name = raw[at + _XATTR_ENTRY.size : at + _XATTR_ENTRY.size + length]
        if (index, name) == (_SYSTEM, b"data") and not value_inode:
            if base + offset + size > len(raw):
                raise UnreadableFilesystem(f"{subject}: expected its content in it, got less; it is damaged")
            return mapping + raw[base + offset : base + offset + size]
        at += (_XATTR_ENTRY.size + length + 3) & ~3
    return mapping


def _exactly(data: bytes, size: int, subject: str) -> bytes:
    if len(data) < size:
        raise UnreadableFilesystem(f"{subject}: expected {size} bytes in it, got {len(data)}; it is damaged")
    return data[:size]
