"""Asking a registry whether it is there, whether it knows us, and what time it has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from casstore.credentials import CredentialSource
from casstore.errors import CasstoreError, Unauthorized
from casstore.registry.http import RegistryClient
from casstore.registry.options import RegistryOptions


@dataclass(frozen=True, slots=True)
class Answer:
    """What a registry said."""

    asked_who: bool
    """Whether it wanted to know who we are."""
    told_who: bool
    """Whether credentials went to it, or to its token server."""
    refused: Unauthorized | None
    """That it does not let us in."""
    time: datetime | None
    """Its clock, to the second; None where it did not say."""


def probe(host: str, options: RegistryOptions, credentials: CredentialSource, *, repository: str = "") -> Answer:
    """Ask the registry at `host` for its API's root, with the credentials for `repository`, if there are any.

    Raises:
        InvalidReference: no host.
        Unavailable, RegistryError, NotFound: there is no registry, or it does not work.
        Anything that the source of the credentials raises.
    """
    with RegistryClient(host, options, credentials, repository=repository) as client:
        refused: CasstoreError | None = None
        time = None
        try:
            response = client.do_request(client.base, subject=host, expect=(200, 401, 403))
        except Unauthorized as error:  # of the token server
            refused = error
        else:
            time = _time(response.headers.get("Date"))
            if response.status_code == 200:
                client.finish(response, host)
            else:
                refused = client.refusal(response, host, expected="200")
        if refused is not None and not isinstance(refused, Unauthorized):
            raise refused
        return Answer(client.auth.challenged, client.auth.password_sent, refused, time)


def _time(text: str | None) -> datetime | None:
    """A Date header, in UTC."""
    with suppress(ValueError, TypeError, OverflowError):
        found = parsedate_to_datetime((text or "")[:100])
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return None
