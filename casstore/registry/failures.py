"""What went wrong with a registry, in casstore's errors and words.

Text from the other side is shown short, on one line, in visible ASCII (no control or bidirectional characters can reach
a terminal) and without the secrets that a server may echo.
"""

from __future__ import annotations

from collections.abc import Iterable

import requests
import urllib3

from casstore.errors import CasstoreError, DocumentError, NotFound, RegistryError, Unauthorized, Unavailable
from casstore.jsondoc import load

ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are read."""
_SHOWN = 200
"""Characters of it that are shown."""
_SHORTEST_SECRET = 4
"""Characters; to replace a shorter one wherever it occurs would garble the text, and give it away."""


def failure(
    subject: str, status: int, body: bytes, *, expected: str, advice: str, secrets: Iterable[str]
) -> CasstoreError:
    """The error for an HTTP status: 401 and 403 Unauthorized, 404 NotFound, 5xx Unavailable, else RegistryError.

    `advice` is what to do about missing permissions.
    """
    words = explain(body, secrets)
    text = f"{subject}: expected {expected}, got {status}" + (f" ({words})" if words else "")
    if status in {401, 403}:
        return Unauthorized(f"{text}; {advice}")
    if status == 404:
        return NotFound(text.replace(f"{subject}: ", f"{subject}: not found: ", 1))
    if status >= 500:
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


def unavailable(subject: str, error: BaseException) -> Unavailable:
    """The error for one of requests', urllib3's or the socket's own; says only the innermost cause's words."""
    advice = "check the host, the network and, for https, the certificate"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return Unavailable(f"{subject}: no answer in time; {advice}")
    return Unavailable(f"{subject}: {printable(str(_innermost(error)))}; {advice}")


def _innermost(error: BaseException) -> BaseException:
    # Only these wrap something of their own. Any other error's context may be the caller's business.
    wrappers = (requests.RequestException, urllib3.exceptions.HTTPError)
    while isinstance(error, wrappers) and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
