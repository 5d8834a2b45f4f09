"""File systems on disks that are searched for credentials: small ext4 images, with some bytes changed."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from typing import NamedTuple

import zstandard

from casstore.errors import CasstoreError, NotFound, UnreadableFilesystem
from casstore.filesystem.bounds import Bounds
from casstore.filesystem.directory import Entry
from casstore.filesystem.ext import ExtFilesystem
from casstore.filesystem.inode import Kind
from casstore.secretpatterns import PATTERNS, candidates, is_passed_over
from casstore.secrets import scan
from casstore.spec import KIB, MIB
from tests.fuzz.draw import Draw
from tests.fuzz.target import ROOT, Target

_IMAGES = ("plain", "old", "sums")
"""With inline data; with block maps instead of extents; with checksums and a journal."""
_LINE = 64
_LONG = 16 * KIB
_BOUNDS = Bounds(read_bytes=32 * MIB, entries=5000, directories=500, depth=32, extents=20_000, seconds=8)


class _Image(NamedTuple):
    data: bytes
    lines: list[int]
    """Where there is something: offsets of 64 bytes that are not all zero."""


@cache
def _image(name: str) -> _Image:
    packed = (ROOT / "fixtures" / "disk" / f"fuzz-{name}.ext4.zst").read_bytes()
    data = zstandard.ZstdDecompressor().decompress(packed)
    return _Image(data, [at for at in range(0, len(data), _LINE) if any(data[at : at + _LINE])])


class _Patched:
    """A DiskReader of an image with other bytes at some places."""

    def __init__(self, data: bytes, patches: dict[int, bytes]) -> None:
        self._data, self._patches, self._places = data, patches, sorted(patches)
        self.size = len(data)

    def read_at(self, offset: int, length: int, /) -> bytes:
        assert 0 <= offset <= offset + length <= self.size, "a read outside of the disk"
        found = bytearray(self._data[offset : offset + length])
        for at in self._places[: bisect_right(self._places, offset + length)]:
            start = max(at, offset)
            part = self._patches[at][start - at : offset + length - at]
            found[start - offset : start - offset + len(part)] = part
        return bytes(found)


def _patched(data: bytes) -> _Patched:
    """A byte: the image; then patches: u16 which of its lines, where in it, how many bytes, these."""
    draw = Draw(data)
    image = _image(draw.one_of(_IMAGES))
    patches = {}
    for _ in range(16):
        line, within, length = draw.number(0xFFFF), draw.number(_LINE - 1), draw.number(8)
        at = image.lines[line % len(image.lines)] + within
        part = draw.take(min(length, len(image.data) - at))
        if part:
            patches[at] = part
    return _Patched(image.data, patches)


def _read(data: bytes) -> ExtFilesystem:
    files = ExtFilesystem(_patched(data), subject="disk", bounds=_BOUNDS)
    assert files.root.kind is Kind.DIRECTORY
    return files


def _check(files: ExtFilesystem) -> None:
    """Damage further inside spoils no more than what is there."""
    scanned = scan(files, subject="disk")
    assert scanned.not_scanned is None or scanned.not_scanned.isprintable()
    damage: list[CasstoreError] = []
    try:
        for path, entry in files.walk(unreadable=damage.append):
            _check_entry(path, entry)
            try:
                _look(files, path, entry)
            except (UnreadableFilesystem, NotFound) as error:
                damage.append(error)
    except UnreadableFilesystem as error:  # its bounds
        damage.append(error)
    assert all(str(error).isprintable() and len(str(error)) < 2000 for error in damage)


def _check_entry(path: bytes, entry: Entry) -> None:
    assert 1 <= len(entry.name) <= 255
    assert not {b"", b".", b".."} & set(path[1:].split(b"/"))
    assert b"\0" not in path


def _look(files: ExtFilesystem, path: bytes, entry: Entry) -> None:
    node = files.node(entry.inode)
    assert node.size >= 0
    if node.kind is Kind.SYMLINK:
        assert len(files.readlink(node)) == node.size
        files.find(path)
    elif node.kind is Kind.FILE and not node.is_encrypted:
        assert len(files.read(node, 0, 64 * KIB)) == min(node.size, 64 * KIB)
        assert len(files.read(node, max(node.size - 10, 0), 100)) <= 10
        at = 0
        for offset, disk, length in files.extents(node):
            assert at <= offset < offset + length <= node.size
            assert disk is None or disk >= 0
            at = offset + length


def _content(data: bytes) -> None:
    """A line: the file's path; then a part of its content, which is that, over and over."""
    draw = Draw(data)
    path, part = b"/" + draw.line(), draw.rest()
    content = (part * (_LONG // max(len(part), 1) + 1))[:_LONG]
    is_passed_over(path)
    for pattern in (*candidates(path), *PATTERNS):
        pattern.found_in(content)
        pattern.found_in(part)


TARGETS = (
    Target(
        name="secrets",
        read=_content,
        modules=("secretpatterns",),
        words=(
            *(mark for pattern in PATTERNS for mark in pattern.marks),
            b"password",
            b"=",
            b": ",
            b"token",
            b"\n",
            b"://",
        ),
        max_len=512,
    ),
    Target(
        name="filesystem",
        read=_read,
        refuses=(UnreadableFilesystem,),
        check=_check,
        modules=tuple(
            f"filesystem.{name}" for name in ("ext", "superblock", "inode", "mapping", "directory", "journal")
        ),
        max_len=256,
    ),
)
