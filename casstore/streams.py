"""The one verifying reader through which all content passes, and small helpers around it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from casstore import spec
from casstore.content import Fetcher, Reader
from casstore.errors import DigestMismatch, NotFound, SizeMismatch, UnsupportedVersion
from casstore.oci import Descriptor

COPY_CHUNK = spec.MIB
"""Bytes moved at a time."""


@runtime_checkable
class Vouching(Protocol):
    """A Reader that checks what it gives out and says so: whoever takes it need not hash the same bytes again."""

    @property
    def verified(self) -> Descriptor | None:
        """The descriptor whose content was given out, whole and checked; None until then."""
        ...


class VerifiedReader:
    """A Reader of exactly the content of a descriptor, or an error.

    At most `size + 1` bytes are ever taken from the body. The last byte is given out only after the digest was
    checked, so a caller that reads until b"" or until `size` bytes never holds unverified content as verified.
    """

    def __init__(self, body: Reader, descriptor: Descriptor, *, subject: str) -> None:
        self._body, self._descriptor, self._subject = body, descriptor, subject
        self._left = descriptor.size
        self._hash = hashlib.sha256()
        self._checked = False
        self._broken = False

    @property
    def verified(self) -> Descriptor | None:
        """What was read, once all of it was given out and is right; see Vouching."""
        return self._descriptor if self._checked else None

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes (all that is left for -1); b"" at the end.

        Raises:
            SizeMismatch, DigestMismatch: the body is not the descriptor's content.
            ValueError: read again after such an error.
        """
        if self._broken:
            raise ValueError(f"{self._subject}: read after an error")
        self._broken = True
        want = self._left if size < 0 else min(size, self._left)
        data = self._take(want)
        if self._left == 0 and not self._checked:
            self._check()
        self._broken = False
        return data

    def hexdigest(self) -> str:
        """The sha256 of what was read so far."""
        return self._hash.hexdigest()

    def _take(self, want: int) -> bytes:
        parts: list[bytes] = []
        while want:
            part = self._body.read(min(want, COPY_CHUNK))
            if not part:
                got = self._descriptor.size - self._left
                raise SizeMismatch(self._subject, expected=self._descriptor.size, got=got)
            self._hash.update(part)
            self._left -= len(part)
            want -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self) -> None:
        got = self._hash.hexdigest()
        if got != self._descriptor.digest.hex:
            raise DigestMismatch(self._subject, expected=str(self._descriptor.digest), got=f"sha256:{got}")
        if self._body.read(1):
            raise SizeMismatch(self._subject, expected=self._descriptor.size, got=None)
        self._checked = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._body.__exit__(kind, error, trace)


class BytesSource:
    """A Fetcher of contents that are in memory, each under its descriptor's digest."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = {hashlib.sha256(content).hexdigest(): content for content in contents}

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open one of the contents.

        Raises:
            NotFound: none has this digest.
        """
        content = self._contents.get(descriptor.digest.hex)
        if content is None:
            raise NotFound(f"{descriptor.digest}: no such content")
        return VerifiedReader(io.BytesIO(content), descriptor, subject=str(descriptor.digest))


def read_through(source: Fetcher, descriptor: Descriptor, tell: Callable[[int], object] = lambda _: None) -> None:
    """Read content to its end and drop it: only to have it verified. `tell` gets the bytes of each step.

    Raises:
        NotFound, SizeMismatch, DigestMismatch: as the Fetcher.
    """
    with source.fetch(descriptor) as reader:
        while part := reader.read(COPY_CHUNK):
            tell(len(part))


def fetch_all(source: Fetcher, descriptor: Descriptor, *, limit: int) -> bytes:
    """The whole content, verified. For documents: `limit` (bytes) guards against a descriptor that claims gigabytes.

    Raises:
        UnsupportedVersion: the descriptor claims more than `limit`.
        NotFound, SizeMismatch, DigestMismatch: as the Fetcher.
    """
    if descriptor.size > limit:
        problem = f"expected a {descriptor.media_type} of at most {limit} bytes, got {descriptor.size}"
        raise UnsupportedVersion(str(descriptor.digest), problem)
    with source.fetch(descriptor) as reader:
        parts = []
        while part := reader.read(COPY_CHUNK):
            parts.append(part)
    return b"".join(parts)
