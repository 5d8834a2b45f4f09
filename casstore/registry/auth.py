"""Who may see what: Authorization headers for one registry, and where its password and tokens may go.

A registry answers 401 with a challenge (RFC 7235): Basic, or Bearer with the URL of a token server, the realm
(distribution's token specification). Rules:

- Headers made here go to the registry's own origin only; http.py drops them on every other one.
- A realm is https, or http if the registry itself is plain http. An IP address only if it is the registry's own host.
- Password and identity token go to the realm only if it is on the registry's site (urls.same_site), or if we were told
  to trust it (`trusted_realms`, which may also be an IP address, but is never http below https); else the token is
  asked for anonymously, which is enough to pull what is public. A token server of a plain http registry on another
  port, be it on loopback, is another site: it has to be told.
- Tokens are kept per (realm, service, scopes), and thrown away once refused or old. A registry that refuses one and
  names a wider scope of the same repositories gets that one, once for each request.

Nothing here does I/O: tokens are fetched by the callable that the client passes in.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote_plus, urlencode

from oras.auth.utils import get_basic_auth

from casstore import log
from casstore.credentials import Credentials, CredentialSource
from casstore.errors import CasstoreError, DocumentError, RegistryError, Unauthorized
from casstore.jsondoc import load_object
from casstore.reference import parse_host
from casstore.registry.failures import failure, quoted
from casstore.registry.urls import Origin, follow, is_address, same_site, shown

TOKEN_BODY = 128 * 1024
"""Bytes of a token server's answer that are accepted."""
CLIENT_ID = "casstore"
"""Who we say we are to an OAuth2 token server."""
_DEFAULT_LIFE = 60
"""Seconds that a token lives if its server does not say (token specification)."""
_MAX_TOKENS = 32
_MAX_CHALLENGE = 8 * 1024
"""Characters of WWW-Authenticate, all headers joined, that are looked at; a longer one is no challenge."""
_NO_OAUTH = frozenset({404, 405})
"""How a token server answers the POST of OAuth2 that knows only GET (token specification)."""

