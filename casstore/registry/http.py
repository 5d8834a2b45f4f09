"""HTTP to one registry: oras-py's one choke point, `do_request`, remade so that disks and passwords can pass it.

oras.provider.Registry brings the place that every request passes. Its own do_request sends one token to any URL,
knows no timeout, no rewinding of bodies and no 401 for an expired token, and waits 131 s on errors that will not go
away. Here instead:

- Credentials go to the registry's origin only. Redirects (GET and HEAD, at most 5) are followed by this class, and one
  that leaves the origin drops them for good. https never becomes http.
- Nothing comes from the environment (no proxy, netrc or CA bundle), and no cookie is kept: Harbor takes a client with
  cookies for a browser.
- Bodies pass as they are stored: `identity` is asked for, any other Content-Encoding refused, nothing is decoded.
- A body to send is a callable that opens it; whoever must send again (a 401 today, retries later) calls it again.
- requests' and urllib3's errors end here.

One exchange on the wire is `_exchange`; retries with back-off belong around it, resuming a body belongs into `Body`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any, Protocol, Self

import oras.defaults
import oras.provider
import requests
import urllib3
from requests.adapters import HTTPAdapter

from casstore import __version__
from casstore.credentials import CredentialSource
from casstore.errors import CasstoreError, RegistryError, SizeMismatch, Unavailable, UsageError
from casstore.registry.auth import TOKEN_BODY, Authenticator
from casstore.registry.failures import ERROR_BODY, failure, quoted, unavailable
from casstore.registry.urls import Origin, follow, shown

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BLOCK = 256 * 1024
"""Bytes sent at a time. A whole block must leave within `connect_timeout`: sendall has one deadline for all of it."""
_POOL = 16
"""Connections kept; more may be open at once."""


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How to reach a registry.

    `plain_http`: http instead of https. `insecure`: do not check the registry's own certificate; other hosts' (token
    servers, storage behind redirects) still are. `ca_bundle`: PEM file of the CAs to trust instead of the usual ones.
    Timeouts in seconds; `read_timeout` is the longest silence, not the longest transfer.
    """

    plain_http: bool = False
    insecure: bool = False
    ca_bundle: str | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    user_agent: str = f"casstore/{__version__}"


class SendBody(Protocol):
    """What requests sends with a Content-Length: it has a length and is read."""

    def __len__(self) -> int: ...

    def read(self, size: int = -1, /) -> bytes: ...


OpenBody = Callable[[], AbstractContextManager[SendBody]]


class SourceFailed(Exception):
    """The body to send could not be read; `error` says why. Not an OSError, which urllib3 would take for its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Body:
    """The body of an answer, byte by byte as it came; errors of the way are Unavailable."""

    def __init__(self, response: requests.Response, subject: str) -> None:
        self._response, self._subject = response, subject

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end."""
        try:
            data: bytes = self._response.raw.read(size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise unavailable(self._subject, error) from None
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, blocksize=_BLOCK, **options)


class _Session(requests.Session):
    """A session that adds nothing of its own."""

    def __init__(self, user_agent: str) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers = requests.structures.CaseInsensitiveDict(
            {"User-Agent": user_agent, "Accept-Encoding": "identity", "Accept": "*/*"}
        )
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(pool_maxsize=_POOL))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: even with allow_redirects=False, requests reads and decodes all of a redirect's body to look ahead."""


