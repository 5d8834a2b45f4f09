"""Who may see what: Authorization headers for one registry, and where its password and tokens may go.

A registry answers 401 with a challenge (RFC 7235): Basic, or Bearer with the URL of a token server, the realm
(distribution's token specification). Rules:

- Headers made here go to the registry's own origin only; http.py drops them on every other one.
- A realm is https, or http if the registry itself is plain http. An IP address only if it is the registry's own host.
- The password goes to the realm only if it is on the registry's site (weburl.same_site); else the token is asked for
  without it.
- Tokens are kept per (realm, service, scope), and thrown away once refused or old.

Nothing here does I/O: tokens are fetched by the callable that the client passes in. OAuth2 (identity tokens) would be
another way to fetch one.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlencode

from oras.auth.utils import get_basic_auth

from casstore.credentials import Credentials, CredentialSource
from casstore.errors import DocumentError, RegistryError, Unauthorized
from casstore.jsondoc import load_object
from casstore.registry.failures import failure
from casstore.registry.urls import Origin, follow, is_address, same_site, shown

TOKEN_BODY = 128 * 1024
"""Bytes of a token server's answer that are accepted."""
_DEFAULT_LIFE = 60
"""Seconds that a token lives if its server does not say (token specification)."""
_MAX_TOKENS = 32
_MAX_CHALLENGE = 8 * 1024
"""Characters of WWW-Authenticate, all headers joined, that are looked at; a longer one is no challenge."""

_SCHEME = re.compile(r"(?:^|,)\s*(bearer|basic)(?=\s|\Z)", re.IGNORECASE)
# The bound keeps this linear: a run of letters that no "=" follows is otherwise read again from each of its letters.
_PARAMETER = re.compile(r'([a-z]{1,32})\s*=\s*(?:"([^"]*)"|([^\s",]+))', re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")

FetchToken = Callable[[str, str | None], tuple[int, bytes]]
"""GETs a URL with this Authorization header, follows no redirect; the status and at most TOKEN_BODY + 1 bytes."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for; realm and service are empty for Basic."""

    scheme: str
    realm: str = ""
    service: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge | None:
        """The strongest challenge in a WWW-Authenticate header: Bearer, else Basic, else None.

        Own code: oras' parse_auth_header drops the scheme, mixes up several challenges and misreads `service=""`.
        """
        if len(header) > _MAX_CHALLENGE:
            return None
        pieces = _SCHEME.split(header)[1:]
        offers = dict(zip([scheme.lower() for scheme in pieces[::2]], pieces[1::2], strict=True))
        if "bearer" in offers:
            found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(offers["bearer"])}
            return cls("bearer", found.get("realm", ""), found.get("service", ""))
        return cls("basic") if "basic" in offers else None


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    deadline: float


