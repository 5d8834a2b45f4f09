"""A disk that comes as a stream, whose size is known, and perhaps its extents: a member of an archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from casstore.disk import DiskSource, Extent
from casstore.errors import SourceError, UsageError
from casstore.spec import MAX_DISK

_ZEROS = memoryview(bytes(1 << 16))


class Readable(Protocol):
    """Gives stored bytes in order."""

    def read(self, size: int, /) -> bytes | memoryview:
        """The next bytes: at most `size`, none only at the end."""
        ...


class SequentialDisk(DiskSource):
    """A disk of `size` bytes whose stored bytes come from `reader`: those of its `extents`, which are in order,
    separate and not empty; all of them for None, and then the all-zero blocks are the holes. It can be captured once.
    """

    def __init__(self, reader: Readable, subject: str, size: int, extents: Sequence[Extent] | None = None) -> None:
        super().__init__(-1, subject, size, seekable=False)
        if not 0 <= size <= MAX_DISK:
            raise SourceError(f"{subject}: expected at most {MAX_DISK} bytes, got {size}")
        self._reader, self._known = reader, extents
        self._at = 0  # bytes of the disk that were read or passed over
        self._left: Iterator[Extent] = iter([(0, size)] if extents is None and size else extents or ())
        self._extent = next(self._left, (size, 0))
        self._rest = b""

    def fileno(self) -> int:
        """There is none."""
        raise UsageError(f"{self.subject}: expected a file, got a stream")

    def close(self) -> None:
        """Nothing to do: the reader is the caller's."""

    def holes_are_known(self) -> bool:
        """Whether its extents are known."""
        return self._known is not None

    def extents(self) -> Iterator[Extent]:
        """The extents, as they were given."""
        yield from self._known or ()

    def unwritten(self) -> list[Extent]:
        """None: what is preallocated is a hole in an archive."""
        return []

    def head(self, length: int = 4096) -> bytes:
        """Nothing: what kind of disk it is, its document says."""
        del length
        return b""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` with the disk's bytes from `offset`, which is not before where the last read ended.

        Raises:
            SourceError: the stream ended too early.
        """
        filled = 0
        while filled < len(buffer):
            at = offset + filled
            start, length = self._extent
            if at < start:
                end = min(start - offset, len(buffer))
                _clear(buffer[filled:end])
                filled = end
            elif at < start + length:
                end = min(start + length - offset, len(buffer))
                self._take(buffer[filled:end], at)
                filled = end
            elif length:
                self._extent = next(self._left, (self.size or 0, 0))
            else:
                _clear(buffer[filled:])
                filled = len(buffer)
        return filled

    def _take(self, buffer: memoryview, at: int) -> None:
        filled = 0
        while filled < len(buffer):
            part = self._reader.read(len(buffer) - filled)
            if not part:
                raise SourceError(f"{self.subject}: expected {self.size} bytes, got {at + filled}: its stream ended")
            buffer[filled : filled + len(part)] = part
            filled += len(part)

    def check_unchanged(self) -> None:
        """A stream does not change."""


def _clear(buffer: memoryview) -> None:
    for at in range(0, len(buffer), len(_ZEROS)):
        part = buffer[at : at + len(_ZEROS)]
        part[:] = _ZEROS[: len(part)]
