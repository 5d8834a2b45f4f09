"""Writes a tar archive: GNU headers, sparse members in the old GNU form, nothing that says who wrote it, or when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from casstore.errors import UsageError
from casstore.frame import Buffer
from casstore.tar import fields, sparse
from casstore.tar.compression import Write
from casstore.tar.limits import BLOCK
from casstore.tar.sparse import Ranges

_MODE: Final = b"0100644\0"
_NOBODY: Final = b"0000000\0"
_MAGIC: Final = b"ustar  \0"
_NAME: Final = 100


class TarWriter:
    """An archive being written. The same members give the same bytes."""

    def __init__(self, write: Write, *, mtime: int = 0) -> None:
        self._write, self._mtime = write, mtime

    def add(self, name: str, data: bytes) -> None:
        """Write a small file.

        Raises:
            UsageError: the name does not fit into a header.
        """
        self.stream(name, len(data), None, [data])

    def stream(self, name: str, size: int, ranges: Ranges | None, pieces: Iterable[Buffer]) -> None:
        """Write a file of `size` bytes, of which `pieces` are the `ranges` (None: all), one after the other.

        Raises:
            UsageError: the name does not fit into a header.
            ValueError: fewer or more bytes than that.
        """
        stored = size if ranges is None else int(ranges[:, 1].sum())
        left = stored
        for block in _headers(name, size, stored, ranges, self._mtime):
            self._write(block)
        for piece in pieces:
            left -= len(piece)
            self._write(piece)
        if left:
            raise ValueError(f"member {name}: {left} bytes too few")
        if stored % BLOCK:
            self._write(bytes(-stored % BLOCK))

    def close(self) -> None:
        """Write the end."""
        self._write(bytes(2 * BLOCK))


def _headers(name: str, size: int, stored: int, ranges: Ranges | None, mtime: int) -> Iterable[bytes]:
    encoded = name.encode()
    if len(encoded) > _NAME:
        raise UsageError(f"archive member {ascii(name)}: expected a name of at most {_NAME} bytes; rename the disk")
    sizes = fields.format_number(stored, 12) + fields.format_number(mtime, 12)
    kind, tail = b"0", b""
    extensions: Iterator[bytes] = iter(())
    if ranges is not None:
        kind = b"S"
        tail, extensions = sparse.format_old(ranges, size)
    head = encoded.ljust(_NAME, b"\0") + _MODE + _NOBODY + _NOBODY + sizes
    rest = (kind + bytes(100) + _MAGIC + bytes(64) + _NOBODY + _NOBODY).ljust(386 - 156, b"\0") + tail
    header = (head + b" " * 8 + rest).ljust(BLOCK, b"\0")
    yield head + b"%07o\0" % fields.checksum(header) + header[156:]
    yield from extensions
