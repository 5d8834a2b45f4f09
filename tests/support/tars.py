"""Tar archives made by hand: what no tool would write, too."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import zstandard

from casstore.tar import compression
from casstore.tar.fields import checksum, format_number
from casstore.tar.reader import Member, TarReader

BLOCK = 512
END = bytes(2 * BLOCK)


def header(
    name: str | bytes,
    size: int | bytes,
    *,
    kind: bytes = b"0",
    sparse: bytes = b"",
    magic: bytes = b"ustar  \0",
    link: bytes = b"",
) -> bytes:
    """A header block with the right checksum. `sparse` stands from its 386th byte on."""
    encoded = name if isinstance(name, bytes) else name.encode()
    size_field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = encoded[:100].ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size_field + b"00000000000\0"
    rest = (kind + link.ljust(100, b"\0") + magic + bytes(64) + b"0000000\0" * 2).ljust(386 - 156, b"\0") + sparse
    block = (head + b" " * 8 + rest).ljust(BLOCK, b"\0")
    return head + b"%06o\0 " % checksum(block) + block[156:]


def padded(data: bytes) -> bytes:
    """Contents, filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def member(name: str | bytes, data: bytes = b"", *, kind: bytes = b"0", size: int | bytes | None = None) -> bytes:
    """A header and its contents."""
    return header(name, len(data) if size is None else size, kind=kind) + padded(data)


def slots(*ranges: tuple[int, int], size: int, extended: int = 0) -> bytes:
    """The map of an old GNU sparse member, as it stands in a header."""
    packed = b"".join(format_number(offset, 12) + format_number(length, 12) for offset, length in ranges)
    return packed.ljust(96, b"\0") + bytes([extended]) + format_number(size, 12)


def archive(*members: bytes, end: bytes = END) -> bytes:
    """Members, and the end."""
    return b"".join(members) + end


def of_files(files: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> bytes:
    """A plain archive of these files, in their order."""
    items = files.items() if isinstance(files, Mapping) else files
    return archive(*(member(name, data) for name, data in items))


def pax(**records: str) -> bytes:
    """A PAX extended header; `__` in a key stands for a dot."""
    text = b""
    for key, value in records.items():
        line = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(line)
        while len(str(length)) + len(line) != length:
            length = len(str(length)) + len(line)
        text += str(length).encode() + line
    return member("PaxHeaders/x", text, kind=b"x")


def reader(data: bytes) -> TarReader:
    """Reads an archive from memory."""
    return TarReader(compression.plain(io.BytesIO(data).read, subject="test.tar"), subject="test.tar")


def content(each: Member) -> bytes:
    """The bytes of a member's file, holes as zeros."""
    stored = b"".join(iter(each.read, b""))
    if each.ranges is None:
        return stored
    file = bytearray(each.size)
    at = 0
    for offset, length in each.ranges.tolist():
        file[offset : offset + length] = stored[at : at + length]
        at += length
    return bytes(file)


def files(data: bytes) -> dict[str, bytes]:
    """All files of an archive, read by casstore."""
    return {each.name: content(each) for each in reader(data) if not each.is_directory}


def unpacked(path: Path) -> list[tuple[str, bytes]]:
    """The stored members of an archive of Python's tarfile, compressed or not: to be changed, and packed again."""
    raw = path.read_bytes()
    if raw[:4] == b"\x28\xb5\x2f\xfd":
        raw = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read()
    with tarfile.open(fileobj=io.BytesIO(raw)) as opened:
        return [(each.name, opened.extractfile(each).read()) for each in opened if each.isreg()]  # type: ignore[union-attr]


def blocks_of(raw: bytes) -> Sequence[bytes]:
    """An archive's blocks."""
    return [raw[at : at + BLOCK] for at in range(0, len(raw), BLOCK)]
