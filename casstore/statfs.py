"""Which file system an open file is on."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import Final

NAMES: Final[Mapping[int, str]] = {  # f_type of statfs(2), linux/magic.h
    0xEF53: "ext4",  # ext2 and ext3 as well
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb",
    0x01021997: "9p",
    0x65735546: "fuse",
    0x00C36400: "ceph",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
}


def filesystem_name(fd: int) -> str:
    """One of NAMES; of others, `of type 0x...`, and `of type 0x0` where it cannot be found out."""
    buffer = ctypes.create_string_buffer(256)
    magic = 0
    if ctypes.CDLL(None).fstatfs(fd, buffer) == 0:
        # f_type is the first member, a long (on s390x an int): its low 32 bits are the magic number.
        magic = int(struct.unpack_from("l", buffer.raw)[0]) & 0xFFFFFFFF
    return NAMES.get(magic, f"of type 0x{magic:x}")
