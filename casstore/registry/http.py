"""HTTP to one registry: oras-py's one choke point, `do_request`, remade so that disks and passwords can pass it.

oras.provider.Registry brings the place that every request passes. Its own do_request sends one token to any URL,
knows no timeout, no rewinding of bodies and no 401 for an expired token, and waits 131 s on errors that will not go
away. Here instead:

- Credentials and the client certificate go to the registry's origin only. Redirects (GET and HEAD, at most 5) are
  followed by this class, and one that leaves the origin drops them for good. https never becomes http, and a registry
  that is elsewhere never leads to this machine or its link.
- Nothing comes from the environment (no proxy, netrc or CA bundle), and no cookie is kept: Harbor takes a client with
  cookies for a browser.
- Bodies pass as they are stored: `identity` is asked for, any other Content-Encoding refused, nothing is decoded.
- A body to send is a callable that opens it; whoever must send again (a 401, a retry) calls it again.
- requests' and urllib3's errors end here.

Rings around each other: exchange.py makes one exchange, `_send` repeats it while that makes sense, `_follow` goes where
the answer leads, `do_request` shows who we are. A body that breaks is resumed in resume.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

import oras.defaults
import oras.provider
import requests
from oras.auth.utils import get_basic_auth

from casstore import log
from casstore.content import Traffic
from casstore.credentials import CredentialSource
from casstore.errors import CasstoreError, RegistryError, SizeMismatch, Unavailable
from casstore.registry.auth import TOKEN_BODY, Authenticator
from casstore.registry.body import Body, read_up_to
from casstore.registry.exchange import Ask, Broken, Exchange, OpenBody, SendBody, SourceFailed
from casstore.registry.failures import ERROR_BODY, PASSING, Ended, failure, quoted
from casstore.registry.notices import Notices
from casstore.registry.options import RegistryOptions
from casstore.registry.pace import MAX_WAIT, Pace, Patience, retry_after
from casstore.registry.urls import Origin, follow, is_local, shown
from casstore.registry.wire import Line

__all__ = ["OpenBody", "RegistryClient", "SendBody", "SourceFailed"]

MAX_REDIRECTS = 5
_LONG_WAIT = 5.0
"""Seconds to wait of which people are told."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


if TYPE_CHECKING:

    class _Provider:
        """What is used of oras' Registry, which is untyped."""

        prefix: str

        def __init__(self, *, hostname: str, insecure: bool) -> None: ...

else:
    _Provider = oras.provider.Registry


