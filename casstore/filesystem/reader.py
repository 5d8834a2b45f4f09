"""Where the bytes of a disk come from."""

from __future__ import annotations

import os
from typing import Protocol

from casstore.disk import DiskSource
from casstore.errors import SourceError, UsageError


class DiskReader(Protocol):
    """A disk that can be read anywhere."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read_at(self, offset: int, length: int, /) -> bytes:
        """The `length` bytes from `offset`, all of which are within the size.

        Raises:
            CasstoreError: they cannot be read.
        """
        ...


class FileReader:
    """An open file or block device of `size` bytes. Its descriptor is the caller's, and may be read only."""

    def __init__(self, fd: int, size: int, *, subject: str) -> None:
        self.size: int = size
        self._fd, self._subject = fd, subject

    def read_at(self, offset: int, length: int, /) -> bytes:
        """See DiskReader. Raises SourceError."""
        parts, at, end = [], offset, offset + length
        while at < end:
            try:
                part = os.pread(self._fd, end - at, at)
            except OSError as error:
                raise SourceError(f"{self._subject}: reading at byte {at}: {error.strerror}") from error
            if not part:
                raise SourceError(f"{self._subject}: expected {end} bytes, got {at}: it was truncated")
            parts.append(part)
            at += len(part)
        return b"".join(parts)


class SourceReader:
    """A disk that is about to be captured: the very bytes that the capture reads, or the capture will say otherwise.

    Of a disk with a clone it is the clone; any other is compared, when the capture ends, with what it was when it was
    opened.

    Raises:
        UsageError: the disk comes through a pipe, which has no other end to begin at.
    """

    def __init__(self, source: DiskSource) -> None:
        if source.in_order or source.size is None:
            raise UsageError(f"{source.subject}: expected a file or block device, got a pipe")
        self.size: int = source.size
        self._source = source

    def read_at(self, offset: int, length: int, /) -> bytes:
        """See DiskReader. Raises SourceError."""
        buffer = bytearray(length)
        self._source.read_into(memoryview(buffer), offset)
        return bytes(buffer)