class RegistryClient(oras.provider.Registry):  # type: ignore[misc]  # oras is untyped
    """HTTP to one registry host. Thread-safe; close it, or use it in a `with`."""

    def __init__(self, host: str, options: RegistryOptions, credentials: CredentialSource) -> None:
        if options.ca_bundle is not None and not os.path.exists(options.ca_bundle):
            raise UsageError(f"CA bundle {options.ca_bundle}: expected a file of certificates, found nothing there")
        api = oras.defaults.registry.default_v2_registry["host"] if host == "docker.io" else host
        super().__init__(hostname=api, insecure=options.plain_http)
        self.base = f"{self.prefix}://{api}/v2/"
        self.origin = Origin.of(self.base)
        self._host, self._options = host, options
        self.session = _Session(options.user_agent)
        if options.insecure:
            # urllib3 would warn at every request of what was asked for; other hosts keep their warning.
            warnings.filterwarnings(
                "ignore", f".*host '{re.escape(self.origin.host)}'", category=urllib3.exceptions.InsecureRequestWarning
            )
        self.auth = Authenticator(host, self.origin, credentials, self._fetch_token)

    def __repr__(self) -> str:
        return f"RegistryClient({self._host!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.session.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        subject: str,
        expect: Iterable[int],
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        data: bytes | OpenBody | None = None,
    ) -> requests.Response:
        """The answer with one of the expected statuses; its body is not read yet, and the caller closes it.

        Raises:
            Unauthorized, NotFound, Unavailable, RegistryError: see registry_errors.failure.
        """
        response = self.do_request(url, method, data, dict(headers or {}), scope=scope, subject=subject)
        if response.status_code in expect:
            return response
        body = self._read_error(response, subject)
        raise failure(
            subject,
            response.status_code,
            body,
            expected=" or ".join(str(status) for status in expect),
            advice=self.auth.advice,
            secrets=self.auth.secrets,
        )

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | OpenBody | None = None,
        headers: dict[str, str] | None = None,
        *,
        scope: str = "",
        subject: str = "",
    ) -> requests.Response:
        """oras-py's choke point: an answer of any status, its body not read, after at most one round of authentication.

        oras' `json` is missing on purpose (re-serialised manifests have other digests), `stream` because it always is.
        """
        subject, headers = subject or self._host, headers or {}
        at_home = Origin.of(url) == self.origin
        header = self.auth.authorization(scope) if at_home else None
        response = self._follow(method, url, data, headers, authorization=header, subject=subject)
        if response.status_code != 401 or Origin.of(str(response.url)) != self.origin or not at_home:
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        try:
            header = self.auth.answer(challenge, scope, refused=header)
        except CasstoreError:
            response.close()
            raise
        if header is None:
            return response
        self.finish(response, subject)
        return self._follow(method, url, data, headers, authorization=header, subject=subject)

    def open_body(self, response: requests.Response, subject: str) -> Body:
        """The body of an answer.

        Raises:
            RegistryError: it is encoded (gzip, zstd, ...); the answer is closed.
        """
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() not in {"identity", ""}:
            response.close()
            raise RegistryError(
                f"{subject}: expected the stored bytes, got Content-Encoding {quoted(encoding, self.auth.secrets)};"
                " a proxy recodes them: configure it not to"
            )
        return Body(response, subject)

    def read(self, response: requests.Response, subject: str, *, limit: int) -> bytes:
        """The whole body of at most `limit` bytes; closes the answer.

        Raises:
            SizeMismatch: it is longer.
            Unavailable, RegistryError: as Body and open_body.
        """
        with self.open_body(response, subject) as body:
            data = _read_up_to(body, limit + 1)
        if len(data) > limit:
            raise SizeMismatch(f"{subject} (at most)", expected=limit, got=None)
        return data

    def finish(self, response: requests.Response, subject: str) -> None:
        """Close an answer whose body means nothing; a short one is read, so that its connection can be used again."""
        self._read_error(response, subject)

    def _read_error(self, response: requests.Response, subject: str) -> bytes:
        with Body(response, subject) as body:
            try:
                return _read_up_to(body, ERROR_BODY)
            except Unavailable:
                return b""  # the status is the news; a broken body adds nothing

    def _follow(
        self,
        method: str,
        url: str,
        data: bytes | OpenBody | None,
        headers: dict[str, str],
        *,
        authorization: str | None,
        subject: str,
    ) -> requests.Response:
        for _ in range(MAX_REDIRECTS + 1):
            sent = headers | ({"Authorization": authorization} if authorization else {})
            response = self._exchange(method, url, data, sent, subject=subject)
            if response.status_code not in _REDIRECTS:
                return response
            self.finish(response, subject)
            target = follow(url, response.headers.get("Location"), subject=subject)
            if method not in {"GET", "HEAD"}:
                raise RegistryError(f"{subject}: expected an answer to {method}, got a redirect to {shown(target)}")
            if Origin.of(target) != Origin.of(url):
                authorization = None
            url = target
        raise RegistryError(f"{subject}: expected at most {MAX_REDIRECTS} redirects, got more; last to {shown(url)}")

    def _exchange(
        self, method: str, url: str, data: bytes | OpenBody | None, headers: dict[str, str], *, subject: str
    ) -> requests.Response:
        options = self._options
        own = Origin.of(url) == self.origin
        with data() if callable(data) else nullcontext(data) as body:
            try:
                return self.session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(options.connect_timeout, options.read_timeout),
                    verify=False if options.insecure and own else options.ca_bundle or True,
                )
            except SourceFailed as failed:
                raise failed.error from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise unavailable(subject, error) from None

    def _fetch_token(self, url: str, authorization: str | None) -> tuple[int, bytes]:
        subject = f"{self._host}: token server {shown(url)}"
        headers = {"Authorization": authorization} if authorization else {}
        response = self._exchange("GET", url, None, headers, subject=subject)
        if response.status_code != 200:
            return response.status_code, self._read_error(response, subject)
        with closing(response):
            return 200, self.read(response, subject, limit=TOKEN_BODY)


def _read_up_to(body: Body, limit: int) -> bytes:
    parts, left = [], limit
    while left and (part := body.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
