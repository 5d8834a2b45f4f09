"""A hasher that works beside whoever feeds it: the sha256 of a disk takes longer than to compress and write it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from casstore.integrity import ContentHasher

_MOST_WAITING = 64
"""Pieces, of at most 1 MiB and mostly of some KiB."""


class Aside:
    """A ContentHasher that passes what it gets to another one, in a thread; a context manager that ends the thread.

    What is wrong is raised by a later call, or by `finish`. Pieces must not change.
    """

    def __init__(self, hasher: ContentHasher) -> None:
        self._hasher = hasher
        self._pool = ThreadPoolExecutor(1, "hash")
        self._waiting: deque[Future[None]] = deque()

    def begin_extent(self, offset: int, length: int) -> None:
        """See ContentHasher."""
        self._pass(lambda: self._hasher.begin_extent(offset, length))

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """See ContentHasher."""
        self._pass(lambda: self._hasher.update(data))

    def finish(self) -> str:
        """See ContentHasher."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._hasher.finish()

    def _pass(self, work: Callable[[], None]) -> None:
        self._waiting.append(self._pool.submit(work))
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
