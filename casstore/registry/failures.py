"""What went wrong with a registry, in casstore's errors and words.

Text from the other side is shown short, on one line, in visible ASCII (no control or bidirectional characters can reach
a terminal) and without the secrets that a server may echo.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import requests
import urllib3
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from casstore.errors import CasstoreError, DocumentError, NotFound, RegistryError, Unauthorized, Unavailable
from casstore.jsondoc import load

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed."""
ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are read."""
_SHOWN = 200
"""Characters of it that are shown."""
_SHORTEST_SECRET = 4
"""Characters; to replace a shorter one wherever it occurs would garble the text, and give it away."""


def failure(
    subject: str, status: int, body: bytes, *, expected: str, advice: str, secrets: Iterable[str]
) -> CasstoreError:
    """The error for an HTTP status: 401 and 403 Unauthorized, 404 NotFound, 5xx and PASSING Unavailable, else
    RegistryError.

    `advice` is what to do about missing permissions.
    """
    words = explain(body, secrets)
    text = f"{subject}: expected {expected}, got {status}" + (f" ({words})" if words else "")
    if status == 400 and "HTTP request to an HTTPS server" in words:
        return RegistryError(f"{text}; it speaks https: leave out --plain-http")
    if status in {401, 403}:
        return Unauthorized(f"{text}; {advice}")
    if status == 404:
        return NotFound(text.replace(f"{subject}: ", f"{subject}: not found: ", 1))
    if status >= 500 or status in PASSING:
        return Unavailable(f"{text}; try again later")
    return RegistryError(text)


def explain(body: bytes, secrets: Iterable[str]) -> str:
    """What an error's body says: the codes and messages of a registry's JSON, else its first words."""
    try:
        document = load(body, subject="error", limit=ERROR_BODY)
        errors = document["errors"]
        text = "; ".join(": ".join(str(e[key]) for key in ("code", "message") if e.get(key)) for e in errors[:3])
    except (DocumentError, LookupError, TypeError, AttributeError):
        text = body.decode("utf-8", "replace")
    known = list(secrets)
    text = scrub(text, known)
    if len(body) >= ERROR_BODY:  # it was cut, maybe within a secret
        text = text[: max(0, len(text) - max(map(len, known), default=0))]
    return printable(text)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets; before it is cut, since the rest of one that was cut is not found."""
    long = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
    headers = [secret.encode(errors="replace").decode("latin-1") for secret in long]  # as a header would echo it
    for secret in sorted(long + headers, key=len, reverse=True):  # one may be part of another
        text = text.replace(secret, "***")
    return text


def quoted(value: object, secrets: Iterable[str]) -> str:
    """A value that the other side sent, as a short literal without the secrets."""
    return ascii(scrub(value, secrets) if isinstance(value, str) else value)[:100]


def printable(text: str) -> str:
    """`text` on one line, short, in visible ASCII."""
    line = ascii(" ".join(text.split()))[1:-1]
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


class Ended(OSError):
    """Something was waited for no longer: it was stopped, or the deadline comes first. An OSError, so that the HTTP
    libraries pass it on as one of the connection's.
    """


class TooSlow(OSError):
    """Bytes come, or are taken, but hardly any."""


PROXY_REFUSAL = "the proxy answers 407, it wants another user or password; they stand in the proxy's URL"
_ADVICE = "check the host, the network and, for https, the certificate"
_HINTS = (
    ("WRONG_VERSION_NUMBER", "it seems to speak http: try --plain-http"),
    ("CERTIFICATE_VERIFY_FAILED", "name the CA to trust with --ca-bundle, or do without the check: --insecure"),
)
"""What OpenSSL says, and what to do then."""
_PASSING = (
    *(TimeoutError, ConnectionError, TooSlow, ssl.SSLEOFError, ssl.SSLZeroReturnError),
    *(http.client.BadStatusLine, http.client.IncompleteRead),
    *(urllib3.exceptions.TimeoutError, urllib3.exceptions.IncompleteRead),
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """An exchange that brought no whole answer."""

    error: Unavailable
    passing: bool
    """The connection was there and broke, so that another may do better."""
    unreachable: bool
    """There was no connection: passing if there ever was one, else more likely a wrong address."""


def broken(subject: str, error: BaseException) -> Trouble:
    """What one of requests', urllib3's, http.client's or the socket's errors means; says the innermost one's words."""
    chain = list(_causes(error))
    inner = chain[-1]
    refused = _proxy_refusal(str(inner))
    unreachable = any(isinstance(each, (NewConnectionError, ConnectTimeoutError)) for each in chain) and not refused
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    if refused:
        text = PROXY_REFUSAL
    elif any(isinstance(each, timeouts) and not isinstance(each, NewConnectionError) for each in chain):
        text = f"no answer in time; {_ADVICE}"
    elif isinstance(inner, Ended):
        text = str(inner)
    else:
        words = printable(str(inner)) or type(inner).__name__
        text = f"{words}; {next((hint for said, hint in _HINTS if said in words), _ADVICE)}"
    lasting = isinstance(inner, ssl.SSLError) and not isinstance(inner, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
    passing = not lasting and not unreachable and not refused and any(isinstance(each, _PASSING) for each in chain)
    return Trouble(Unavailable(f"{subject}: {text}"), passing, unreachable)


def _proxy_refusal(text: str) -> bool:
    return text.startswith("Tunnel connection failed: 407")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, outermost first."""
    # Only these wrap something of their own. Any other error's context may be the caller's business.
    wrappers = (requests.RequestException, urllib3.exceptions.HTTPError)
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        if not isinstance(inner, wrappers):
            return
        given = (each for each in inner.args if isinstance(each, BaseException))
        inner = inner.__cause__ or inner.__context__ or next(given, None)
