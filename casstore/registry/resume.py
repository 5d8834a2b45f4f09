"""The body of a blob that goes on where it broke, within this process: the rest is asked for by Range.

Nothing is spliced on trust. A 206 must be exactly the rest of just as much, of the same ETag and digest where these are
given; a 200 is read again from its start, and must have there what was given out already. What comes of it is verified
as a whole by the VerifiedReader around it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

import requests

from casstore import log, spec
from casstore.errors import CasstoreError, DigestMismatch, RegistryError, SizeMismatch, Unavailable
from casstore.oci import Descriptor
from casstore.registry.body import Body
from casstore.registry.failures import quoted
from casstore.registry.http import RegistryClient
from casstore.registry.ranges import check_part
from casstore.streams import VerifiedReader

_PROGRESS = spec.MIB
"""Bytes after which a body has its attempts back."""


def open_blob(
    client: RegistryClient,
    url: str,
    blob: Descriptor,
    *,
    subject: str,
    scope: str,
    check: Callable[[requests.Response], None],
) -> VerifiedReader:
    """The verified content of a blob. `check` looks at the header of every answer that is to hold all of it.

    Raises: as RegistryClient.request and open_body, and what `check` raises.
    """
    body = ResumingBody(client, url, blob.size, subject=subject, scope=scope, check=check)
    reader = VerifiedReader(body, blob, subject=subject)
    body.given_out = reader.hexdigest
    return reader


class ResumingBody:
    """A Reader of `size` bytes at a URL; see above. One thread at a time.

    A break costs one of the client's attempts; each MiB of progress brings them all back.
    """

    given_out: Callable[[], str] | None = None
    """The sha256 (hex) of what was read so far; without it only the whole is compared, at the end."""

    def __init__(
        self,
        client: RegistryClient,
        url: str,
        size: int,
        *,
        subject: str,
        scope: str,
        check: Callable[[requests.Response], None],
    ) -> None:
        self._client, self._url, self._size = client, url, size
        self._subject, self._scope, self._check = subject, scope, check
        self._at = self._refilled_at = self._again = 0
        self._hash = hashlib.sha256()
        self._attempts = self._left = client.attempts
        response = client.request("GET", url, subject=subject, expect=(200,), scope=scope)
        self._etag, self._digest = _identity(response)
        self._body = self._whole(response)

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end.

        Raises:
            Unavailable: it broke too often.
            SizeMismatch: it ended too early, and so each time.
            RegistryError, SizeMismatch, DigestMismatch: what came instead of the rest is another blob, or nonsense.
        """
        while True:
            try:
                data = self._body.read(min(size, self._again) if self._again else size)
            except Unavailable as error:
                problem: CasstoreError = error
            else:
                if data and self._again:
                    self._compare(data)
                    continue
                if data:
                    self._count(len(data))
                    return data
                problem = SizeMismatch(self._subject, expected=self._size, got=self._at)
            if self._at >= self._size:
                return b""
            self._resume(problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._body.__exit__(kind, error, trace)

    def _count(self, count: int) -> None:
        self._at += count
        if self._at - self._refilled_at >= _PROGRESS:
            self._left, self._refilled_at = self._attempts, self._at

    def _compare(self, data: bytes) -> None:
        """Take bytes that were given out before."""
        self._hash.update(data)
        self._again -= len(data)
        if not self._again and self.given_out is not None:
            expected, got = f"sha256:{self.given_out()}", f"sha256:{self._hash.hexdigest()}"
            if got != expected:
                what = f"{self._subject}: its first {self._at} bytes, read again"
                raise DigestMismatch(what, expected=expected, got=got)

    def _resume(self, problem: CasstoreError) -> None:
        self._body.__exit__(None, None, None)
        self._client.patience.check(self._subject)
        self._left -= 1
        if self._left <= 0:
            if self._attempts == 1 or not isinstance(problem, Unavailable):
                raise problem
            raise Unavailable(f"{problem} (after {self._attempts} attempts, none of which brought it on by 1 MiB)")
        log.info(
            "registry", "%s: broke after %s of %s bytes: %s; resuming", self._subject, self._at, self._size, problem
        )
        now = self._client.patience.now()
        self._client.pace.failed(now, now)
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        if self._at and self._etag.startswith('"'):
            headers["If-Range"] = self._etag
        response = self._client.request(
            "GET",
            self._url,
            subject=self._subject,
            expect=(206, 200) if self._at else (200,),
            scope=self._scope,
            headers=headers,
        )
        partial = response.status_code == 206
        if self._at and not partial:
            log.info("registry", "%s: no range was sent; reading all of it again", self._subject)
        self._body = self._rest(response) if partial else self._whole(response)

    def _whole(self, response: requests.Response) -> Body:
        try:
            self._check(response)
        except Exception:
            response.close()
            raise
        self._again, self._hash = self._at, hashlib.sha256()
        return self._client.open_body(response, self._subject)

    def _rest(self, response: requests.Response) -> Body:
        try:
            secrets = self._client.secrets
            check_part(response, self._at, self._size, self._size, subject=self._subject, secrets=secrets)
            for name, first, now in zip(_NAMES, (self._etag, self._digest), _identity(response), strict=True):
                if first and now and first != now:
                    was, got = quoted(first, secrets), quoted(now, secrets)
                    raise RegistryError(f"{self._subject}: expected {name} {was} as before, got {got}")
        except Exception:
            response.close()
            raise
        self._again = 0
        return self._client.open_body(response, self._subject)


_NAMES = ("ETag", "Docker-Content-Digest")


def _identity(response: requests.Response) -> tuple[str, str]:
    """What an answer says of which content it is; each "" where it does not."""
    etag, digest = (response.headers.get(name, "") for name in _NAMES)
    return etag, digest
