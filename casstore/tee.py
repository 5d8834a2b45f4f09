"""Digests of a disk's content, computed from what a capture reads anyway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from casstore.disk import Extent
from casstore.integrity import ContentHasher, hasher


class Tee:
    """A scan.Tap that hashes. `algorithms` are spellings of integrity.ALGORITHMS."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        self._wanted = tuple(algorithms)
        self._hashers: dict[str, ContentHasher] = {}
        self._extents: Sequence[Extent] | None = None
        self._next = 0  # which extent the next bytes are of, or before

    def begin(self, size: int | None, extents: Sequence[Extent] | None) -> None:
        """See scan.Tap. Without a size nothing can be computed, and `sparse` only where the extents are known."""
        self._extents, self._next = extents, 0
        able = () if size is None else [name for name in self._wanted if extents is not None or name != "sparse"]
        self._hashers = {name: hasher(name, size or 0) for name in able}

    def __call__(self, offset: int, data: memoryview) -> None:
        if not self._hashers or not data:
            return
        if self._extents is None:
            self._begin(offset, len(data))
            self._feed(data)
            return
        end = offset + len(data)
        while self._next < len(self._extents) and self._extents[self._next][0] < end:
            start, length = self._extents[self._next]
            if start >= offset:
                self._begin(start, length)
            self._feed(data[max(start - offset, 0) : start + length - offset])
            if start + length > end:
                return
            self._next += 1

    def _begin(self, offset: int, length: int) -> None:
        for each in self._hashers.values():
            each.begin_extent(offset, length)

    def _feed(self, data: memoryview) -> None:
        for each in self._hashers.values():
            each.update(data)

    def digests(self) -> dict[str, str]:
        """Those that could be computed, as recorded, by spelling. Call it once, at the end."""
        return {name: each.finish() for name, each in self._hashers.items()}
