"""Values drawn from bytes: the same bytes give the same values, and any bytes give some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Takes an input apart from its front; at its end all numbers are 0, and there are no bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - min(self._at, len(self._data)))

    def number(self, most: int) -> int:
        """0 to `most`, from as few bytes as can say it."""
        width = (most.bit_length() + 7) // 8
        return int.from_bytes(self.take(width), "little") % (most + 1)

    def one_of(self, choices: Sequence[T]) -> T:
        """One of them; the first at the end."""
        return choices[self.number(len(choices) - 1)]

    def rarely(self) -> bool:
        """False most of the time, and at the end."""
        return self.number(255) > 240

    def some(self) -> bytes:
        """Up to 255 bytes."""
        return self.take(self.number(255))

    def line(self) -> bytes:
        """The bytes up to a line's end, which is taken as well."""
        found = self._data.find(b"\n", self._at)
        end = len(self._data) if found < 0 else found
        line = self._data[self._at : end]
        self._at = end + 1
        return line
