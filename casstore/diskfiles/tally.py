"""What was copied, counted on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from casstore.progress import Meter

_MOST_TOLD: Final = 1000

SECOND: Final = "a second file of one name"
"""What is said of one that was left out for that."""


class Skipped(NamedTuple):
    """Something on the disk that was not copied."""

    path: bytes
    what: str
    """As "fifo", or "block device"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedOut:
    """What was copied."""

    path: str
    """Where to; "-" for an archive."""
    files: int
    """Regular files, each counted under one of its names."""
    directories: int
    symlinks: int
    links: int
    """Further names of files that were copied already."""
    content_bytes: int
    """Bytes that were written as content."""
    skipped: int
    """What was left out: devices, FIFOs, sockets, and second files of one name."""
    told: tuple[Skipped, ...]
    """The first thousand of these."""


class Tally:
    """A copy's counts so far."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._counts: Counter[str] = Counter()
        self._told: list[Skipped] = []

    def add(self, what: Literal["files", "directories", "symlinks", "links"], count: int = 1) -> None:
        """So many more were copied."""
        self._counts[what] += count

    def content(self, length: int) -> None:
        """So many bytes of content were written."""
        self._counts["content_bytes"] += length
        self._meter.add(length)

    def skip(self, path: bytes, what: str) -> None:
        """Something is left out."""
        self._counts["skipped"] += 1
        if len(self._told) < _MOST_TOLD:
            self._told.append(Skipped(path, what))

    def copied(self, path: str) -> CopiedOut:
        """What they are at the end."""
        counts = self._counts
        return CopiedOut(
            path=path,
            files=counts["files"],
            directories=counts["directories"],
            symlinks=counts["symlinks"],
            links=counts["links"],
            content_bytes=counts["content_bytes"],
            skipped=counts["skipped"],
            told=tuple(self._told),
        )