_SCHEME = re.compile(r"(?:^|,)\s*(bearer|basic)(?=\s|\Z)", re.IGNORECASE)
# The bound keeps this linear: a run of letters that no "=" follows is otherwise read again from each of its letters.
_PARAMETER = re.compile(r'([a-z]{1,32})\s*=\s*(?:"([^"]*)"|([^\s",]+))', re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
_ACTION = re.compile(r"[a-z_]{1,32}\Z|\*\Z")


class FetchToken(Protocol):
    """Asks a token server, and follows no redirect."""

    def __call__(self, url: str, authorization: str | None, form: bytes | None, /) -> tuple[int, bytes]:
        """GET with this Authorization header or, with a form, POST it; the status and at most TOKEN_BODY bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for; realm, service and scope are empty for Basic."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

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
            return cls("bearer", *(found.get(name, "") for name in ("realm", "service", "scope")))
        return cls("basic") if "basic" in offers else None


def merge_scopes(asked: str, demanded: str) -> str:
    """The scopes `asked`, each with the actions that are `demanded` for it; what else is demanded is left out.

    Both are `repository:NAME:ACTION,...`, several separated by blanks.
    """
    wanted: dict[str, dict[str, None]] = {}
    for scope in asked.split():
        resource, _, actions = scope.rpartition(":")
        wanted.setdefault(resource, {}).update(dict.fromkeys(actions.split(",")))
    for scope in demanded.split():
        resource, _, actions = scope.rpartition(":")
        if resource in wanted:
            wanted[resource].update(dict.fromkeys(filter(_ACTION.match, actions.split(","))))
    return " ".join(f"{resource}:{','.join(actions)}" for resource, actions in wanted.items())


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    deadline: float


class Authenticator:
    """Makes the Authorization headers for one registry. Thread-safe; a token is fetched by one thread for all."""

    def __init__(
        self,
        host: str,
        registry: Origin,
        credentials: CredentialSource,
        fetch_token: FetchToken,
        *,
        repository: str = "",
        trusted_realms: Iterable[str] = (),
    ) -> None:
        """`repository` is what the credentials are looked up for; `trusted_realms` are `host[:port]`.

        Raises:
            InvalidReference: one of `trusted_realms` is no host.
        """
        self._host, self._registry, self._fetch_token = host, registry, fetch_token
        self._trusted = frozenset(parse_host(realm) for realm in trusted_realms)
        self._identity = _Identity(credentials, host, repository)
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._wider: dict[str, str] = {}
        """What the registry demanded, by the scopes that were asked for."""
        self._lock = threading.Lock()
        self._withheld: Origin | None = None
        self._sent: deque[str] = deque(maxlen=_MAX_TOKENS)
        self.password_sent: bool = False
        """Whether any header or token request so far used the credentials."""

    def __repr__(self) -> str:
        return f"Authenticator({self._host!r})"

    @property
    def challenged(self) -> bool:
        """Whether the registry ever asked who we are."""
        return self._challenge is not None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: the credentials, and the tokens of late."""
        return (*self._identity.secrets, *tuple(self._sent))

    @property
    def advice(self) -> str:
        """What to do when the registry refuses."""
        if self._withheld:
            where = str(self._withheld)
            return (
                f"the password for {self._host} was not sent to {where}, which is another site; if it is the"
                f" registry's own token server, trust it: --trust-realm {where.partition('://')[2]}"
            )
        if self.password_sent:
            return self._identity.refused
        verb = "check the permissions, or run" if self._identity.found else "run"
        option = " --plain-http" if self._registry.scheme == "http" else ""
        return f"{verb}: casstore login {self._host}{option}"

    def authorization(self, scope: str) -> str | None:
        """The header to send at once; None before the first challenge and for nobody.

        Raises:
            Unauthorized, Unavailable, RegistryError: a new token was needed and could not be had.
            Anything that the source of the credentials raises.
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
            if (wider := merge_scopes(self._wider.get(scope, scope), parsed.scope)) != scope:
                self._make_room(self._wider)
                self._wider[scope] = wider
            key = self._key(parsed, scope)
            if key in self._tokens and self._tokens[key].header == refused:
                del self._tokens[key]
            header = self._header(parsed, scope)
        return None if header == refused else header

    def _key(self, challenge: Challenge, scope: str) -> tuple[str, str, str]:
        return challenge.realm, challenge.service, self._wider.get(scope, scope)

    def _header(self, challenge: Challenge, scope: str) -> str | None:
        if challenge.scheme == "basic":
            self.password_sent |= self._identity.basic is not None
            return self._identity.basic
        if (ready := self._registry_token()) is not None:
            return ready
        key = self._key(challenge, scope)
        token = self._tokens.get(key)
        if token is None or token.deadline <= time.monotonic():
            self._make_room(self._tokens)
            token = self._tokens[key] = self._new_token(challenge, key[-1])
        return token.header

    def _registry_token(self) -> str | None:
        credentials = self._identity.credentials
        if credentials is None or credentials.registry_token is None:
            return None
        if not _TOKEN.match(credentials.registry_token):
            raise Unauthorized(f"{self._host}: expected a registry token of visible ASCII, got another one")
        self.password_sent = True
        return f"Bearer {credentials.registry_token}"

    def _new_token(self, challenge: Challenge, scopes: str) -> _Token:
        url = self._realm(challenge)
        realm, subject = Origin.of(url), f"{self._host}: token server {shown(url, self.secrets)}"
        credentials = self._identity.credentials
        if credentials is not None and not (same_site(realm, self._registry) or self._is_trusted(realm)):
            self._withheld, credentials = realm, None
        self.password_sent |= credentials is not None
        now = time.monotonic()
        status, body = self._ask(url, challenge.service, scopes.split(), credentials)
        if status != 200:
            raise failure(subject, status, body, expected="a token", advice=self.advice, secrets=self.secrets)
        token, life, refresh = _parse_token(body, subject)
        self._sent.append(token)
        if refresh is not None and credentials is not None and credentials.identity_token is not None:
            self._identity.renew(refresh)
        # Nine tenths: a token that ends while a large body is on its way costs that body twice.
        return _Token(f"Bearer {token}", now + 0.9 * life)

    def _ask(self, url: str, service: str, scopes: list[str], credentials: Credentials | None) -> tuple[int, bytes]:
        """A token server's answer: to an OAuth2 POST for an identity token, to a GET otherwise."""
        named = [("service", service)] if service else []
        if credentials is not None and credentials.identity_token is not None:
            grant = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token}
            fields = [*grant.items(), *named, ("scope", " ".join(scopes)), ("client_id", CLIENT_ID)]
            status, body = self._fetch_token(url, None, urlencode(fields).encode())
            if status not in _NO_OAUTH or self._identity.basic is None:
                return status, body
        query = urlencode([*named, *(("scope", scope) for scope in scopes)])
        basic = self._identity.basic if credentials is not None else None
        return self._fetch_token(f"{url}{'&' if '?' in url else '?'}{query}", basic, None)

    def _realm(self, challenge: Challenge) -> str:
        subject, realm = f"{self._host}: realm of the token server", challenge.realm
        if not re.match(r"https?://[^/?#]", realm):
            raise RegistryError(f"{subject}: expected an http or https URL, got {quoted(realm, self.secrets)}")
        url = follow(str(self._registry), realm, subject=subject, secrets=self.secrets)
        origin = Origin.of(url)
        if is_address(origin.host) and origin.host != self._registry.host and not self._is_trusted(origin):
            raise RegistryError(
                f"{subject}: expected a host name, got {shown(url, self.secrets)}; do not trust this registry"
            )
        return url

    def _is_trusted(self, realm: Origin) -> bool:
        name = str(realm).partition("://")[2]
        return bool(self._trusted & {name, f"{name}:{realm.port}"})

    @staticmethod
    def _make_room(cache: dict[tuple[str, str, str], _Token] | dict[str, str]) -> None:
        if len(cache) >= _MAX_TOKENS:
            cache.clear()


