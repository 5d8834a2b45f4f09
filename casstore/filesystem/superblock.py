"""The superblock of ext2, ext3 and ext4: what kind of file system it is, and where its group descriptors are."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Self

from casstore.errors import UnreadableFilesystem

OFFSET: Final = 1024
SIZE: Final = 1024
ROOT_INODE: Final = 2

_MAGIC: Final = 0xEF53
_MOST_BLOCK_BITS: Final = 16  # 64 KiB
_SPARSE_SUPER, _SPARSE_SUPER2 = 0x1, 0x200
_FILETYPE, _RECOVER, _META_BG, _64BIT, _LARGE_DIRECTORIES = 0x2, 0x4, 0x10, 0x80, 0x4000
_UNDERSTOOD: Final = {
    _FILETYPE: "filetype",
    _RECOVER: "needs_recovery",
    _META_BG: "meta_bg",
    0x40: "extent",
    _64BIT: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    0x400: "ea_inode",
    0x2000: "metadata_csum_seed",
    _LARGE_DIRECTORIES: "large_dir",
    0x8000: "inline_data",
    0x10000: "encrypt",
    0x20000: "casefold",
}
"""Features without which a reader must not go on. What only writers must know does not matter here."""
_OTHERS: Final = {0x1: "compression", 0x8: "journal_dev", 0x1000: "dirdata"}

_OTHER_KINDS: Final = (
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"XFSB", "XFS"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (0, b"hsqs", "squashfs"),
    (512, b"EFI PART", "a disk with partitions (GPT)"),
    (536, b"LABELONE", "an LVM volume"),
    (1024, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (510, b"\x55\xaa", "a disk with partitions, or FAT"),
)


def other_kind(head: bytes) -> str:
    """What a disk is that has no superblock of this family, as far as its first 2 KiB say."""
    if not any(head):
        return "zeros"
    return next((name for at, magic, name in _OTHER_KINDS if head[at : at + len(magic)] == magic), "something else")


@dataclass(frozen=True, slots=True)
class Superblock:
    """What of it matters to a reader, checked."""

    subject: str
    block_size: int
    blocks: int
    """Of the file system; the first is 0."""
    first_block: int
    """Of the first group."""
    blocks_per_group: int
    inodes: int
    """Their numbers go from 1 up to this."""
    inodes_per_group: int
    inode_size: int
    descriptor_size: int
    first_meta_group: int | None
    """The first block of descriptors that lies with its groups; None: all lie together."""
    backups: tuple[int, int] | None
    """The groups with a copy of the superblock, under sparse_super2."""
    sparse: bool
    """Only some groups have a copy of the superblock."""
    wide: bool
    """Block numbers have 64 bits."""
    has_filetype: bool
    large_directories: bool
    needs_recovery: bool
    journal_inode: int
    has_journal_device: bool

    @classmethod
    def parse(cls, raw: bytes, *, subject: str) -> Self:
        """Read the bytes of a superblock.

        Raises:
            UnreadableFilesystem: it is none, of an unknown kind, or contradicts itself.
        """
        if len(raw) != SIZE or _u16(raw, 56) != _MAGIC:
            raise UnreadableFilesystem(f"{subject}: expected ext2, ext3 or ext4, got something else")
        dynamic = _u32(raw, 76) > 0
        compatible, incompatible, read_only = struct.unpack_from("<III", raw, 92) if dynamic else (0, 0, 0)
        _require_understood(incompatible, subject)
        bits = 10 + _u32(raw, 24)
        if bits > _MOST_BLOCK_BITS:
            raise _damaged(subject, f"blocks of at most {1 << _MOST_BLOCK_BITS} bytes", f"2 ** {bits}")
        block_size, wide = 1 << bits, bool(incompatible & _64BIT)
        blocks = _u32(raw, 4) | (_u32(raw, 0x150) << 32 if wide else 0)
        first, per_group, inodes_per_group = _u32(raw, 20), _u32(raw, 32), _u32(raw, 40)
        if first > 1 or not first < blocks < 1 << 48:
            raise _damaged(subject, "blocks after the first", f"{blocks} of them, the first being {first}")
        if not 8 <= per_group <= 1 << 31 or not 1 <= inodes_per_group <= 8 * block_size:
            raise _damaged(subject, "groups of blocks and inodes", f"{per_group} blocks and {inodes_per_group} inodes")
        groups = -(-(blocks - first) // per_group)
        inodes = _u32(raw, 0)
        if not ROOT_INODE <= inodes <= groups * inodes_per_group:
            raise _damaged(subject, f"at most {groups * inodes_per_group} inodes", str(inodes))
        inode_size = _u16(raw, 88) if dynamic else 128
        descriptor_size = _u16(raw, 254) if wide else 32
        for what, size, least in (("inodes", inode_size, 128), ("descriptors", descriptor_size, 64 if wide else 32)):
            if not least <= size <= min(block_size, 1 << 15) or size & (size - 1):
                raise _damaged(subject, f"{what} of {least} bytes or more", f"{size}")
        return cls(
            subject=subject,
            block_size=block_size,
            blocks=blocks,
            first_block=first,
            blocks_per_group=per_group,
            inodes=inodes,
            inodes_per_group=inodes_per_group,
            inode_size=inode_size,
            descriptor_size=descriptor_size,
            first_meta_group=_u32(raw, 0x104) if incompatible & _META_BG else None,
            backups=(_u32(raw, 0x24C), _u32(raw, 0x250)) if compatible & _SPARSE_SUPER2 else None,
            sparse=bool(read_only & _SPARSE_SUPER),
            wide=wide,
            has_filetype=bool(incompatible & _FILETYPE),
            large_directories=bool(incompatible & _LARGE_DIRECTORIES),
            needs_recovery=bool(incompatible & _RECOVER),
            journal_inode=_u32(raw, 224),
            has_journal_device=_u32(raw, 228) != 0,
        )

    def descriptor_at(self, group: int) -> int:
        """Where on the disk the descriptor of a group is, in bytes."""
        in_a_block = self.block_size // self.descriptor_size
        number, index = divmod(group, in_a_block)
        own = OFFSET // self.block_size  # the block that this superblock is in
        if self.first_meta_group is None or number < self.first_meta_group:
            block = own + 1 + number
        else:
            first = number * in_a_block
            block = self.first_block + first * self.blocks_per_group + self._has_backup(first)
            if self.block_size == OFFSET and number == 0 and self.first_block == 0:
                block += 1  # the superblock is in block 1, and block 0 belongs to the group as well
        return block * self.block_size + index * self.descriptor_size

    def inode_table(self, descriptor: bytes) -> int:
        """The block in which the inodes of a group begin, by its descriptor."""
        return _u32(descriptor, 8) | (_u32(descriptor, 40) << 32 if self.wide else 0)

    def _has_backup(self, group: int) -> bool:
        """Whether a group begins with a superblock."""
        if group == 0:
            return True
        if self.backups is not None:
            return group in self.backups
        return not self.sparse or group == 1 or any(_is_power(group, of) for of in (3, 5, 7))


def _require_understood(incompatible: int, subject: str) -> None:
    unknown = [1 << bit for bit in range(32) if incompatible & 1 << bit and 1 << bit not in _UNDERSTOOD]
    if unknown:
        names = ", ".join(_OTHERS.get(feature, f"{feature:#x}") for feature in unknown)
        raise UnreadableFilesystem(f"{subject}: expected features of ext4 that are understood here, got {names}")


def _is_power(number: int, of: int) -> bool:
    power = of
    while power < number:
        power *= of
    return power == number


def _damaged(subject: str, expected: str, got: str) -> UnreadableFilesystem:
    return UnreadableFilesystem(f"{subject}: superblock: expected {expected}, got {got}; the file system is damaged")


def _u16(raw: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", raw, at)[0])


def _u32(raw: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", raw, at)[0])
