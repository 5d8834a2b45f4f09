"""A part of a blob, asked for by Range.

What comes is the part that was asked for, of a blob of the right size, as far as the header of the answer can say that.
Its bytes are not verified: whoever reads a part knows what it must be. A connection that breaks costs an attempt, and
what is still missing is asked for again. A server that sends all of the blob instead is read up to the end of the part,
as long as what comes in vain stays within bounds.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Final, Self

import requests

from casstore import log
from casstore.errors import CasstoreError, NotOffered, RegistryError, SizeMismatch, Unavailable
from casstore.oci import Descriptor
from casstore.registry.body import Body
from casstore.registry.failures import quoted
from casstore.registry.http import RegistryClient
from casstore.spec import MIB

_MOST_IN_VAIN: Final = 256 * MIB
"""Bytes before the wanted parts that are read from a server that knows no ranges, all together."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})\Z", re.ASCII)
_NO_SUCH_PART: Final = re.compile(r"bytes \*/([0-9]{1,19})\Z", re.ASCII)
_LENGTH: Final = re.compile(r"[0-9]{1,19}\Z", re.ASCII)


class Ranges:
    """Reads parts of the blobs of one repository. Thread-safe."""

    def __init__(self, client: RegistryClient, *, scope: str) -> None:
        self._client, self._scope = client, scope
        self._lock = threading.Lock()
        self._in_vain = 0

    def read(
        self,
        url: str,
        blob: Descriptor,
        offset: int,
        length: int,
        *,
        subject: str,
        check: Callable[[requests.Response], None],
    ) -> bytes:
        """The `length` (at least 1) bytes from `offset` of the blob at `url`. `check` looks at the header of an answer
        that is to hold all of it.

        Raises:
            SizeMismatch: the blob ends before, or has not the size of its descriptor; or more came than was asked for.
            NotOffered: the server knows no ranges, and too much came in vain.
            Unavailable: the connection broke too often.
            As RegistryClient.request and open_body, and what `check` raises.
        """
        parts: list[bytes] = []
        at, end, left = offset, offset + length, self._client.attempts
        while True:
            problem: CasstoreError
            try:
                with self._open(url, blob, at, end, subject=subject, check=check) as body:
                    while at < end and (part := body.read(end - at)):
                        parts.append(part)
                        at += len(part)
                    if at == end and not body.goes_on():
                        return b"".join(parts)
                    if at == end:
                        raise SizeMismatch(f"{subject}: from byte {offset}", expected=length, got=None)
                problem = SizeMismatch(f"{subject}: from byte {offset}", expected=length, got=at - offset)
            except _Broke as broke:
                problem = broke.error
            self._client.patience.check(subject)
            left -= 1
            if left <= 0:
                if self._client.attempts == 1 or not isinstance(problem, Unavailable):
                    raise problem
                raise Unavailable(f"{problem} (after {self._client.attempts} attempts)")
            now = self._client.patience.now()
            self._client.pace.failed(now, now)

    def _open(
        self,
        url: str,
        blob: Descriptor,
        start: int,
        end: int,
        *,
        subject: str,
        check: Callable[[requests.Response], None],
    ) -> _Part:
        """The answer, from byte `start` on."""
        whole = start == 0 and end == blob.size
        response = self._client.request(
            "GET",
            url,
            subject=subject,
            expect=(200,) if whole else (206, 200, 416),
            scope=self._scope,
            headers={} if whole else {"Range": f"bytes={start}-{end - 1}"},
        )
        try:
            if response.status_code == 416:
                raise self._no_such_part(response, blob, start, end, subject)
            if response.status_code == 206:
                _check_size(response, blob.size, subject)
                check_part(response, start, end, blob.size, subject=subject, secrets=self._client.secrets)
                skip = 0
            else:
                check(response)
                skip = self._count_in_vain(start, subject)
                if not whole:
                    log.info("registry", "%s: no range was sent; %s bytes come in vain", subject, skip)
        except Exception:
            response.close()
            raise
        opened = _Part(self._client.open_body(response, subject), bounded=response.status_code == 206)
        try:
            opened.skip(skip)
        except BaseException:
            opened.__exit__()
            raise
        return opened

    def _count_in_vain(self, count: int, subject: str) -> int:
        with self._lock:
            if self._in_vain + count > _MOST_IN_VAIN:
                raise NotOffered(
                    f"{subject}: expected a part of it, got all of it: the registry, or a proxy, knows no ranges, and"
                    f" {self._in_vain} bytes were read in vain already; pull the snapshot instead"
                )
            self._in_vain += count
        return count

    def _no_such_part(
        self, response: requests.Response, blob: Descriptor, start: int, end: int, subject: str
    ) -> CasstoreError:
        """What a 416 means; closes it."""
        said = response.headers.get("Content-Range", "")
        self._client.finish(response, subject)
        match = _NO_SUCH_PART.match(said)
        if match is not None and int(match[1]) != blob.size:
            return SizeMismatch(subject, expected=blob.size, got=int(match[1]))
        return RegistryError(
            f"{subject}: expected bytes {start} to {end} of {blob.size}, got 416, as if there were none; a blob is"
            " damaged there, or a proxy is: pull the snapshot to see"
        )


class _Broke(Exception):
    """A body broke. Ends within this module."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(str(error))
        self.error = error


class _Part:
    """The body of an answer, from where the part begins. Raises _Broke."""

    def __init__(self, body: Body, *, bounded: bool) -> None:
        self._body, self._bounded = body, bounded

    def skip(self, count: int) -> None:
        """Read what comes before the part."""
        while count:
            part = self.read(count)
            if not part:
                return  # and the part itself will be missing, too
            count -= len(part)

    def read(self, size: int) -> bytes:
        """As Body.read."""
        try:
            return self._body.read(size)
        except Unavailable as error:
            raise _Broke(error) from None

    def goes_on(self) -> bool:
        """Whether more comes than the part. To ask also frees the connection for the next one."""
        return self._bounded and bool(self.read(1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._body.__exit__(None, None, None)


def _check_size(response: requests.Response, size: int, subject: str) -> None:
    """Raise SizeMismatch where a 206 is a part of something that has another size."""
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if match is not None and int(match[3]) != size:
        raise SizeMismatch(subject, expected=size, got=int(match[3]))


def check_part(
    response: requests.Response, start: int, end: int, size: int, *, subject: str, secrets: tuple[str, ...]
) -> None:
    """Whether the header of a 206 says that it is the bytes from `start` to `end` of `size`, and nothing else.

    Raises:
        RegistryError: it is another part, or several.
        SizeMismatch: it is longer or shorter.
    """
    claimed = response.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.match(claimed)
    if match is None or [int(each) for each in match.groups()] != [start, end - 1, size]:
        got = quoted(claimed or response.headers.get("Content-Type", ""), secrets)
        raise RegistryError(f"{subject}: expected Content-Range bytes {start}-{end - 1}/{size}, got {got}")
    length = response.headers.get("Content-Length", str(end - start))
    if length != str(end - start):
        got_length = int(length) if _LENGTH.match(length) else 0
        raise SizeMismatch(f"{subject}: from byte {start}", expected=end - start, got=got_length)