class RegistryClient(_Provider):
    """HTTP to one registry host. Thread-safe; close it, or use it in a `with`."""

    def __init__(
        self,
        host: str,
        options: RegistryOptions,
        credentials: CredentialSource,
        *,
        repository: str = "",
        pace: Pace | None = None,
    ) -> None:
        """`pace` is shared by all who talk to this host; None makes one."""
        api = oras.defaults.registry.default_v2_registry["host"] if host == "docker.io" else host
        super().__init__(hostname=api, insecure=options.plain_http)
        self.base: str = f"{self.prefix}://{api}/v2/"
        self.origin: Origin = Origin.of(self.base)
        self._host, self._options = host, options
        self.pace: Pace = pace or Pace.of(options)
        self.patience: Patience = Patience(options.deadline)
        self._line = Line(self.origin, options, self.pace, self.patience)
        self._notices = Notices(options.on_warning)
        self._exchange = Exchange(self.origin, options, self._line)
        self.session: requests.Session = self._exchange.session
        self.auth: Authenticator = Authenticator(
            host,
            self.origin,
            credentials,
            self._fetch_token,
            repository=repository,
            trusted_realms=options.trusted_realms,
        )

    @property
    def traffic(self) -> Traffic:
        """What was fetched so far, with tokens, redirects and what failed."""
        return self._line.traffic

    @property
    def attempts(self) -> int:
        """How often the same is tried at most."""
        return self._options.attempts

    def __repr__(self) -> str:
        return f"RegistryClient({self._host!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.session.close()

    def stop(self) -> None:
        """Let all that goes on fail soon, and all that comes later at once."""
        self._line.stop()

    def say(self, text: str) -> None:
        """Tell the user something about the registry."""
        self._notices.say(text)

    def request(
        self,
        method: str,
        url: str,
        *,
        subject: str,
        expect: Collection[int],
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        data: bytes | OpenBody | None = None,
        retry: bool = True,
    ) -> requests.Response:
        """The answer with one of the expected statuses; its body is not read yet, and the caller closes it.

        GET, HEAD, PUT, DELETE and POST without a body are sent again after errors that pass, unless `retry` is False.
        A DELETE that was answered in vain may so find nothing the second time.

        Raises:
            Unauthorized, NotFound, Unavailable, RegistryError: see failures.failure.
        """
        response = self.do_request(
            url, method, data, dict(headers or {}), scope=scope, subject=subject, expect=expect, retry=retry
        )
        if response.status_code in expect:
            return response
        raise self.refusal(response, subject, expected=" or ".join(str(status) for status in expect if status < 400))

    def refusal(self, response: requests.Response, subject: str, *, expected: str) -> CasstoreError:
        """The error for an answer other than the `expected`; reads and closes it."""
        return failure(
            subject,
            response.status_code,
            self._read_error(response, subject),
            expected=expected,
            advice=self.auth.advice,
            secrets=self.secrets,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        proxy = urlsplit(self._options.proxy or "")
        if not proxy.password:
            return self.auth.secrets
        user, password = unquote(proxy.username or ""), unquote(proxy.password)
        return (*self.auth.secrets, proxy.password, password, get_basic_auth(user, password))

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | OpenBody | None = None,
        headers: dict[str, str] | None = None,
        *,
        scope: str = "",
        subject: str = "",
        expect: Collection[int] = (),
        retry: bool = True,
    ) -> requests.Response:
        """oras-py's choke point: an answer of any status, its body not read, after at most one round of authentication.

        oras' `json` is missing on purpose (re-serialised manifests have other digests), `stream` because it always is.
        """
        ask = Ask(method, subject or self._host, headers or {}, data, expect, retry)
        at_home = Origin.of(url) == self.origin
        header = self.auth.authorization(scope) if at_home else None
        response = self._follow(ask, url, header)
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
        self.finish(response, ask.subject)
        return self._follow(ask, url, header)

    def open_body(self, response: requests.Response, subject: str) -> Body:
        """The body of an answer.

        Raises:
            RegistryError: it is encoded (gzip, zstd, ...); the answer is closed.
        """
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() not in {"identity", ""}:
            response.close()
            raise RegistryError(
                f"{subject}: expected the stored bytes, got Content-Encoding {quoted(encoding, self.secrets)};"
                " a proxy recodes them: configure it not to"
            )
        return Body(response, subject, self.patience)

    def read(self, response: requests.Response, subject: str, *, limit: int) -> bytes:
        """The whole body of at most `limit` bytes; closes the answer.

        Raises:
            SizeMismatch: it is longer.
            Unavailable, RegistryError: as Body and open_body.
        """
        with self.open_body(response, subject) as body:
            data = read_up_to(body, limit + 1)
        if len(data) > limit:
            raise SizeMismatch(f"{subject} (at most)", expected=limit, got=None)
        return data

    def finish(self, response: requests.Response, subject: str) -> None:
        """Close an answer whose body means nothing; a short one is read, so that its connection can be used again."""
        self._read_error(response, subject)

    def _read_error(self, response: requests.Response, subject: str) -> bytes:
        with Body(response, subject, self.patience) as body:
            try:
                return read_up_to(body, ERROR_BODY)
            except Unavailable:
                return b""  # the status is the news; a broken body adds nothing

    def _follow(self, ask: Ask, url: str, authorization: str | None) -> requests.Response:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(ask, url, authorization)
            if response.status_code not in _REDIRECTS:
                return response
            self.finish(response, ask.subject)
            target = follow(url, response.headers.get("Location"), subject=ask.subject, secrets=self.secrets)
            where = shown(target, self.secrets)
            if ask.method not in {"GET", "HEAD"}:
                raise RegistryError(f"{ask.subject}: expected an answer to {ask.method}, got a redirect to {where}")
            if is_local(Origin.of(target).host) and not self._line.home_is_local:
                raise RegistryError(
                    f"{ask.subject}: expected a redirect to a public host, got one to {where};"
                    " do not trust this registry"
                )
            if Origin.of(target) != Origin.of(url):
                authorization = None
            url = target
        raise RegistryError(f"{ask.subject}: expected at most {MAX_REDIRECTS} redirects, got more; last to {where}")

    def _send(self, ask: Ask, url: str, authorization: str | None) -> requests.Response:
        """An answer that is not likely to be another one soon; or else an expected one, or an error."""
        begun, trouble = self.patience.now(), ""
        error: CasstoreError | None
        for attempt in count(1):
            try:
                started = self.pace.admit(self.patience)
            except Ended as ended:
                raise Unavailable(f"{ask.subject}: {ended}" + (f"; last: {trouble}" if trouble else "")) from None
            self._line.asks()
            try:
                response = self._exchange.once(ask, url, authorization)
            except Broken as broke:
                asked, error = 0.0, broke.trouble.error
                passing = broke.trouble.passing or (broke.trouble.unreachable and self.pace.answered)
                trouble = str(error)
            else:
                if Origin.of(url) == self.origin:
                    self._notices.hear(response.raw.headers.getlist("Warning"), self.secrets)
                if response.status_code not in PASSING:
                    self.pace.succeeded()
                    return response
                asked, passing, error = retry_after(response.headers.get("Retry-After")), True, None
                trouble = f"got {response.status_code}"
            now = self.patience.now()
            self.pace.failed(started, now, asked=asked)
            too_long = asked > min(MAX_WAIT, self.patience.left)
            if passing and ask.repeatable and attempt < self._options.attempts and not too_long:
                if error is None:
                    self.finish(response, ask.subject)
                log.info(
                    "registry",
                    "%s: attempt %s of %s failed: %s; trying again%s",
                    ask.subject,
                    attempt,
                    self._options.attempts,
                    trouble,
                    f", as it asks in {asked:.0f} s" if asked else "",
                )
                if asked >= _LONG_WAIT:
                    self._notices.say(f"it is busy ({trouble}) and asks to wait {asked:.0f} s: waiting")
                continue
            if error is None:
                if response.status_code in ask.expect:
                    return response
                error = self.refusal(response, ask.subject, expected=ask.expected)
            notes = [f"after {attempt} attempts in {now - begun:.0f} s"] * (attempt > 1)
            notes += [f"the registry asks to wait {asked:.0f} s"] * (asked > 0)
            notes += [f"the deadline comes in {self.patience.left:.0f} s"] * (asked > self.patience.left)
            raise type(error)(f"{error} ({', '.join(notes)})") if notes else error
        raise AssertionError  # count never ends

    def _fetch_token(self, url: str, authorization: str | None, form: bytes | None) -> tuple[int, bytes]:
        subject = f"{self._host}: token server {shown(url, self.secrets)}"
        headers = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        # Every status is an answer: what a refused token request means is not known here.
        ask = Ask("GET" if form is None else "POST", subject, headers, form, expect=range(100, 600))
        response = self._send(ask, url, authorization)
        if response.status_code != 200:
            return response.status_code, self._read_error(response, subject)
        with closing(response):
            return 200, self.read(response, subject, limit=TOKEN_BODY)
