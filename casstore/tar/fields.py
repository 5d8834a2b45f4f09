"""The fields of a 512-byte header: numbers, names and the checksum."""

from __future__ import annotations

import re

from casstore.errors import DocumentError

_OCTAL = re.compile(rb" *([0-7]+)[ \0]*\Z")
_CHECKSUM = slice(148, 156)


def number(field: bytes, *, subject: str, what: str) -> int:
    """A size or offset: octal digits, or base 256 where the first bit is set.

    Raises:
        DocumentError: anything else, or a negative number.
    """
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
        if value >= 1 << 63:
            raise DocumentError(subject, f"expected {what} of less than 2^63, got {value}")
        return value
    match = _OCTAL.match(field)
    if match is None:
        raise DocumentError(subject, f"expected {what} in octal digits, got {ascii(bytes(field))[1:]}")
    return int(match[1], 8)


def format_number(value: int, width: int) -> bytes:
    """A number as GNU tar writes it: octal digits and a NUL, in base 256 where these do not suffice."""
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def checksum(header: bytes) -> int:
    """The sum of a header's bytes, those of the checksum itself taken as spaces."""
    return sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")


def check(header: bytes, *, subject: str) -> None:
    """Raise DocumentError unless a header has the checksum that it states."""
    stated = number(header[_CHECKSUM], subject=subject, what="a checksum")
    if stated != checksum(header):
        raise DocumentError(subject, f"expected a tar header with the checksum {stated}, got {checksum(header)}")


def text(field: bytes, *, subject: str) -> str:
    """A name, up to its first NUL.

    Raises:
        DocumentError: it is no UTF-8.
    """
    try:
        return field.partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        raise DocumentError(subject, f"expected a name in UTF-8, got {ascii(field[:100])[1:]}") from None
