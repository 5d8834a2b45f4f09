"""How much work a disk may cost, whatever it says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from casstore.errors import UnreadableFilesystem
from casstore.spec import GIB

_READ: Final = 4 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that may be read of a file system while it is looked at; beyond is UnreadableFilesystem. They count for
    all that is done with one ExtFilesystem.
    """

    read_bytes: int = _READ
    """Bytes asked of the disk: metadata and content."""
    hole_bytes: int = 1 << 42
    """Zeros that are given out for holes, where a file is read as a whole."""
    entries: int = 10_000_000
    """Names in directories."""
    directories: int = 1_000_000
    depth: int = 256
    """Directories within each other."""
    extents: int = 10_000_000
    """Pieces that files lie in."""
    seconds: float = 600
    """Of the clock."""

    @classmethod
    def of_disk(cls, size: int) -> Self:
        """Those for a disk of `size` bytes: all of it may be read twice, for as long as that takes. More is asked only
        by a disk on which many files claim the same blocks.
        """
        return cls(read_bytes=_READ + 2 * size, seconds=math.inf)


class Budget:
    """What is left of the bounds."""

    def __init__(self, bounds: Bounds, subject: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.bounds: Bounds = bounds
        self._subject, self._clock = subject, clock
        self._bytes, self._entries, self._directories = bounds.read_bytes, bounds.entries, bounds.directories
        self._extents, self._holes = bounds.extents, bounds.hole_bytes
        self._end = clock() + bounds.seconds

    def read(self, length: int) -> None:
        """So many bytes are about to be read."""
        self._bytes -= length
        if self._bytes < 0:
            self._exceeded(f"{self.bounds.read_bytes} bytes to read")
        self._look_at_the_clock()

    def hole(self, length: int) -> None:
        """So many zeros are about to be given out."""
        self._holes -= length
        if self._holes < 0:
            self._exceeded(f"{self.bounds.hole_bytes} bytes of holes")
        self._look_at_the_clock()

    def entry(self) -> None:
        """A name was met."""
        self._entries -= 1
        if self._entries < 0:
            self._exceeded(f"{self.bounds.entries} names")
        self._look_at_the_clock()

    def extent(self) -> None:
        """A piece of a file was looked up."""
        self._extents -= 1
        if self._extents < 0:
            self._exceeded(f"{self.bounds.extents} pieces of files")
        self._look_at_the_clock()

    def directory(self, depth: int) -> None:
        """A directory is entered, `depth` of them below the root."""
        self._directories -= 1
        if self._directories < 0:
            self._exceeded(f"{self.bounds.directories} directories")
        if depth > self.bounds.depth:
            self._exceeded(f"{self.bounds.depth} directories within each other")

    def _look_at_the_clock(self) -> None:
        if self._clock() > self._end:
            self._exceeded(f"{self.bounds.seconds:g} seconds of work")

    def _exceeded(self, what: str) -> None:
        raise UnreadableFilesystem(f"{self._subject}: expected at most {what}, got more; look at it with other bounds")
