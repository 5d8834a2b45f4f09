"""Whether an archive is compressed is seen from its first bytes, never from its name.

zstd's own reader says nothing of a stream that ends in the middle of a frame, or of what comes after one. So the
frames and blocks (RFC 8878, section 3.1) are walked here, and only what is complete is passed on to be decompressed.
Several frames after one another, and skippable ones between them, are as good as one: parallel compressors write so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import IO, Final, cast

import zstandard

from casstore.errors import DocumentError, UnsupportedVersion
from casstore.frame import Buffer
from casstore.spec import KIB
from casstore.tar.limits import MAX_WINDOW, READ
from casstore.tar.stream import Buffered, Read

LEVEL: Final = 1
"""zstd's. Level 3, which microsandbox writes with, takes twice as long for an eighth fewer bytes."""

Write = Callable[[Buffer], object]
"""Takes all of the bytes that it is given."""

_FRAME: Final = b"\x28\xb5\x2f\xfd"
_BLOCK_MAX: Final = 128 * KIB
_FOREIGN: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_RLE, _RESERVED = 1, 3


def plain(read: Read, *, subject: str) -> Read:
    """The plain bytes of a stream that is compressed with zstd, or not at all.

    Raises (also when read):
        UnsupportedVersion: another compression; a dictionary, or a window of more than 64 MiB.
        DocumentError: it is damaged, ends too early, or goes on after its last frame.
    """
    stream = Buffered(read)
    magic = stream.peek(6)
    for head, name in _FOREIGN.items():
        if magic.startswith(head):
            raise UnsupportedVersion(subject, f"expected a tar archive, plain or compressed with zstd, got {name}")
    if not _starts_frame(magic[:4]):
        return stream.some
    walker = cast("IO[bytes]", _Walker(stream, subject))  # it needs `read` alone
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(walker, read_across_frames=True)

    def decompressed(size: int) -> bytes:
        try:
            return reader.read(size)
        except zstandard.ZstdError as error:
            raise DocumentError(subject, f"expected zstd frames: {error}") from None

    return decompressed


def _starts_frame(magic: bytes) -> bool:
    return magic == _FRAME or _is_skippable(magic)


def _is_skippable(magic: bytes) -> bool:
    return len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5


class _Walker:
    """A compressed stream as zstandard reads it: whole headers and blocks, and no end but after a frame."""

    def __init__(self, stream: Buffered, subject: str) -> None:
        self._stream, self._subject = stream, subject
        self._pieces = self._frames()

    def read(self, size: int) -> bytes:
        """Some of the next bytes: a few blocks."""
        got = 0
        parts = []
        while got < min(size, READ) and (part := next(self._pieces, b"")):
            parts.append(part)
            got += len(part)
        return b"".join(parts)

    def _frames(self) -> Iterator[bytes]:
        while magic := self._stream.peek(4):
            if _is_skippable(magic):
                (length,) = struct.unpack("<I", self._take(8)[4:])
                while length:
                    length -= len(self._take(min(length, READ)))
                continue
            if magic != _FRAME:
                raise DocumentError(self._subject, f"expected another zstd frame or the end, got {magic.hex()}")
            yield from self._frame()

    def _frame(self) -> Iterator[bytes]:
        head = self._take(5)
        descriptor = head[4]
        single = descriptor >> 5 & 1
        size_length = (single, 2, 4, 8)[descriptor >> 6]
        rest = self._take((1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_length)
        self._check(rest, descriptor)
        yield head + rest
        last = 0
        while not last:
            header = self._take(3)
            value = int.from_bytes(header, "little")
            last, kind, length = value & 1, value >> 1 & 3, value >> 3
            if kind == _RESERVED or length > _BLOCK_MAX:
                raise DocumentError(self._subject, f"expected a zstd block of at most {_BLOCK_MAX} bytes, got {length}")
            yield header + self._take(1 if kind == _RLE else length)
        if descriptor >> 2 & 1:
            yield self._take(4)

    def _check(self, rest: bytes, descriptor: int) -> None:
        """Refuse what would take too much memory, before it is passed on."""
        dictionary = (0, 1, 2, 4)[descriptor & 3]
        if descriptor >> 5 & 1:
            window = int.from_bytes(rest[dictionary:], "little") + (256 if descriptor >> 6 == 1 else 0)
        else:
            base = 1 << 10 + (rest[0] >> 3)
            window = base + base // 8 * (rest[0] & 7)
            rest = rest[1:]
        if int.from_bytes(rest[:dictionary], "little"):
            raise UnsupportedVersion(self._subject, "expected a zstd frame without a dictionary")
        if window > MAX_WINDOW:
            problem = f"expected a zstd window of at most {MAX_WINDOW} bytes, got {window}; decompress it with zstd -d"
            raise UnsupportedVersion(self._subject, problem)

    def _take(self, size: int) -> bytes:
        data = self._stream.take(size)
        if len(data) < size:
            raise DocumentError(self._subject, "expected the rest of a zstd frame, got the end: it is truncated")
        return data


class Output:
    """Where an archive is written to; compressed in one zstd frame, or as it is. Close it, or nothing is complete."""

    def __init__(self, write: Write, *, compress: bool, workers: int) -> None:
        self._raw = write
        self._chunker = None
        if compress:
            # With one thread of its own or many the result is the same; with none it would be another.
            compressor = zstandard.ZstdCompressor(level=LEVEL, threads=max(workers, 1))
            self._chunker = compressor.chunker(chunk_size=READ)

    def write(self, data: Buffer) -> None:
        """The next plain bytes."""
        if self._chunker is None:
            self._raw(data)
            return
        for part in self._chunker.compress(data):
            self._raw(part)

    def close(self) -> None:
        """Write what is left."""
        if self._chunker is not None:
            for part in self._chunker.finish():  # type: ignore[no-untyped-call]
                self._raw(part)
