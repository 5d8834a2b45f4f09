"""PAX extended headers (POSIX.1-2001): records `LENGTH KEY=VALUE\\n` that override what a header says."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from casstore.errors import DocumentError, UnsupportedVersion
from casstore.tar import sparse
from casstore.tar.limits import BLOCK

_SPARSE = "GNU.sparse."
_MAX_DIGITS = 19  # of a number of less than 2^63
_MEANINGFUL = ("path", "size", _SPARSE)


class Records:
    """What the extended header of one member says, as far as it matters here."""

    def __init__(self, data: bytes = b"", *, subject: str = "") -> None:
        self._subject = subject
        self._values: dict[str, str] = {}
        self.pairs: array[int] = array("q")
        """The ranges of a sparse map of version 0.0."""
        offset = None
        for key, value in _parse(data, subject):
            if key == _SPARSE + "offset":
                offset = self._number(key, value)
            elif key == _SPARSE + "numbytes":
                if offset is None:
                    raise DocumentError(subject, "expected a sparse offset before its length")
                sparse.add(self.pairs, offset, self._number(key, value), subject=subject)
                offset = None
            else:
                self._values[key] = value

    @property
    def path(self) -> str | None:
        """The member's name."""
        return self._values.get(_SPARSE + "name", self._values.get("path"))

    @property
    def size(self) -> int | None:
        """The bytes that follow the header."""
        return self._optional("size")

    @property
    def is_sparse(self) -> bool:
        """Whether the member is sparse, in any of the versions."""
        return len(self.pairs) > 0 or any(key.startswith(_SPARSE) for key in self._values)

    @property
    def real_size(self) -> int | None:
        """The size of a sparse file with its holes."""
        found = self._optional(_SPARSE + "realsize")
        return self._optional(_SPARSE + "size") if found is None else found

    @property
    def map_follows(self) -> bool:
        """Whether the map stands before the member's bytes: version 1.0.

        Raises:
            UnsupportedVersion: a later version.
        """
        version = self._values.get(_SPARSE + "major", "0"), self._values.get(_SPARSE + "minor", "0")
        if version not in {("0", "0"), ("0", "1"), ("1", "0")}:
            raise UnsupportedVersion(self._subject, f"expected a sparse map of version 0.0, 0.1 or 1.0, got {version}")
        return version == ("1", "0")

    def map(self) -> array[int]:
        """The map of version 0.0 or 0.1."""
        text = self._values.get(_SPARSE + "map")
        if text is None:
            return self.pairs
        numbers = [self._number("map", word) for word in text.split(",")] if text else []
        if len(numbers) % 2:
            raise DocumentError(self._subject, "expected pairs of numbers in a sparse map")
        pairs: array[int] = array("q")
        for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
            sparse.add(pairs, offset, length, subject=self._subject)
        return pairs

    def _optional(self, key: str) -> int | None:
        value = self._values.get(key)
        return None if value is None else self._number(key, value)

    def _number(self, key: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS) or int(value) >= 1 << 63:
            raise DocumentError(self._subject, f"expected a number, got {ascii(value)[:40]}", at=f"PAX {ascii(key)}")
        return int(value)


def check_global(data: bytes, *, subject: str) -> None:
    """Raise DocumentError where a global header says something about the members that follow that matters here."""
    for key, _ in _parse(data, subject):
        if key.startswith(_MEANINGFUL):
            raise DocumentError(subject, f"expected a global header without {ascii(key)}")


def _parse(data: bytes, subject: str) -> list[tuple[str, str]]:
    records, at = [], 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space >= 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise DocumentError(subject, f"expected PAX records, got {ascii(data[at : at + 40])[1:]}")
        try:
            records.append((key.decode(), value.decode() if key.decode().startswith(_MEANINGFUL) else ""))
        except UnicodeDecodeError:
            raise DocumentError(subject, f"expected UTF-8, got {ascii(value[:100])[1:]}", at="PAX header") from None
        at = end
    return records


def read_map(take: Callable[[], bytes], *, subject: str) -> tuple[array[int], int]:
    """The map of version 1.0, from the member's first blocks, and how many bytes they are. `take` gives a block.

    Raises:
        DocumentError: it is malformed, or has too many ranges.
    """
    pairs: array[int] = array("q")
    numbers: list[int] = []
    left: int | None = None  # numbers still to come
    text, taken = b"", 0
    while left is None or left:
        line, newline, rest = text.partition(b"\n")
        if not newline:
            if len(text) > _MAX_DIGITS:
                break
            text += take()
            taken += BLOCK
            continue
        text = rest
        if not line.isdigit() or len(line) > _MAX_DIGITS:
            break
        if left is None:
            left = 2 * int(line)
            continue
        left -= 1
        numbers.append(int(line))
        if len(numbers) == 2:
            sparse.add(pairs, *numbers, subject=subject)
            numbers.clear()
    else:
        return pairs, taken
    raise DocumentError(subject, "expected decimal numbers in a sparse map")
