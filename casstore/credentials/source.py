"""What credentials are, and the question that every place which keeps them answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens one registry; `repr` hides all but the user.

    A user with a password (or an access token in its place); or an `identity_token`, which a token server takes for
    tokens (OAuth2's refresh token); or a `registry_token`, which is sent to the registry itself, as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    origin: str = field(default="", compare=False)
    """Where they were found, for people: a variable, a file, a helper."""


class CredentialSource(Protocol):
    """Where credentials come from."""

    def lookup(self, host: str, repository: str = "", /) -> Credentials | None:
        """The credentials for a repository of `host[:port]`, both as a reference names them; None to be anonymous.

        Without a repository: those for the host as a whole.
        """
        ...


class Anonymous:
    """A CredentialSource for nobody."""

    def lookup(self, host: str, repository: str = "") -> None:
        """None."""


class HostCredentials:
    """A CredentialSource that knows one host or, with `path`, what is at and below that path of it."""

    def __init__(self, host: str, credentials: Credentials, *, path: str = "") -> None:
        self._host, self._path, self._credentials = host, path, credentials

    def lookup(self, host: str, repository: str = "") -> Credentials | None:
        """The credentials, if this is their place."""
        inside = not self._path or f"{repository}/".startswith(f"{self._path}/")
        return self._credentials if host == self._host and inside else None


class FirstOf:
    """A CredentialSource that asks others in turn, until one has an answer."""

    def __init__(self, sources: Iterable[CredentialSource]) -> None:
        self._sources = tuple(sources)

    def lookup(self, host: str, repository: str = "") -> Credentials | None:
        """The first answer."""
        answers = (source.lookup(host, repository) for source in self._sources)
        return next((answer for answer in answers if answer is not None), None)
