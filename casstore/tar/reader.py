"""Reads a tar archive member by member, as it comes."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from casstore.errors import DocumentError, UnsupportedVersion
from casstore.tar import fields, pax, sparse
from casstore.tar.limits import (
    BLOCK,
    MAX_ALL_HEADERS,
    MAX_ALL_RANGES,
    MAX_HEADERS,
    MAX_MEMBERS,
    MAX_NAME,
    MAX_PADDING,
    READ,
)
from casstore.tar.sparse import Ranges
from casstore.tar.stream import Buffered, Read

_ZERO = bytes(BLOCK)
_MAGIC = b"ustar"
_NO_TAR = "expected a tar archive, plain or compressed with zstd, got something else"
_FILE, _OLD_FILE, _DIRECTORY, _SPARSE = b"0", b"\0", b"5", b"S"
_PAX, _PAX_GLOBAL, _LONG_NAME = b"x", b"g", b"L"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
}


@dataclass(eq=False, slots=True)
class Member:
    """A file or directory of an archive. Its bytes can be read once, before the next member is asked for."""

    name: str
    """As it stands there; see names.safe_path."""
    is_directory: bool
    size: int
    """Bytes of the file, holes included."""
    stored: int
    """Bytes that are in the archive."""
    ranges: Ranges | None
    """Where these lie in the file, as the archive says it; None: the file is there as a whole."""
    _body: _Body = field(repr=False)

    @property
    def is_sparse(self) -> bool:
        """Whether only ranges of the file are in the archive."""
        return self.ranges is not None

    def read(self, size: int = READ) -> bytes:
        """At most `size` of the stored bytes; b"" at their end.

        Raises:
            DocumentError: the archive is truncated.
        """
        return self._body.read(size)


class _Body:
    """What is left of a member."""

    def __init__(self, stream: Buffered, stored: int, subject: str) -> None:
        self._stream, self._left, self._subject = stream, stored, subject
        self._padding = -stored % BLOCK

    def read(self, size: int) -> bytes:
        if not self._left:
            return b""
        data = self._stream.some(min(size, self._left))
        if not data:
            raise DocumentError(self._subject, f"expected {self._left} more bytes, got the end: it is truncated")
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Go to the next header; from then on there is nothing to read."""
        while self.read(READ):
            pass
        if len(self._stream.take(self._padding)) < self._padding:
            raise DocumentError(self._subject, "expected padding, got the end: it is truncated")
        self._padding = 0


