"""What an archive is read from: anything that gives its next bytes."""

from __future__ import annotations

import os
from collections.abc import Callable

from casstore.errors import SourceError
from casstore.tar.limits import READ

Read = Callable[[int], bytes]
"""At most so many bytes; b"" at the end."""


def reading(fd: int, subject: str) -> Read:
    """Reads an open file or pipe from where it stands.

    Raises (when called):
        SourceError: an I/O error.
    """

    def read(size: int) -> bytes:
        try:
            return os.read(fd, size)
        except OSError as error:
            raise SourceError(f"{subject}: reading: {error.strerror}") from error

    return read


class Buffered:
    """A stream that can be looked ahead in, and gives just as many bytes as are asked for."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._ahead = b""
        self._at = 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, which stay to be taken. For small sizes."""
        while len(self._ahead) - self._at < size:
            part = self._read(READ)
            if not part:
                break
            self._ahead = self._ahead[self._at :] + part
            self._at = 0
        return self._ahead[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end only."""
        parts = []
        while size > 0:
            part = self.some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def some(self, size: int) -> bytes:
        """At most `size` of the next bytes; b"" at the end."""
        if self._at < len(self._ahead):
            part = self._ahead[self._at : self._at + size]
            self._at += len(part)
            return part
        if size >= READ:
            return self._read(size)
        self._ahead, self._at = self._read(READ), 0
        part = self._ahead[:size]
        self._at = len(part)
        return part
