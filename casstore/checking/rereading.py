"""Reading stored blobs again, to see whether they are still what their digests say: all of them, or a part at a time.

They are read in the order of their digests. Whoever reads only a part begins after the digest at which the last one
ended, and goes round: so parts that are read now and then come past everything.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from casstore import durable
from casstore.content import Fetcher
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CasstoreError, StorageError
from casstore.layout import read_file
from casstore.oci import Descriptor
from casstore.pool import default_workers, ordered_map
from casstore.progress import Meter
from casstore.streams import read_through

_POSITION = "check-position"
_AHEAD = 2  # blobs per worker


@dataclass(frozen=True, slots=True)
class ReadData:
    """Which blobs to read: all, or one of the three parts; and for how long."""

    part: tuple[int, int] | None = None
    """(n, t): the n-th of t parts by digest; n from 1 to t."""
    share: float | None = None
    """A part of all bytes, more than 0 and at most 1."""
    size: int | None = None
    """Bytes."""
    max_duration: float | None = None
    """Seconds after which no further blob is begun."""
    only: frozenset[Digest] | None = None
    """None of the others."""

    @property
    def is_continued(self) -> bool:
        """Whether it begins where the last one ended."""
        return (self.share, self.size, self.max_duration) != (None, None, None)

    def choose(self, blobs: Sequence[Descriptor], position: str) -> list[Descriptor]:
        """What to read of `blobs`, in order; `position` is the hexadecimal digest that was read last, or nothing."""
        chosen = sorted(blobs, key=lambda blob: blob.digest)
        if self.only is not None:
            chosen = [blob for blob in chosen if blob.digest in self.only]
        if self.part is not None:
            n, t = self.part
            chosen = [blob for blob in chosen if int(blob.digest.hex[:16], 16) % t == n - 1]
        if self.is_continued:
            after = [blob for blob in chosen if blob.digest.hex > position]
            chosen = after + chosen[: len(chosen) - len(after)]
        if self.share is None and self.size is None:
            return chosen
        most = self.size if self.size is not None else (self.share or 0) * sum(blob.size for blob in chosen)
        total = 0
        for count, blob in enumerate(chosen):
            if count and total >= most:
                return chosen[:count]
            total += blob.size
        return chosen


@dataclass(frozen=True, slots=True)
class Reread:
    """What came of reading one blob."""

    blob: Descriptor
    error: Exception | None
    """A CasstoreError, or the file system's OSError."""


def reread(
    blobs: Fetcher,
    chosen: Sequence[Descriptor],
    *,
    max_duration: float | None,
    workers: int,
    meter: Meter,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Reread]:
    """Read the chosen blobs, several at a time; ends early after `max_duration` seconds."""
    end = None if max_duration is None else clock() + max_duration
    workers = workers or default_workers()
    stopping = threading.Event()

    def read(blob: Descriptor) -> Reread:
        def tell(count: int) -> None:
            meter.add(count)
            if stopping.is_set():
                raise _Stopped

        try:
            read_through(blobs, blob, tell)
        except (CasstoreError, OSError) as error:
            return Reread(blob, error)
        return Reread(blob, None)

    def due() -> Iterator[Descriptor]:
        for blob in chosen:
            if end is not None and clock() >= end:
                return
            yield blob

    with ThreadPoolExecutor(workers, "check") as pool:
        try:
            yield from ordered_map(pool, read, due(), ahead=_AHEAD * workers)
        except BaseException:
            stopping.set()
            raise


class _Stopped(Exception):
    """Whoever wanted it has gone."""


class Position:
    """The digest that was read last, kept in the directory `cache`; None keeps it nowhere. It may be lost."""

    def __init__(self, cache: str | None) -> None:
        self._cache = cache

    def load(self) -> str:
        """Its hexadecimal digits; nothing where none is known."""
        if self._cache is not None:
            with contextlib.suppress(CasstoreError, UnicodeDecodeError):
                text = (read_file(os.path.join(self._cache, _POSITION), limit=100) or b"").decode("ascii")
                return text if len(text) == 64 else ""
        return ""

    def save(self, hex_: str) -> bool:
        """Keep it; False where that cannot be done."""
        if self._cache is not None:
            with contextlib.suppress(StorageError, OSError):
                durable.make_part(self._cache)
                path = os.path.join(self._cache, _POSITION)
                durable.replace_file(path, hex_.encode(), mode=0o644, durability=Durability.NONE)
                return True
        return False