class TarReader:
    """An iterator over the members of an archive, which `read` gives the plain bytes of.

    The end is two blocks of zeros; after it there may be more zeros, but nothing else.

    Raises (when iterated):
        DocumentError: the archive breaks the rules or is truncated; a name comes twice; there are too many members.
        UnsupportedVersion: a member that is no file or directory.
    """

    def __init__(self, read: Read, *, subject: str) -> None:
        self._stream, self._subject = Buffered(read), subject
        self._seen: set[bytes] = set()
        self._is_tar = False
        self._extended = 0  # extended headers, and their bytes
        self._extended_bytes = 0
        self._ranges = 0

    def __iter__(self) -> Iterator[Member]:
        extended: dict[bytes, bytes] = {}  # kind -> content of the extended headers of the next member
        while (header := self._header()) is not None:
            kind = header[156:157]
            if kind == _PAX_GLOBAL:
                pax.check_global(self._extra(header), subject=self._subject)
            elif kind in extended:  # some readers believe the first, others the last
                raise DocumentError(self._subject, f"expected one extended header {kind.decode()} of a member, got two")
            elif kind in {_PAX, _LONG_NAME}:
                extended[kind] = self._extra(header)
            else:
                member = self._extended_member(header, kind, extended)
                yield member
                member._body.skip()  # noqa: SLF001
                extended = {}
        if extended:
            raise DocumentError(self._subject, "expected a member after its extended header, got the end")
        self._end()

    def _extended_member(self, header: bytes, kind: bytes, extended: Mapping[bytes, bytes]) -> Member:
        records = pax.Records(extended.get(_PAX, b""), subject=self._subject)
        given = [] if records.path is None else [records.path]
        if _LONG_NAME in extended:
            given.append(fields.text(extended[_LONG_NAME], subject=self._subject))
        if len(given) > 1:
            raise DocumentError(
                self._subject, f"expected one name of a member, got {ascii(given[1])[:100]} and another"
            )
        name = given[0] if given else _name(header, subject=self._subject)
        return self._member(header, kind, name, records)

    def _member(self, header: bytes, kind: bytes, name: str, records: pax.Records) -> Member:
        told = f"{self._subject}: member {ascii(name)[1:-1][:100]}"
        self._admit(name, told)
        said = fields.number(header[124:136], subject=told, what="a size")
        stored = said if records.size is None else records.size
        if kind == _SPARSE:
            size, pairs = sparse.parse_old(header, self._block, subject=told)
            return self._sparse(name, size, stored, pairs, told)
        if kind == _DIRECTORY or (kind == _OLD_FILE and name.endswith("/")):
            if stored:
                raise DocumentError(told, f"expected a directory of 0 bytes, got {stored}")
            return Member(name, True, 0, 0, None, _Body(self._stream, 0, told))
        if kind == _FILE and name.endswith("/"):
            raise DocumentError(told, "expected a directory, for its name ends in /, got a file")
        if kind not in {_FILE, _OLD_FILE}:
            got = _REFUSED.get(kind, f"type {ascii(kind)[1:]}")
            raise UnsupportedVersion(told, f"expected a regular file or directory, got {got}")
        if not records.is_sparse:
            return Member(name, False, stored, stored, None, _Body(self._stream, stored, told))
        if records.real_size is None:
            raise DocumentError(told, "expected the real size of a sparse file, got none")
        if records.map_follows:
            pairs, taken = pax.read_map(self._block, subject=told)
            stored -= taken
        else:
            pairs = records.map()
        return self._sparse(name, records.real_size, stored, pairs, told)

    def _sparse(self, name: str, size: int, stored: int, pairs: array[int], told: str) -> Member:
        self._ranges += len(pairs) // 2
        if self._ranges > MAX_ALL_RANGES:
            raise DocumentError(self._subject, f"expected at most {MAX_ALL_RANGES} sparse ranges in all, got more")
        ranges = sparse.check(pairs, size, stored, subject=told)
        return Member(name, False, size, stored, ranges, _Body(self._stream, stored, told))

    def _admit(self, name: str, told: str) -> None:
        if not 0 < len(name.encode()) <= MAX_NAME:
            raise DocumentError(told, f"expected a name of 1 to {MAX_NAME} bytes, got {len(name.encode())}")
        if len(self._seen) >= MAX_MEMBERS:
            raise DocumentError(self._subject, f"expected at most {MAX_MEMBERS} members, got more")
        plain = name.removeprefix("./").rstrip("/")
        key = hashlib.blake2b(plain.encode(), digest_size=16).digest()
        if key in self._seen:
            raise DocumentError(told, "expected each name once, got it twice")
        self._seen.add(key)

    def _header(self) -> bytes | None:
        """The next header; None at the end of the archive, whose second block is taken as well."""
        header = self._block()
        if header == _ZERO:
            if self._block() != _ZERO:
                raise DocumentError(self._subject, "expected two blocks of zeros at the end, got one")
            return None
        try:
            fields.check(header, subject=self._subject)
        except DocumentError as error:
            if self._is_tar or _MAGIC in header:
                raise
            raise DocumentError(self._subject, _NO_TAR) from error
        self._is_tar = True
        if header[257:263] not in {b"ustar\0", b"ustar "}:
            problem = f"expected a ustar or GNU tar header, got {ascii(header[257:265])[1:]}"
            raise UnsupportedVersion(self._subject, problem)
        return header

    def _extra(self, header: bytes) -> bytes:
        """The content of an extended header."""
        size = fields.number(header[124:136], subject=self._subject, what="a size")
        if size > MAX_HEADERS:
            raise DocumentError(self._subject, f"expected extended headers of at most {MAX_HEADERS} bytes, got {size}")
        self._extended += 1
        self._extended_bytes += size
        if self._extended > MAX_MEMBERS or self._extended_bytes > MAX_ALL_HEADERS:
            problem = f"expected at most {MAX_MEMBERS} extended headers, of {MAX_ALL_HEADERS} bytes together, got more"
            raise DocumentError(self._subject, problem)
        data = self._stream.take(size + -size % BLOCK)
        if len(data) < size:
            raise DocumentError(self._subject, "expected an extended header, got the end: it is truncated")
        return data[:size]

    def _block(self) -> bytes:
        block = self._stream.take(BLOCK)
        if len(block) < BLOCK:
            got = "part of a block" if block else "the end"
            raise DocumentError(self._subject, f"expected a tar header or the end's zeros, got {got}: it is truncated")
        return block

    def _end(self) -> None:
        """Read what follows the end, so that a pipe's writer sees all of it taken."""
        padding = 0
        while data := self._stream.some(READ):
            padding += len(data)
            if data.count(0) < len(data) and not self._is_tar:
                raise DocumentError(self._subject, _NO_TAR)
            if padding > MAX_PADDING or data.count(0) < len(data):
                raise DocumentError(self._subject, f"expected at most {MAX_PADDING} zeros after the end, got more")


def _name(header: bytes, *, subject: str) -> str:
    name = fields.text(header[:100], subject=subject)
    if header[257:263] == b"ustar\0" and (prefix := fields.text(header[345:500], subject=subject)):
        return f"{prefix}/{name}"
    return name