class _Identity:
    """The credentials for one repository, looked up when they are first needed, and only once, whatever comes of it."""

    def __init__(self, source: CredentialSource, host: str, repository: str) -> None:
        self._source, self._place = source, (host, repository)
        self._asked = False
        self._credentials: Credentials | None = None
        self._failed: CasstoreError | None = None
        self._basic: str | None = None
        self.secrets: tuple[str, ...] = ()
        """All that must not be shown, in the forms in which a server may echo it."""

    @property
    def found(self) -> bool:
        """Whether there are any, as far as is known."""
        return self._credentials is not None

    @property
    def refused(self) -> str:
        """What to do when they were sent, and do not suffice."""
        origin = self._credentials.origin if self._credentials else ""
        if not origin:  # whoever asks has just named them
            return "wrong user name or password, or no permission"
        return f"the credentials from {origin} were refused: change them there, or ask for the permission"

    @property
    def credentials(self) -> Credentials | None:
        """Them; a source that failed is not asked again (a helper may take half a minute)."""
        if not self._asked:
            self._asked = True
            try:
                self._take(self._source.lookup(*self._place))
            except CasstoreError as error:
                self._failed = error
            found = self._credentials
            whose = "no credentials" if found is None else f"the credentials from {found.origin or 'the program'}"
            log.info("registry", "%s: using %s", self._place[0], whose)
        if self._failed is not None:
            raise self._failed
        return self._credentials

    @property
    def basic(self) -> str | None:
        """The header for user and password, if these are known."""
        return self._basic if self.credentials is not None else None

    def renew(self, identity_token: str) -> None:
        """The token server gave another identity token; the old one may be void."""
        known = self._credentials
        if known is not None:
            self._take(replace(known, identity_token=identity_token))

    def _take(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        if credentials is None:
            return
        plain = [credentials.password, credentials.identity_token or "", credentials.registry_token or ""]
        if credentials.username and credentials.password:
            pair: str = get_basic_auth(credentials.username, credentials.password)
            self._basic = f"Basic {pair}"
            plain.append(pair)
        forms = [form for secret in plain for form in (secret, quote_plus(secret), json.dumps(secret)[1:-1])]
        self.secrets = tuple(dict.fromkeys(filter(None, (*self.secrets[-_MAX_TOKENS:], *forms))))


def _parse_token(body: bytes, subject: str) -> tuple[str, float, str | None]:
    """Token, life in seconds, and the identity token to use from now on, if there is a new one."""
    try:
        document = load_object(body, subject=subject, limit=TOKEN_BODY)
    except DocumentError as error:
        problem = str(error)
    else:
        token, life = document.get("token") or document.get("access_token"), document.get("expires_in", _DEFAULT_LIFE)
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise Unauthorized(f"{subject}: expected a token of visible ASCII, got another answer")
        refresh = document.get("refresh_token")
        if not isinstance(refresh, str) or not _TOKEN.match(refresh):
            refresh = None
        return token, life if isinstance(life, int) and life > 0 else _DEFAULT_LIFE, refresh
    raise RegistryError(problem)
