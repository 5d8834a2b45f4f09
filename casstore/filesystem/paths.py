"""Paths on a disk: bytes, that may begin with "/" or not, and may have anything in them but NUL."""

from __future__ import annotations


def parts_of(path: bytes) -> list[bytes]:
    """The names in a path, "." left out."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def clean_path(path: bytes) -> bytes:
    """A path with one "/" in front and between its parts, and without "." in it."""
    return b"/" + b"/".join(parts_of(path))


def quoted(path: bytes) -> str:
    r"""A path for the text of an error; bytes that are no UTF-8 as `\udc80` to `\udcff`."""
    return repr(path.decode("utf-8", "surrogateescape"))
