"""A blob on its way out: its bytes from any place on, as the bodies of as many requests as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from casstore import spec
from casstore.content import Fetcher, Reader
from casstore.errors import SizeMismatch
from casstore.oci import Descriptor
from casstore.registry.exchange import SendBody, SourceFailed


class Outgoing:
    """The blob's bytes from any place on, as often as they are wanted. One thread at a time.

    The source is opened once as long as the places only grow, and again to go back: a source has no offset.
    """

    def __init__(self, blob: Descriptor, source: Fetcher, subject: str) -> None:
        self._blob, self._source, self._subject = blob, source, subject
        self._stack = ExitStack()
        self._reader: Reader | None = None
        self._at = 0
        self._failed: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def check(self) -> None:
        """Raise what the source failed with, if it did: its troubles are no reason to send again."""
        if self._failed is not None:
            raise self._failed

    @contextmanager
    def part(self, start: int, length: int) -> Iterator[SendBody]:
        """The body of a request with these bytes."""
        if length or self._blob.size == 0:
            try:
                self._seek(start)
            except Exception as error:
                self._failed = error
                raise
        yield _Part(self, length)

    def read(self, size: int) -> bytes:
        """Some bytes from here on, at least one."""
        try:
            data = self._reader.read(size) if self._reader is not None else b""
            if not data:
                raise SizeMismatch(self._subject, expected=self._blob.size, got=self._at)
        except Exception as error:
            self._failed = error
            raise SourceFailed(error) from error
        self._at += len(data)
        return data

    def _seek(self, start: int) -> None:
        if self._reader is None or self._at > start:
            if self._reader is not None:  # whoever counts what is read takes back what will be read again
                again = _ReadAgain()
                self._stack.__exit__(type(again), again, None)
            self._reader = self._stack.enter_context(self._source.fetch(self._blob))
            self._at = 0
            if self._blob.size == 0:
                self._reader.read(1)  # nobody reads an empty body, so let the source check itself here
        while self._at < start:
            self.read(min(spec.MIB, start - self._at))


class _ReadAgain(Exception):
    """Why a reader is closed before its end."""


class _Part:
    """`length` bytes of a content on their way into a request."""

    def __init__(self, outgoing: Outgoing, length: int) -> None:
        self._outgoing, self._length, self._left = outgoing, length, length

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        if self._left == 0:
            return b""
        data = self._outgoing.read(min(size, self._left) if size > 0 else self._left)
        self._left -= len(data)
        return data