class Authenticator:
    """Makes the Authorization headers for one registry. Thread-safe; a token is fetched by one thread for all."""

    def __init__(self, host: str, registry: Origin, credentials: CredentialSource, fetch_token: FetchToken) -> None:
        self._host, self._registry, self._source, self._fetch_token = host, registry, credentials, fetch_token
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._lock = threading.Lock()
        self._withheld: Origin | None = None
        self.secrets: deque[str] = deque(maxlen=_MAX_TOKENS)
        """What was sent lately and must not be shown."""
        self.password_sent = False
        """Whether any header or token request so far used the password."""

    def __repr__(self) -> str:
        return f"Authenticator({self._host!r})"

    @property
    def challenged(self) -> bool:
        """Whether the registry ever asked who we are."""
        return self._challenge is not None

    @property
    def advice(self) -> str:
        """What to do when the registry refuses."""
        if self._withheld:
            return f"the password for {self._host} was not sent to {self._withheld}, which is another site"
        verb = "check the permissions, or run" if self._credentials else "run"
        option = " --plain-http" if self._registry.scheme == "http" else ""
        return f"{verb}: casstore login {self._host}{option}"

    def authorization(self, scope: str) -> str | None:
        """The header to send at once; None before the first challenge and for nobody.

        Raises:
            Unauthorized, Unavailable, RegistryError: a new token was needed and could not be had.
        """
        with self._lock:
            return self._header(self._challenge, scope) if self._challenge else None

    def answer(self, challenge: str, scope: str, *, refused: str | None) -> str | None:
        """The header to send after a 401 with this WWW-Authenticate; None if nothing other than `refused` is left.

        Raises: as `authorization`.
        """
        parsed = Challenge.parse(challenge)
        if parsed is None:
            return None
        with self._lock:
            self._challenge = parsed
            key = (parsed.realm, parsed.service, scope)
            if key in self._tokens and self._tokens[key].header == refused:
                del self._tokens[key]
            header = self._header(parsed, scope)
        return None if header == refused else header

    @cached_property
    def _credentials(self) -> Credentials | None:
        return self._source.lookup(self._host)

    @cached_property
    def _basic(self) -> str | None:
        if self._credentials is None:
            return None
        pair: str = get_basic_auth(self._credentials.username, self._credentials.password)
        return f"Basic {pair}"

    def _header(self, challenge: Challenge, scope: str) -> str | None:
        if challenge.scheme == "basic":
            return self._use_password()
        key = (challenge.realm, challenge.service, scope)
        token = self._tokens.get(key)
        if token is None or token.deadline <= time.monotonic():
            if len(self._tokens) >= _MAX_TOKENS:
                self._tokens.clear()
            token = self._tokens[key] = self._new_token(challenge, scope)
        return token.header

    def _use_password(self) -> str | None:
        if self._credentials is None or self._basic is None:
            return None
        self.password_sent = True
        for secret in (self._credentials.password, self._basic.partition(" ")[2]):
            if secret not in self.secrets:
                self.secrets.append(secret)
        return self._basic

    def _new_token(self, challenge: Challenge, scope: str) -> _Token:
        url = self._realm(challenge)
        realm, subject = Origin.of(url), f"{self._host}: token server {shown(url)}"
        header = None
        if same_site(realm, self._registry):
            header = self._use_password()
        elif self._credentials is not None:
            self._withheld = realm
        query = {name: value for name, value in (("service", challenge.service), ("scope", scope)) if value}
        now = time.monotonic()
        status, body = self._fetch_token(f"{url}{'&' if '?' in url else '?'}{urlencode(query)}", header)
        if status != 200:
            raise failure(subject, status, body, expected="a token", advice=self.advice, secrets=self.secrets)
        token, life = _parse_token(body, subject)
        self.secrets.append(token)
        # Nine tenths: a token that ends while a large body is on its way costs that body twice.
        return _Token(f"Bearer {token}", now + 0.9 * life)

    def _realm(self, challenge: Challenge) -> str:
        subject, realm = f"{self._host}: realm of the token server", challenge.realm
        if not re.match(r"https?://[^/?#]", realm):
            raise RegistryError(f"{subject}: expected an http or https URL, got {ascii(realm)[:100]}")
        url = follow(str(self._registry), realm, subject=subject)
        host = Origin.of(url).host
        if is_address(host) and host != self._registry.host:
            raise RegistryError(f"{subject}: expected a host name, got {shown(url)}; do not trust this registry")
        return url


def _parse_token(body: bytes, subject: str) -> tuple[str, float]:
    """Token and life in seconds."""
    try:
        document = load_object(body, subject=subject, limit=TOKEN_BODY)
    except DocumentError as error:
        raise RegistryError(str(error)) from None
    token, life = document.get("token") or document.get("access_token"), document.get("expires_in", _DEFAULT_LIFE)
    if not isinstance(token, str) or not _TOKEN.match(token):
        raise Unauthorized(f"{subject}: expected a token of visible ASCII, got another answer")
    return token, life if isinstance(life, int) and life > 0 else _DEFAULT_LIFE
